-- grain: one run of run_summary, with the columns that several entries of frames rest on ($slot_us: length of a slot)
-- keys: run_id
-- owner: flows.reporting.frames
SELECT
    *,
    epoch(ended_at - started_at) AS duration,
    facility_kwh / nullif(it_kwh, 0) AS pue,
    co2e_scope1_kg + co2e_kg AS emissions
FROM (
    -- A run that goes on is reported as far as its last slot.
    SELECT
        t.labels,
        s.* REPLACE (
            coalesce(s.ended_at, f.last_slot + to_microseconds($slot_us)) AS ended_at
        ),
        (
            SELECT string_agg(DISTINCT coalesce(g.model, 'GPU'), ', ')
            FROM gpu_energy AS g WHERE g.run_id = s.run_id AND g.kind = 'run'
        ) AS gpu_models,
        (
            SELECT string_agg(DISTINCT z.zone, ', ' ORDER BY z.zone)
            FROM footprint_slot AS z WHERE z.run_id = s.run_id AND z.kind = 'run'
        ) AS zones
    FROM run_summary AS s
    JOIN run_footprint AS f ON f.run_id = s.run_id AND f.kind = 'run'
    LEFT JOIN training_run AS t ON t.run_id = s.run_id AND t.superseded_at IS NULL
)
