-- grain: one run as a second meter saw it
-- keys: meter, meter_run_id, run_id
-- owner: auditors
-- Ours beside theirs. Two of our runs that share a name and a time both stand beside a meter's run of that name.
CREATE OR REPLACE VIEW meter_agreement AS
SELECT
    m.meter,
    m.meter_run_id,
    m.label,
    r.run_id,
    m.started_at,
    m.ended_at,
    m.gpu_mj / 3.6e9 AS meter_gpu_kwh,
    f.energy_mj / 3.6e9 AS energy_kwh,
    (f.energy_mj - m.gpu_mj) / nullif(m.gpu_mj, 0) AS gpu_difference,
    (coalesce(m.cpu_mj, 0) + coalesce(m.dram_mj, 0)) / 3.6e9 AS meter_host_kwh,
    f.host_mj / 3.6e9 AS host_kwh
FROM second_meter AS m
LEFT JOIN training_run AS r
    ON r.superseded_at IS NULL
    AND m.label IN (r.run_id, r.name)
    AND r.started_at < m.ended_at
    AND coalesce(r.ended_at, m.ended_at) > m.started_at
LEFT JOIN run_footprint AS f ON f.kind = 'run' AND f.run_id = r.run_id
ORDER BY m.started_at, m.meter_run_id;
