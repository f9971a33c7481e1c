-- grain: one training run
-- keys: run_id
-- owner: sustainability teams
-- A run without figures stands here too, with its state and nothing else: missing is not zero.
CREATE OR REPLACE VIEW run_summary AS
WITH declared AS (
    SELECT * FROM training_run WHERE superseded_at IS NULL
),
counted AS (
    SELECT * FROM run_footprint WHERE kind = 'run'
),
on_unknown_board AS (
    SELECT DISTINCT a.run_id
    FROM run_allocation AS a
    SEMI JOIN (
        FROM segment_profile WHERE limit_from IN ('class', 'default')
    ) AS p ON p.gpu_uuid = a.gpu_uuid
    WHERE a.superseded_at IS NULL
)
SELECT
    coalesce(f.run_id, r.run_id) AS run_id,
    CASE
        WHEN f.run_id IS NULL AND r.started_at >= (SELECT max(last_ts) FROM segment_profile)
            THEN 'not begun'
        WHEN f.run_id IS NULL THEN 'holds nothing'
        WHEN f.measured_mj + f.gap_mj + f.host_mj = 0 THEN 'no readings'
        WHEN r.ended_at IS NULL THEN 'open'
        ELSE 'ended'
    END AS state,
    nullif(concat_ws(
        '; ',
        CASE WHEN r.run_id IN (SELECT run_id FROM on_unknown_board)
            THEN 'board limit known by class only' END,
        CASE WHEN r.labels ->> '$.shares_assumed' IS NOT NULL THEN 'shares assumed' END,
        'counted once with ' || (r.labels ->> '$.counted_once_with'),
        'may count twice with ' || (r.labels ->> '$.may_count_twice_with')
    ), '') AS flags,
    r.name,
    r.owner,
    r.run_model,
    r.started_at,
    r.ended_at,
    f.gpus,
    f.held_us / 3.6e9 AS gpu_hours,
    f.energy_mj / 3.6e9 AS energy_kwh,
    f.energy_low_mj / 3.6e9 AS energy_low_kwh,
    f.energy_high_mj / 3.6e9 AS energy_high_kwh,
    f.measured_mj / nullif(f.energy_mj, 0) AS energy_measured_share,
    f.gap_mj / 3.6e9 AS gap_kwh,
    f.filled_mj / 3.6e9 AS filled_kwh,
    f.it_mj / 3.6e9 AS it_kwh,
    f.facility_mj / 3.6e9 AS facility_kwh,
    f.facility_low_mj / 3.6e9 AS facility_low_kwh,
    f.facility_high_mj / 3.6e9 AS facility_high_kwh,
    f.facility_measured_mj / nullif(f.facility_mj, 0) AS facility_measured_share,
    f.co2e_ug / 1e9 AS co2e_kg,
    f.co2e_low_ug / 1e9 AS co2e_low_kg,
    f.co2e_high_ug / 1e9 AS co2e_high_kg,
    f.co2e_measured_ug / nullif(f.co2e_ug, 0) AS co2e_measured_share,
    f.water_onsite_ul / 1e6 AS water_onsite_l,
    f.water_onsite_low_ul / 1e6 AS water_onsite_low_l,
    f.water_onsite_high_ul / 1e6 AS water_onsite_high_l,
    f.water_onsite_measured_ul / nullif(f.water_onsite_ul, 0) AS water_onsite_measured_share,
    f.water_offsite_ul / 1e6 AS water_offsite_l,
    f.water_offsite_low_ul / 1e6 AS water_offsite_low_l,
    f.water_offsite_high_ul / 1e6 AS water_offsite_high_l,
    f.water_offsite_measured_ul / nullif(f.water_offsite_ul, 0) AS water_offsite_measured_share,
    f.host_mj / 3.6e9 AS host_kwh,
    f.host_measured_mj / nullif(f.host_mj, 0) AS host_measured_share,
    f.grid_mj / 3.6e9 AS grid_kwh,
    f.onsite_mj / 3.6e9 AS onsite_kwh,
    f.co2e_scope1_ug / 1e9 AS co2e_scope1_kg,
    f.co2e_scope1_low_ug / 1e9 AS co2e_scope1_low_kg,
    f.co2e_scope1_high_ug / 1e9 AS co2e_scope1_high_kg,
    f.co2e_market_ug / 1e9 AS co2e_market_kg,
    f.co2e_market_low_ug / 1e9 AS co2e_market_low_kg,
    f.co2e_market_high_ug / 1e9 AS co2e_market_high_kg,
    f.contracted_mj / nullif(f.grid_mj, 0) AS contracted_share,
    f.residual_mj / nullif(f.grid_mj, 0) AS residual_share,
    f.co2e_losses_ug / 1e9 AS co2e_losses_kg,
    f.co2e_losses_low_ug / 1e9 AS co2e_losses_low_kg,
    f.co2e_losses_high_ug / 1e9 AS co2e_losses_high_kg,
    CASE WHEN f.marginal_mj > 0 THEN f.co2e_marginal_ug / 1e9 END AS co2e_marginal_kg,
    CASE WHEN f.marginal_mj > 0 THEN f.co2e_marginal_low_ug / 1e9 END AS co2e_marginal_low_kg,
    CASE WHEN f.marginal_mj > 0 THEN f.co2e_marginal_high_ug / 1e9 END AS co2e_marginal_high_kg,
    f.marginal_mj / nullif(f.grid_mj, 0) AS marginal_share,
    f.co2e_embodied_ug / 1e9 AS co2e_embodied_kg,
    f.co2e_embodied_low_ug / 1e9 AS co2e_embodied_low_kg,
    f.co2e_embodied_high_ug / 1e9 AS co2e_embodied_high_kg,
    (f.co2e_scope1_ug::HUGEINT + f.co2e_ug + f.co2e_losses_ug + f.co2e_embodied_ug) / 1e9
        AS co2e_total_kg,
    (f.co2e_scope1_low_ug::HUGEINT + f.co2e_low_ug + f.co2e_losses_low_ug + f.co2e_embodied_low_ug)
        / 1e9 AS co2e_total_low_kg,
    (
        f.co2e_scope1_high_ug::HUGEINT + f.co2e_high_ug + f.co2e_losses_high_ug
        + f.co2e_embodied_high_ug
    ) / 1e9 AS co2e_total_high_kg,
    f.water_embodied_ul / 1e6 AS water_embodied_l,
    f.water_embodied_low_ul / 1e6 AS water_embodied_low_l,
    f.water_embodied_high_ul / 1e6 AS water_embodied_high_l,
    f.water_withdrawal_ul / 1e6 AS water_withdrawal_l,
    f.water_withdrawal_low_ul / 1e6 AS water_withdrawal_low_l,
    f.water_withdrawal_high_ul / 1e6 AS water_withdrawal_high_l,
    CASE WHEN f.priced_mj > 0 THEN f.cost_micro / 1e6 END AS cost,
    (SELECT any_value(currency) FROM tariff) AS currency,
    f.priced_mj / nullif(f.facility_mj, 0) AS priced_share,
    l.family,
    l.phase,
    l.outcome,
    l.functional_unit,
    l.functional_units,
    (f.co2e_scope1_ug::HUGEINT + f.co2e_ug + f.co2e_embodied_ug) / 1e6 / l.functional_units
        AS sci_g_per_unit,
    (
        SELECT string_agg(u.factor || ' ' || u.scope, ', ' ORDER BY u.factor, u.scope)
        FROM factor_use AS u
        WHERE u.run_id = f.run_id AND u.origin = 'override'
    ) AS overrides
FROM declared AS r
FULL JOIN counted AS f ON f.run_id = r.run_id
LEFT JOIN run_label AS l ON l.run_id = coalesce(f.run_id, r.run_id)
ORDER BY r.started_at, coalesce(f.run_id, r.run_id);
