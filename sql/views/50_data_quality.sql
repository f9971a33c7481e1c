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
        run_id,
        coalesce(sum(energy_share) FILTER (series AND NOT is_estimated), 0) AS reported_share,
        coalesce(sum(energy_share) FILTER (series AND is_estimated), 0) AS estimated_share,
        coalesce(sum(energy_share) FILTER (NOT series), 0) AS fallback_share
    FROM (SELECT *, rung IN ('live', 'cached') AS series FROM intensity_sources)
    WHERE quantity = 'intensity'
    GROUP BY run_id
)
SELECT
    run_id,
    counter_mj / nullif(energy_mj, 0) AS counter_share,
    power_integral_mj / nullif(energy_mj, 0) AS power_share,
    gap_mj / nullif(energy_mj, 0) AS gap_share,
    filled_mj / nullif(energy_mj, 0) AS filled_share,
    reported_share AS intensity_reported_share,
    estimated_share AS intensity_estimated_share,
    fallback_share AS intensity_fallback_share
FROM sources
LEFT JOIN grid USING (run_id)
ORDER BY run_id;
