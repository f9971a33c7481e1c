-- grain: one input of one of the $runs runs with most CO2e
-- keys: run_id, input
-- owner: flows.reporting.report.render
SELECT s.*
FROM sensitivity AS s
JOIN run_footprint AS f ON f.run_id = s.run_id AND f.kind = 'run'
QUALIFY dense_rank() OVER (ORDER BY f.co2e_ug DESC, s.run_id) <= $runs
ORDER BY f.co2e_ug DESC, s.run_id
