-- grain: one run
-- keys: run_id
-- owner: auditors
-- Where a run's energy comes from, and what its intensities rest on.
CREATE OR REPLACE VIEW data_quality AS
WITH sources AS (
    SELECT
        run_id,
        sum(counter_mj) AS counter_mj,
        sum(power_integral_mj) AS power_integral_mj,
        sum(gap_mj) AS gap_mj,
        sum(filled_mj) AS filled_mj,
        sum(energy_mj) AS energy_mj
    FROM energy_slot
    WHERE kind = 'run'
    GROUP BY run_id
),
profile AS (
    SELECT
        g.gpu_key, p.first_ts, p.last_ts, p.rows_read,
        if(s.segment_id IS NULL, 0, p.rows_read) AS rows_signed
    FROM segment_profile AS p
    JOIN gpu AS g USING (gpu_uuid)
    LEFT JOIN signed_segment AS s ON s.segment_id = p.segment_id
    WHERE p.rows_read > 0
),
begun AS (
    SELECT gpu_key, first_ts, sum(rows_read) OVER w AS rows_read, sum(rows_signed) OVER w AS rows_signed
    FROM profile
    WINDOW w AS (PARTITION BY gpu_key ORDER BY first_ts)
),
ended AS (
    SELECT gpu_key, last_ts, sum(rows_read) OVER w AS rows_read, sum(rows_signed) OVER w AS rows_signed
    FROM profile
    WINDOW w AS (PARTITION BY gpu_key ORDER BY last_ts)
),
held AS (
    SELECT
        run_id, gpu_key, min(slot_start) AS from_ts, max(slot_start) + to_microseconds($slot_us) AS to_ts,
        sum(energy_mj - filled_mj) AS energy_mj
    FROM energy_slot
    WHERE kind = 'run'
    GROUP BY ALL
),
-- Files that begin before the run ends, less those that end before it begins.
signed AS (
    SELECT
        h.run_id,
        sum(h.energy_mj * (b.rows_signed - coalesce(e.rows_signed, 0))
            / nullif(b.rows_read - coalesce(e.rows_read, 0), 0)) AS signed_mj
    FROM held AS h
    ASOF LEFT JOIN begun AS b ON b.gpu_key = h.gpu_key AND h.to_ts > b.first_ts
    ASOF LEFT JOIN ended AS e ON e.gpu_key = h.gpu_key AND h.from_ts >= e.last_ts
    GROUP BY h.run_id
),
-- Of a run's records, those that the collector of their host saw on its node, and signed.
told AS (
    SELECT run_id, avg((record_sha256 IN (SELECT record_sha256 FROM seen_record))::INTEGER) AS seen_share
    FROM run_record
    GROUP BY run_id
),
grid AS (
    SELECT
        run_id,
        coalesce(sum(energy_share) FILTER (series AND NOT is_estimated), 0) AS reported_share,
        coalesce(sum(energy_share) FILTER (series AND is_estimated), 0) AS estimated_share,
        coalesce(sum(energy_share) FILTER (NOT series), 0) AS fallback_share
    FROM (SELECT *, rung IN ('live', 'cached') AS series FROM intensity_sources)
    WHERE quantity = 'intensity'
    GROUP BY run_id
)
SELECT
    run_id,
    counter_mj / nullif(energy_mj, 0) AS counter_share,
    power_integral_mj / nullif(energy_mj, 0) AS power_share,
    gap_mj / nullif(energy_mj, 0) AS gap_share,
    filled_mj / nullif(energy_mj, 0) AS filled_share,
    coalesce(signed_mj, 0) / nullif(energy_mj, 0) AS signed_share,
    coalesce(seen_share, 0) AS records_seen_share,
    reported_share AS intensity_reported_share,
    estimated_share AS intensity_estimated_share,
    fallback_share AS intensity_fallback_share
FROM sources
LEFT JOIN grid USING (run_id)
LEFT JOIN signed USING (run_id)
LEFT JOIN told USING (run_id)
ORDER BY run_id;
