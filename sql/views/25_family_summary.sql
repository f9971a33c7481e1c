-- grain: one phase and outcome of one family of runs
-- keys: family, phase, outcome
-- owner: sustainability teams
-- What a model cost with its experiments, restarts and failures (Morrison et al. 2025, arXiv 2503.05804).
CREATE OR REPLACE VIEW family_summary AS
SELECT
    family,
    phase,
    outcome,
    count(*) AS runs,
    sum(gpu_hours) AS gpu_hours,
    sum(facility_kwh) AS facility_kwh,
    sum(co2e_total_kg) AS co2e_total_kg,
    sum(co2e_total_low_kg) AS co2e_total_low_kg,
    sum(co2e_total_high_kg) AS co2e_total_high_kg,
    sum(water_onsite_l) AS water_onsite_l,
    sum(water_offsite_l) AS water_offsite_l,
    sum(cost) AS cost,
    sum(facility_kwh) / nullif(sum(sum(facility_kwh)) OVER (PARTITION BY family), 0)
        AS family_share
FROM run_summary
WHERE energy_kwh IS NOT NULL
GROUP BY family, phase, outcome
ORDER BY family NULLS LAST, facility_kwh DESC, phase, outcome;
