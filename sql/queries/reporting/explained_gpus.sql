-- grain: one GPU of run $run: its energy by how it was found
-- keys: gpu_uuid, host
-- owner: flows.reporting.explain
SELECT
    u.gpu_uuid,
    u.host,
    sum(held_us) AS held_us,
    sum(counter_mj) AS counter_mj,
    sum(power_integral_mj) AS power_integral_mj,
    sum(gap_mj) AS gap_mj,
    sum(filled_mj) AS filled_mj,
    sum(energy_mj) AS energy_mj
FROM energy_slot AS e
JOIN gpu AS u USING (gpu_key)
WHERE kind = 'run' AND run_id = $run
GROUP BY ALL
ORDER BY u.host, u.gpu_uuid
