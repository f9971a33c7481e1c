-- Run records that were written within the Slurm jobs $jobs: what they name of each job, and when.
SELECT run_id, host, started_at, ended_at, owner_uid, is_vouched,
    job_id, array_id,
    coalesce(json_extract_string(record, '$.slurm.SLURM_CLUSTER_NAME'), '') AS cluster,
    record
FROM (
    SELECT *, json_extract_string(record, '$.slurm.SLURM_JOB_ID') AS job_id,
        json_extract_string(record, '$.slurm.SLURM_ARRAY_JOB_ID') || '_'
            || coalesce(json_extract_string(record, '$.slurm.SLURM_ARRAY_TASK_ID'), '') AS array_id
    FROM run_record
)
WHERE job_id IN (SELECT unnest($jobs)) OR array_id IN (SELECT unnest($jobs))
ORDER BY run_id, started_at, record_id
