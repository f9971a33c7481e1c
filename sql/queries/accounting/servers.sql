-- grain: one device, with its server and the GPUs in it: as its site says last, else as many as its host has
-- keys: gpu_key
-- owner: flows.accounting.fleet
SELECT gpu_key, model, last(s.server ORDER BY s.valid_from NULLS FIRST) AS server,
    coalesce(
        last(s.gpus_per_server ORDER BY s.valid_from NULLS FIRST), any_value(seen)
    ) AS gpus_per_server
FROM (
    SELECT gpu_key, host, model,
        greatest(1, count(*) FILTER (model IS DISTINCT FROM $no_gpu) OVER (PARTITION BY host)) AS seen
    FROM gpu
) JOIN host AS h USING (host) LEFT JOIN site AS s ON s.site = h.site
GROUP BY gpu_key, model
ORDER BY gpu_key
