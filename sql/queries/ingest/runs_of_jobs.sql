-- Stored runs that Slurm's accounting told, of the jobs $jobs.
SELECT run_id, started_at, ended_at,
    json_extract_string(labels, '$.slurm_job') AS job,
    json_extract_string(labels, '$.slurm_job_id') AS job_id,
    coalesce(json_extract_string(labels, '$.slurm_cluster'), '') AS cluster
FROM training_run
WHERE superseded_at IS NULL AND json_extract_string(labels, '$.slurm_job') IS NOT NULL
    AND (json_extract_string(labels, '$.slurm_job_id') IN (SELECT unnest($jobs))
        OR json_extract_string(labels, '$.slurm_job') IN (SELECT unnest($jobs)))
ORDER BY run_id
