-- grain: one zone, over all slots
-- keys: zone
-- owner: flows.reporting.report.render
SELECT
    zone,
    avg(intensity_g_per_kwh) AS mean,
    min(intensity_g_per_kwh) AS least,
    max(intensity_g_per_kwh) AS most,
    avg(ewif_l_per_kwh) AS ewif,
    avg(series_ppm) / 1e6 AS reported,
    avg(estimated_ppm) / 1e6 AS estimated,
    avg(fallback_ppm) / 1e6 AS fallback,
    avg(ewif_series_ppm) / 1e6 AS ewif_reported
FROM slot_signal
GROUP BY zone
ORDER BY zone
