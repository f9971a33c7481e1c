-- All allocations as they would stand after loading: new ones, and those stored of runs that do not come again.
FROM staging.incoming_allocation
UNION ALL BY NAME
SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm::BIGINT AS share_ppm, 'stored' AS place
FROM run_allocation AS a
WHERE superseded_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM staging.training_run AS n WHERE n.run_id = a.run_id)
    AND NOT EXISTS (SELECT 1 FROM staging.withdrawn_run AS w WHERE w.run_id = a.run_id)
