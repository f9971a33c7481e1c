-- GPUs of a batch that others speak of too, under another name: one recorder knows the UUID of a GPU, the other numbers
-- the GPUs of its host (HOST/gpu0). The same number, or none, on the same host at the same time is the same GPU.
-- $first, $last: the time of the batch.
WITH known AS (
    SELECT -1 AS place, p.gpu_uuid, g.host, g.gpu_index, p.first_ts, p.last_ts, p.source_name
    FROM segment_profile AS p
    JOIN gpu AS g ON g.gpu_uuid = p.gpu_uuid
    WHERE p.first_ts <= $last AND p.last_ts >= $first
    UNION ALL
    SELECT place, gpu_uuid, host, gpu_index, first_ts, last_ts, source_name FROM profile
),
named AS (
    SELECT *,
        regexp_matches(gpu_uuid, '/gpu[0-9]+$') AS is_numbered,
        -- node01 and node01.cluster.example are one host; addresses are taken whole.
        CASE
            WHEN regexp_matches(host, '^[0-9.]+$') THEN host ELSE lower(split_part(host, '.', 1))
        END AS host_name
    FROM known
)
SELECT t.place, arg_min(t.gpu_uuid, t.first_ts) AS gpu_uuid, arg_min(o.gpu_uuid, t.first_ts) AS other_uuid,
    arg_min(o.source_name, t.first_ts) AS other_source, min(greatest(t.first_ts, o.first_ts)) AS first_ts,
    max(least(t.last_ts, o.last_ts)) AS last_ts
FROM named AS t
JOIN named AS o
    ON o.place < t.place
    AND o.host_name = t.host_name
    AND o.gpu_uuid <> t.gpu_uuid
    AND o.is_numbered <> t.is_numbered
    AND coalesce(o.gpu_index, t.gpu_index) IS NOT DISTINCT FROM coalesce(t.gpu_index, o.gpu_index)
    AND o.first_ts < t.last_ts AND o.last_ts > t.first_ts
WHERE t.place >= 0
GROUP BY t.place
