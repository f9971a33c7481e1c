-- grain: one training run
-- keys: run_id
-- owner: ML engineers
-- What the labels of a run say of its place among others; docs/formats.md names them.
CREATE OR REPLACE VIEW run_label AS
WITH said AS (
    SELECT
        run_id,
        ended_at,
        run_model,
        nullif(labels ->> '$.family', '') AS family,
        nullif(labels ->> '$.phase', '') AS phase,
        nullif(labels ->> '$.outcome', '') AS outcome,
        nullif(labels ->> '$.functional_unit', '') AS functional_unit,
        nullif(labels ->> '$.functional_units', '') AS functional_units,
        nullif(labels ->> '$.exit_code', '') AS exit_code,
        nullif(labels ->> '$.slurm_state', '') AS slurm_state
    FROM training_run
    WHERE superseded_at IS NULL
)
SELECT
    run_id,
    coalesce(family, run_model) AS family,
    coalesce(phase, 'training') AS phase,
    CASE
        WHEN outcome IS NOT NULL THEN outcome
        WHEN ended_at IS NULL THEN 'running'
        WHEN exit_code = '0' OR starts_with(slurm_state, 'COMPLETED') THEN 'completed'
        WHEN exit_code IS NOT NULL THEN 'failed'
        WHEN starts_with(slurm_state, 'TIMEOUT') OR starts_with(slurm_state, 'PREEMPTED')
            OR starts_with(slurm_state, 'CANCELLED') THEN 'stopped'
        WHEN slurm_state IS NOT NULL THEN 'failed'
        ELSE 'unknown'
    END AS outcome,
    functional_unit,
    nullif(greatest(try_cast(functional_units AS DOUBLE), 0), 0) AS functional_units
FROM said
ORDER BY run_id;
