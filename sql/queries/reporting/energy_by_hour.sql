-- Hours of a run, or of everything, in a span of time; null parameters choose all.
SELECT *
FROM energy_by_hour
WHERE ($run_id IS NULL OR run_id = $run_id)
    AND ($start IS NULL OR hour_start >= $start)
    AND ($end IS NULL OR hour_start < $end)
ORDER BY hour_start, kind, run_id
