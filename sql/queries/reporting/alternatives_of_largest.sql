-- grain: one alternative of one of the $runs runs with most CO2e
-- keys: run_id, zone, shift_h
-- owner: flows.reporting.report.render
SELECT run_id, zone, shift_h, co2e_kg, location_co2e_kg
FROM alternatives
WHERE co2e_kg IS NOT NULL
    AND run_id IN (
        SELECT run_id FROM run_footprint WHERE kind = 'run' ORDER BY co2e_ug DESC LIMIT $runs
    )
