-- Stored runs between $first and $last: what codecarbon measured of each, and the models that it held.
SELECT r.run_id, r.name, r.started_at, r.ended_at,
    CASE WHEN json_extract_string(r.labels, '$.meter') = 'codecarbon'
        THEN coalesce(json_extract_string(r.labels, '$.machine'), '') END AS machine,
    json_extract_string(r.labels, '$.codecarbon_gpu_mj') AS gpu_mj,
    json_extract_string(r.labels, '$.codecarbon_cpu_mj') AS cpu_mj,
    json_extract_string(r.labels, '$.codecarbon_dram_mj') AS dram_mj,
    coalesce(list(DISTINCT g.model) FILTER (g.model IS NOT NULL), []) AS models
FROM training_run AS r
LEFT JOIN run_allocation AS a ON a.run_id = r.run_id AND a.superseded_at IS NULL
LEFT JOIN gpu AS g ON g.gpu_uuid = a.gpu_uuid
WHERE r.superseded_at IS NULL AND r.started_at < $last AND (r.ended_at IS NULL OR r.ended_at > $first)
GROUP BY ALL
ORDER BY r.started_at, r.run_id
