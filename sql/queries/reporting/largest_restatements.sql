-- grain: one run restated by publication $id; the six whose CO2e changed most
-- keys: run_id
-- owner: flows.reporting.report.render
SELECT
    run_id,
    previous_id,
    co2e_before_ug / 1e9 AS before_kg,
    co2e_after_ug / 1e9 AS after_kg,
    (co2e_after_ug - co2e_before_ug) / nullif(co2e_before_ug, 0) AS change,
    causes
FROM restatement
WHERE publication_id = $id
ORDER BY abs(coalesce(co2e_after_ug, 0) - coalesce(co2e_before_ug, 0)) DESC, run_id
LIMIT 6
