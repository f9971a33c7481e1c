-- grain: one run (or idle, or unallocated) on one GPU
-- keys: gpu_uuid, kind, run_id
-- owner: auditors
CREATE OR REPLACE VIEW gpu_energy AS
SELECT
    g.host,
    g.gpu_uuid,
    g.model,
    e.kind,
    e.run_id,
    sum(e.held_us) / 3.6e9 AS gpu_hours,
    sum(e.energy_mj) / 3.6e9 AS energy_kwh,
    sum(e.energy_low_mj) / 3.6e9 AS energy_low_kwh,
    sum(e.energy_high_mj) / 3.6e9 AS energy_high_kwh,
    sum(e.measured_mj) / nullif(sum(e.energy_mj), 0) AS energy_measured_share
FROM energy_slot AS e
JOIN gpu AS g USING (gpu_key)
GROUP BY ALL
ORDER BY ALL;
