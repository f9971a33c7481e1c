-- grain: one device, with its place among those of its host that carry the host's energy: its GPUs, or else the host device
-- keys: gpu_key
-- owner: flows.accounting.fleet
SELECT gpu_key, host, site, model, is_gpu,
    CASE WHEN carries THEN row_number() OVER w - 1 END AS place,
    CASE WHEN carries THEN count(*) OVER (PARTITION BY host, carries) END AS count
FROM (
    SELECT gpu_key, host, site, model, model IS DISTINCT FROM $no_gpu AS is_gpu,
        is_gpu OR NOT bool_or(is_gpu) OVER (PARTITION BY host) AS carries
    FROM gpu JOIN host USING (host)
) WINDOW w AS (PARTITION BY host, carries ORDER BY gpu_key)
