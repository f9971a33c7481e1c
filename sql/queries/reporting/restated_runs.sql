-- grain: one run restated by publication $id
-- keys: run_id
-- owner: flows.reporting.report.render
SELECT
    run_id,
    previous_id,
    causes,
    energy_before_mj / 3.6e9 AS energy_before_kwh,
    energy_after_mj / 3.6e9 AS energy_after_kwh,
    co2e_before_ug / 1e9 AS co2e_before_kg,
    co2e_after_ug / 1e9 AS co2e_after_kg
FROM restatement
WHERE publication_id = $id
ORDER BY run_id
