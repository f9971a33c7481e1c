-- grain: one kind of use (run, idle, unallocated)
-- keys: kind
-- owner: sustainability teams
CREATE OR REPLACE VIEW fleet_summary AS
SELECT
    kind,
    count(*) FILTER (run_id IS NOT NULL) AS runs,
    sum(held_us) / 3.6e9 AS gpu_hours,
    sum(energy_mj) / 3.6e9 AS energy_kwh,
    sum(facility_mj) / 3.6e9 AS facility_kwh,
    sum(co2e_ug) / 1e9 AS co2e_kg,
    sum(water_onsite_ul) / 1e6 AS water_onsite_l,
    sum(water_offsite_ul) / 1e6 AS water_offsite_l
FROM run_footprint
GROUP BY kind
ORDER BY kind = 'run' DESC, kind;
