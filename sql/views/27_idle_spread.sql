-- grain: one training run
-- keys: run_id
-- owner: sustainability teams
-- Idle and unallocated energy of a site, divided among its runs by GPU time. It is in no figure of a run.
CREATE OR REPLACE VIEW idle_spread AS
WITH site_total AS (
    SELECT
        site,
        sum(held_us) FILTER (kind = 'run') AS held_us,
        sum(facility_mj) FILTER (kind <> 'run') AS facility_mj,
        sum(co2e_ug + co2e_scope1_ug) FILTER (kind <> 'run') AS co2e_ug,
        sum(water_onsite_ul + water_offsite_ul) FILTER (kind <> 'run') AS water_ul
    FROM footprint_slot
    GROUP BY site
),
held AS (
    SELECT run_id, site, sum(held_us) AS held_us
    FROM footprint_slot
    WHERE kind = 'run'
    GROUP BY run_id, site
)
SELECT
    h.run_id,
    sum(h.held_us) / 3.6e9 AS gpu_hours,
    sum(coalesce(s.facility_mj, 0) / 3.6e9 * h.held_us / nullif(s.held_us, 0)) AS idle_facility_kwh,
    sum(coalesce(s.co2e_ug, 0) / 1e9 * h.held_us / nullif(s.held_us, 0)) AS idle_co2e_kg,
    sum(coalesce(s.water_ul, 0) / 1e6 * h.held_us / nullif(s.held_us, 0)) AS idle_water_l
FROM held AS h
JOIN site_total AS s USING (site)
GROUP BY h.run_id
ORDER BY h.run_id;
