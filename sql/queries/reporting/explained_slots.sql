-- grain: one slot of run $run at a site: what is multiplied with what
-- keys: slot_start, site
-- owner: flows.reporting.explain
SELECT
    f.slot_start,
    f.site,
    f.zone,
    f.gpus,
    f.held_us,
    f.energy_mj,
    f.overhead_mj,
    f.it_mj,
    s.pue,
    f.facility_mj,
    s.onsite_share,
    f.onsite_mj,
    f.grid_mj,
    g.intensity_g_per_kwh,
    f.co2e_ug,
    s.onsite_g_per_kwh,
    f.co2e_scope1_ug,
    s.wue_l_per_kwh,
    s.onsite_l_per_kwh,
    f.water_onsite_ul,
    g.ewif_l_per_kwh,
    f.water_offsite_ul,
    f.co2e_embodied_ug
FROM footprint_slot AS f
JOIN slot_signal AS g USING (zone, slot_start)
JOIN site AS s
    ON s.site = f.site
    AND (s.valid_from IS NULL OR s.valid_from <= f.slot_start)
    AND (s.valid_to IS NULL OR s.valid_to > f.slot_start)
WHERE f.kind = 'run' AND f.run_id = $run
ORDER BY f.slot_start, f.site
