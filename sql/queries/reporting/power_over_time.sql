-- grain: one kind of use in $minutes minutes
-- keys: slot_start, kind
-- owner: flows.reporting.report.render
SELECT
    time_bucket(to_minutes($minutes), slot_start) AS slot_start,
    kind,
    sum(facility_mj) / 1e6 / ($minutes * 60) AS power_kw,
    CASE kind WHEN 'run' THEN 0 WHEN 'unallocated' THEN 1 ELSE 2 END AS rank
FROM footprint_slot
GROUP BY ALL
ORDER BY ALL
