-- grain: one finished run at another time or in another zone
-- keys: run_id, zone, shift_h
-- owner: ML engineers
-- When and where would it have been cleaner: WHERE run_id = '...' ORDER BY co2e_kg
CREATE OR REPLACE VIEW alternatives AS
WITH home AS (
    SELECT run_id, string_agg(DISTINCT zone, ', ' ORDER BY zone) AS zones
    FROM footprint_slot
    WHERE kind = 'run'
    GROUP BY run_id
)
SELECT
    a.run_id,
    CASE WHEN a.zone = '' THEN h.zones ELSE a.zone END AS zone,
    a.zone = '' AS is_own_zone,
    a.shift_h,
    r.started_at + to_hours(a.shift_h) AS started_would,
    a.co2e_ug / 1e9 AS co2e_kg,
    f.co2e_ug / 1e9 AS location_co2e_kg,
    a.co2e_ug / nullif(f.co2e_ug, 0) - 1 AS difference
FROM run_alternative AS a
JOIN run_footprint AS f ON f.run_id = a.run_id AND f.kind = 'run'
LEFT JOIN home AS h ON h.run_id = a.run_id
LEFT JOIN training_run AS r ON r.run_id = a.run_id AND r.superseded_at IS NULL
ORDER BY a.run_id, is_own_zone DESC, zone, a.shift_h;
