-- grain: one source of one quantity (intensity, ewif, marginal, residual) of one run
-- keys: run_id, quantity, rung, feed, source, is_estimated
-- owner: auditors
CREATE OR REPLACE VIEW intensity_sources AS
WITH energy AS (
    SELECT run_id, zone, slot_start, sum(facility_mj) AS facility_mj
    FROM footprint_slot
    WHERE kind = 'run'
    GROUP BY ALL
),
total AS (SELECT run_id, sum(facility_mj) AS facility_mj FROM energy GROUP BY run_id)
SELECT
    run_id,
    s.quantity,
    s.rung,
    s.feed,
    s.source,
    s.is_estimated,
    -- One division of whole numbers: what covers all of it is 1, and not a little more.
    sum(e.facility_mj * s.covered_us::HUGEINT)
        / nullif(any_value(t.facility_mj) * $slot_us::HUGEINT, 0) AS energy_share
FROM energy AS e
JOIN slot_source AS s USING (zone, slot_start)
JOIN total AS t USING (run_id)
GROUP BY ALL
ORDER BY run_id, s.quantity, energy_share DESC, s.rung, s.feed, s.source, s.is_estimated;
