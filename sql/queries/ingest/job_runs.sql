-- Stored runs that may be of the Slurm jobs whose run ids are $names: with that id, or with it and a start behind it.
SELECT run_id, name, owner, started_at, ended_at,
    coalesce(json_extract_string(labels, '$.slurm_state'), '') AS state,
    json_extract_string(labels, '$.slurm_submit') AS submitted_at,
    json_extract_string(labels, '$.slurm_state') IS NOT NULL AS is_job,
    regexp_replace(run_id, '-\d{8}T\d{6}Z$', '') AS job_name
FROM training_run
WHERE superseded_at IS NULL AND regexp_replace(run_id, '-\d{8}T\d{6}Z$', '') IN (SELECT unnest($names))
ORDER BY started_at, run_id
