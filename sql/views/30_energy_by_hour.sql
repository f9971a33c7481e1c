-- grain: one run (or idle, or unallocated) in one hour
-- keys: hour_start, kind, run_id
-- owner: sustainability teams
CREATE OR REPLACE VIEW energy_by_hour AS
SELECT
    date_trunc('hour', slot_start) AS hour_start,
    kind,
    run_id,
    sum(energy_mj) / 3.6e9 AS energy_kwh,
    sum(facility_mj) / 3.6e9 AS facility_kwh,
    sum(co2e_ug) / 1e9 AS co2e_kg,
    sum(water_onsite_ul) / 1e6 AS water_onsite_l,
    sum(water_offsite_ul) / 1e6 AS water_offsite_l
FROM footprint_slot
GROUP BY ALL
ORDER BY ALL;
