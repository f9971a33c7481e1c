-- Grid data by feed and by rung of the ladder, attempts to fetch, market-based and marginal CO2e,
-- on-site generation, contracts, and what the energy would have emitted at other times and places.

ALTER TABLE grid_intensity ADD COLUMN feed VARCHAR DEFAULT 'file';
ALTER TABLE grid_mix ADD COLUMN feed VARCHAR DEFAULT 'file';

CREATE TABLE grid_fetch (
    feed VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    zone VARCHAR NOT NULL,
    first_ts TIMESTAMPTZ NOT NULL,
    last_ts TIMESTAMPTZ NOT NULL,
    outcome VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    first_attempt_at TIMESTAMPTZ NOT NULL,
    last_attempt_at TIMESTAMPTZ NOT NULL,
    attempts BIGINT NOT NULL,
    intervals BIGINT NOT NULL,
    changed BIGINT NOT NULL
);

ALTER TABLE factor ADD COLUMN year INTEGER;
ALTER TABLE factor ADD COLUMN valid_from TIMESTAMPTZ;
ALTER TABLE factor ADD COLUMN valid_to TIMESTAMPTZ;

CREATE TABLE factor_use (
    kind VARCHAR NOT NULL,
    run_id VARCHAR,
    factor VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,
    origin VARCHAR NOT NULL
);

CREATE TABLE zone (
    zone VARCHAR NOT NULL,
    country VARCHAR,
    signal VARCHAR NOT NULL,
    ladder VARCHAR NOT NULL,
    loss DOUBLE NOT NULL,
    loss_low DOUBLE NOT NULL,
    loss_high DOUBLE NOT NULL
);

ALTER TABLE site ADD COLUMN onsite_share DOUBLE;
ALTER TABLE site ADD COLUMN onsite_share_low DOUBLE;
ALTER TABLE site ADD COLUMN onsite_share_high DOUBLE;
ALTER TABLE site ADD COLUMN onsite_g_per_kwh DOUBLE;
ALTER TABLE site ADD COLUMN onsite_low_g_per_kwh DOUBLE;
ALTER TABLE site ADD COLUMN onsite_high_g_per_kwh DOUBLE;
ALTER TABLE site ADD COLUMN onsite_l_per_kwh DOUBLE;
ALTER TABLE site ADD COLUMN onsite_low_l_per_kwh DOUBLE;
ALTER TABLE site ADD COLUMN onsite_high_l_per_kwh DOUBLE;

CREATE TABLE contract (
    contract VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    site VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    matching VARCHAR NOT NULL,
    share DOUBLE,
    energy_kwh DOUBLE,
    intensity_g_per_kwh DOUBLE NOT NULL,
    intensity_low_g_per_kwh DOUBLE NOT NULL,
    intensity_high_g_per_kwh DOUBLE NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    source VARCHAR NOT NULL
);

CREATE TABLE contract_delivery (
    contract VARCHAR NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    energy_kwh DOUBLE NOT NULL
);

CREATE TABLE contract_slot (
    contract VARCHAR NOT NULL,
    site VARCHAR NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    covered_ppm INTEGER NOT NULL
);

ALTER TABLE slot_signal ADD COLUMN marginal_g_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN marginal_low_g_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN marginal_high_g_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN residual_g_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN residual_low_g_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN residual_high_g_per_kwh DOUBLE;

CREATE TABLE slot_source (
    zone VARCHAR NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    quantity VARCHAR NOT NULL,
    rung VARCHAR NOT NULL,
    feed VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    is_estimated BOOLEAN NOT NULL,
    covered_us BIGINT NOT NULL
);

CREATE TABLE run_alternative (
    run_id VARCHAR NOT NULL,
    zone VARCHAR NOT NULL,
    shift_h INTEGER NOT NULL,
    covered_ppm INTEGER NOT NULL,
    co2e_ug BIGINT
);

ALTER TABLE footprint_slot ADD COLUMN grid_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN grid_low_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN grid_high_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN onsite_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_scope1_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_scope1_low_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_scope1_high_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_market_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_market_low_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_market_high_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN contracted_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN residual_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_marginal_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_marginal_low_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_marginal_high_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN marginal_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_losses_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_losses_low_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_losses_high_ug BIGINT;

ALTER TABLE run_footprint ADD COLUMN grid_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN grid_low_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN grid_high_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN onsite_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_scope1_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_scope1_low_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_scope1_high_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_market_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_market_low_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_market_high_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN contracted_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN residual_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_marginal_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_marginal_low_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_marginal_high_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN marginal_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_losses_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_losses_low_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_losses_high_ug BIGINT;

