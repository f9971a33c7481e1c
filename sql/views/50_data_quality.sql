-- grain: one run
-- keys: run_id
-- owner: auditors
-- Where a run's energy comes from, and what its intensities rest on.
CREATE OR REPLACE VIEW data_quality AS
WITH sources AS (
    SELECT
        run_id,
        sum(counter_mj) AS counter_mj,
        sum(power_integral_mj) AS power_integral_mj,
        sum(gap_mj) AS gap_mj,
        sum(filled_mj) AS filled_mj,
        sum(energy_mj) AS energy_mj
    FROM energy_slot
    WHERE kind = 'run'
    GROUP BY run_id
),
grid AS (
    SELECT
        f.run_id,
        sum(f.facility_mj * s.series_ppm::HUGEINT) / 1e6 AS reported_mj,
        sum(f.facility_mj * s.estimated_ppm::HUGEINT) / 1e6 AS estimated_mj,
        sum(f.facility_mj * s.fallback_ppm::HUGEINT) / 1e6 AS fallback_mj,
        sum(f.facility_mj) AS facility_mj
    FROM footprint_slot AS f
    JOIN slot_signal AS s USING (zone, slot_start)
    WHERE f.kind = 'run'
    GROUP BY f.run_id
)
SELECT
    run_id,
    counter_mj / nullif(energy_mj, 0) AS counter_share,
    power_integral_mj / nullif(energy_mj, 0) AS power_share,
    gap_mj / nullif(energy_mj, 0) AS gap_share,
    filled_mj / nullif(energy_mj, 0) AS filled_share,
    reported_mj / nullif(facility_mj, 0) AS intensity_reported_share,
    estimated_mj / nullif(facility_mj, 0) AS intensity_estimated_share,
    fallback_mj / nullif(facility_mj, 0) AS intensity_fallback_share
FROM sources
LEFT JOIN grid USING (run_id)
ORDER BY run_id;
