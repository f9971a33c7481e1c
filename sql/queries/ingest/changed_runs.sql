-- Staged runs that are new, or differ in a column or an allocation from their stored revision.
SELECT run_id
FROM (
    SELECT run_id, name, owner, run_model, started_at, ended_at, labels FROM staging.training_run
    EXCEPT
    SELECT run_id, name, owner, run_model, started_at, ended_at, labels FROM training_run
    WHERE superseded_at IS NULL
)
UNION
SELECT run_id
FROM (
    (
        SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM staging.incoming_allocation
        EXCEPT
        SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM run_allocation
        WHERE superseded_at IS NULL
    )
    UNION ALL
    (
        SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM run_allocation AS a
        WHERE superseded_at IS NULL
            AND EXISTS (SELECT 1 FROM staging.training_run AS n WHERE n.run_id = a.run_id)
        EXCEPT
        SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM staging.incoming_allocation
    )
)
