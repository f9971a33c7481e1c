-- grain: one run, with the cleanest hour and the cleanest zone it could have had; the twenty with most CO2e
-- keys: run_id
-- owner: flows.reporting.report.render
SELECT
    run_id,
    any_value(location_co2e_kg) AS was_kg,
    min(co2e_kg) FILTER (is_own_zone) AS best_hour_kg,
    arg_min(shift_h, co2e_kg) FILTER (is_own_zone) AS best_shift_h,
    min(co2e_kg) FILTER (NOT is_own_zone AND shift_h = 0) AS best_zone_kg,
    arg_min(zone, co2e_kg) FILTER (NOT is_own_zone AND shift_h = 0) AS best_zone
FROM alternatives
WHERE co2e_kg IS NOT NULL
GROUP BY run_id
ORDER BY was_kg DESC
LIMIT 20
