-- Embodied carbon and water, water withdrawal, cost, and which input moves a run's figures most.

CREATE TABLE tariff (
    site VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    price_per_kwh DOUBLE NOT NULL,
    currency VARCHAR NOT NULL,
    from_hour INTEGER NOT NULL,
    to_hour INTEGER NOT NULL,
    weekdays VARCHAR NOT NULL,
    tz VARCHAR NOT NULL,
    valid_from TIMESTAMPTZ,
    valid_to TIMESTAMPTZ,
    source VARCHAR NOT NULL
);

CREATE TABLE gpu_embodied (
    gpu_key INTEGER NOT NULL,
    gpus_per_server INTEGER NOT NULL,
    embodied_ug_per_h BIGINT NOT NULL,
    embodied_low_ug_per_h BIGINT NOT NULL,
    embodied_high_ug_per_h BIGINT NOT NULL,
    embodied_ul_per_h BIGINT NOT NULL,
    embodied_low_ul_per_h BIGINT NOT NULL,
    embodied_high_ul_per_h BIGINT NOT NULL
);

CREATE TABLE run_sensitivity (
    run_id VARCHAR NOT NULL,
    input VARCHAR NOT NULL,
    co2e_low_ug BIGINT,
    co2e_high_ug BIGINT,
    water_low_ul BIGINT,
    water_high_ul BIGINT
);

ALTER TABLE site ADD COLUMN server VARCHAR;
ALTER TABLE site ADD COLUMN gpus_per_server INTEGER;
ALTER TABLE site ADD COLUMN withdrawal_ratio DOUBLE;
ALTER TABLE site ADD COLUMN withdrawal_ratio_low DOUBLE;
ALTER TABLE site ADD COLUMN withdrawal_ratio_high DOUBLE;

ALTER TABLE slot_signal ADD COLUMN withdrawal_l_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN withdrawal_low_l_per_kwh DOUBLE;
ALTER TABLE slot_signal ADD COLUMN withdrawal_high_l_per_kwh DOUBLE;

ALTER TABLE footprint_slot ADD COLUMN co2e_embodied_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_embodied_low_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN co2e_embodied_high_ug BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_embodied_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_embodied_low_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_embodied_high_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_withdrawal_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_withdrawal_low_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN water_withdrawal_high_ul BIGINT;
ALTER TABLE footprint_slot ADD COLUMN cost_micro BIGINT;
ALTER TABLE footprint_slot ADD COLUMN priced_mj BIGINT;

ALTER TABLE run_footprint ADD COLUMN co2e_embodied_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_embodied_low_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN co2e_embodied_high_ug BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_embodied_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_embodied_low_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_embodied_high_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_withdrawal_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_withdrawal_low_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN water_withdrawal_high_ul BIGINT;
ALTER TABLE run_footprint ADD COLUMN cost_micro BIGINT;
ALTER TABLE run_footprint ADD COLUMN priced_mj BIGINT;
