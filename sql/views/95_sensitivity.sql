-- grain: one input of one run
-- keys: run_id, input
-- owner: auditors
-- Which input moves a run's totals most, each alone between its low and its high.
CREATE OR REPLACE VIEW sensitivity AS
SELECT
    s.run_id,
    s.input,
    (r.co2e_scope1_ug::HUGEINT + r.co2e_ug + r.co2e_losses_ug + r.co2e_embodied_ug) / 1e9
        AS co2e_total_kg,
    s.co2e_low_ug / 1e9 AS co2e_at_low_kg,
    s.co2e_high_ug / 1e9 AS co2e_at_high_kg,
    abs(s.co2e_high_ug - s.co2e_low_ug) / 1e9 AS co2e_swing_kg,
    (r.water_onsite_ul + r.water_offsite_ul) / 1e6 AS water_l,
    s.water_low_ul / 1e6 AS water_at_low_l,
    s.water_high_ul / 1e6 AS water_at_high_l,
    abs(s.water_high_ul - s.water_low_ul) / 1e6 AS water_swing_l
FROM run_sensitivity AS s
JOIN run_footprint AS r ON r.run_id = s.run_id AND r.kind = 'run'
ORDER BY s.run_id, co2e_swing_kg DESC, s.input;
