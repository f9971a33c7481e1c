-- grain: one zone in $minutes minutes
-- keys: slot_start, zone
-- owner: flows.reporting.report.render
SELECT
    time_bucket(to_minutes($minutes), slot_start) AS slot_start,
    zone,
    avg(intensity_g_per_kwh) AS value,
    avg(intensity_low_g_per_kwh) AS low,
    avg(intensity_high_g_per_kwh) AS high
FROM slot_signal
WHERE intensity_g_per_kwh IS NOT NULL
GROUP BY ALL
ORDER BY ALL
