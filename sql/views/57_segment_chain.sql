-- grain: one host and key
-- keys: host, public_key
-- owner: auditors
-- Numbers in the chain of a host that no loaded segment has: not arrived yet, lost, or taken away. What would
-- come after the last number cannot be known to be missing.
CREATE OR REPLACE VIEW segment_chain AS
WITH step AS (
    SELECT host, public_key, segment_sequence,
        coalesce(lag(segment_sequence) OVER (PARTITION BY host, public_key ORDER BY segment_sequence), 0) AS before
    FROM signed_segment
)
SELECT
    host,
    public_key,
    max(segment_sequence) AS last_sequence,
    count(*) AS present,
    max(segment_sequence) - count(*) AS missing,
    min(before + 1) FILTER (segment_sequence > before + 1) AS first_missing
FROM step
GROUP BY ALL
ORDER BY host, public_key;
