-- The runs of a publication that took most energy, rounded for Prefect's interface.
SELECT
    run_id,
    round(energy_kwh, 3) AS energy_kwh,
    round(facility_kwh, 3) AS facility_kwh,
    round(co2e_kg, 3) AS co2e_kg,
    round(co2e_low_kg, 3) AS co2e_low_kg,
    round(co2e_high_kg, 3) AS co2e_high_kg,
    round(water_onsite_l + water_offsite_l, 3) AS water_l,
    round(energy_measured_share, 3) AS energy_measured_share
FROM run_summary
WHERE energy_kwh IS NOT NULL
ORDER BY energy_kwh DESC
LIMIT $most
