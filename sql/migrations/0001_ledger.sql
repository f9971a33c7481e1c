-- The ledger: what came in, what was computed from it, what was published.
-- Forward only. No PRIMARY KEY or UNIQUE: DuckLake has none, so exactly-once comes from the
-- segment catalogue, written in the same transaction as the rows it vouches for.
-- Meanings, units and grains: transforms/schemas.py.

CREATE SCHEMA IF NOT EXISTS staging;

CREATE TABLE gpu (
    gpu_key INTEGER NOT NULL,
    gpu_uuid VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    gpu_index INTEGER,
    model VARCHAR
);

CREATE TABLE segment (
    segment_key INTEGER NOT NULL,
    segment_id VARCHAR NOT NULL,
    source_name VARCHAR NOT NULL,
    source_format VARCHAR NOT NULL,
    sample BOOLEAN NOT NULL,
    verdict VARCHAR NOT NULL,
    rows_read BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    rows_duplicate BIGINT NOT NULL,
    rows_skipped BIGINT NOT NULL,
    sample_period_ms BIGINT,
    first_ts TIMESTAMPTZ,
    last_ts TIMESTAMPTZ,
    loaded_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE segment_profile (
    segment_id VARCHAR NOT NULL,
    source_name VARCHAR NOT NULL,
    gpu_uuid VARCHAR,
    rows_read BIGINT,
    first_ts TIMESTAMPTZ,
    last_ts TIMESTAMPTZ,
    null_power BIGINT,
    null_energy BIGINT,
    no_value BIGINT,
    min_power_mw BIGINT,
    max_power_mw BIGINT,
    limit_mw BIGINT,
    max_counter_mw BIGINT,
    min_util_pct BIGINT,
    max_util_pct BIGINT,
    negative_energy BIGINT,
    steps_back BIGINT,
    duplicates BIGINT,
    conflicts BIGINT,
    counter_resets BIGINT,
    longest_gap_ms BIGINT,
    future_s BIGINT
);

CREATE TABLE gpu_reading (
    gpu_key INTEGER NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    power_mw INTEGER,
    energy_mj BIGINT,
    util_pct SMALLINT,
    mem_used_mib INTEGER,
    temp_c SMALLINT,
    sm_clock_mhz SMALLINT,
    power_source_code UTINYINT NOT NULL,
    segment_key INTEGER NOT NULL
);

CREATE TABLE training_run (
    run_id VARCHAR NOT NULL,
    name VARCHAR,
    owner VARCHAR,
    run_model VARCHAR,
    started_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    labels VARCHAR NOT NULL,
    source_name VARCHAR NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL,
    superseded_at TIMESTAMPTZ
);

CREATE TABLE run_allocation (
    run_id VARCHAR NOT NULL,
    gpu_uuid VARCHAR NOT NULL,
    from_ts TIMESTAMPTZ NOT NULL,
    to_ts TIMESTAMPTZ,
    share_ppm INTEGER NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL,
    superseded_at TIMESTAMPTZ
);

CREATE TABLE grid_intensity (
    zone VARCHAR NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    signal VARCHAR NOT NULL,
    intensity_g_per_kwh DOUBLE NOT NULL,
    intensity_low_g_per_kwh DOUBLE,
    intensity_high_g_per_kwh DOUBLE,
    source VARCHAR NOT NULL,
    is_estimated BOOLEAN NOT NULL,
    fetched_at TIMESTAMPTZ NOT NULL,
    superseded_at TIMESTAMPTZ
);

CREATE TABLE grid_mix (
    zone VARCHAR NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    fuel VARCHAR NOT NULL,
    generation_kw BIGINT NOT NULL,
    source VARCHAR NOT NULL,
    is_estimated BOOLEAN NOT NULL,
    fetched_at TIMESTAMPTZ NOT NULL,
    superseded_at TIMESTAMPTZ
);

CREATE TABLE site (
    site VARCHAR NOT NULL,
    zone VARCHAR NOT NULL,
    pue DOUBLE NOT NULL,
    pue_low DOUBLE NOT NULL,
    pue_high DOUBLE NOT NULL,
    wue_l_per_kwh DOUBLE NOT NULL,
    wue_low_l_per_kwh DOUBLE NOT NULL,
    wue_high_l_per_kwh DOUBLE NOT NULL,
    overhead_mw_per_gpu BIGINT NOT NULL,
    overhead_low_mw_per_gpu BIGINT NOT NULL,
    overhead_high_mw_per_gpu BIGINT NOT NULL,
    valid_from TIMESTAMPTZ,
    valid_to TIMESTAMPTZ
);

CREATE TABLE host (host VARCHAR NOT NULL, site VARCHAR NOT NULL);

CREATE TABLE factor (
    factor VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    unit VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    licence VARCHAR NOT NULL,
    origin VARCHAR NOT NULL
);

CREATE TABLE quarantine (
    segment_id VARCHAR NOT NULL,
    source_name VARCHAR NOT NULL,
    suite VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    kept_path VARCHAR NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE validation_run (
    validation_id VARCHAR NOT NULL,
    suite VARCHAR NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    success BOOLEAN NOT NULL,
    checked_rows BIGINT NOT NULL
);

CREATE TABLE validation_result (
    validation_id VARCHAR NOT NULL,
    suite VARCHAR NOT NULL,
    check_name VARCHAR NOT NULL,
    severity VARCHAR NOT NULL,
    statement VARCHAR NOT NULL,
    success BOOLEAN NOT NULL,
    unexpected_rows BIGINT NOT NULL,
    examples VARCHAR NOT NULL
);

CREATE TABLE gpu_slot (
    gpu_key INTEGER NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    counter_mj BIGINT NOT NULL,
    power_integral_mj BIGINT NOT NULL,
    gap_mj BIGINT NOT NULL,
    covered_us BIGINT NOT NULL,
    gap_us BIGINT NOT NULL,
    readings BIGINT NOT NULL,
    counter_resets BIGINT NOT NULL
);

CREATE TABLE energy_slot (
    kind VARCHAR NOT NULL,
    run_id VARCHAR,
    gpu_key INTEGER NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    counter_mj BIGINT NOT NULL,
    power_integral_mj BIGINT NOT NULL,
    gap_mj BIGINT NOT NULL,
    gap_low_mj BIGINT NOT NULL,
    gap_high_mj BIGINT NOT NULL,
    filled_mj BIGINT NOT NULL,
    filled_low_mj BIGINT NOT NULL,
    held_us BIGINT NOT NULL,
    energy_mj BIGINT NOT NULL,
    energy_low_mj BIGINT NOT NULL,
    energy_high_mj BIGINT NOT NULL,
    measured_mj BIGINT NOT NULL
);

CREATE TABLE slot_signal (
    zone VARCHAR NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    intensity_g_per_kwh DOUBLE,
    intensity_low_g_per_kwh DOUBLE,
    intensity_high_g_per_kwh DOUBLE,
    series_ppm INTEGER NOT NULL,
    estimated_ppm INTEGER NOT NULL,
    fallback_ppm INTEGER NOT NULL,
    ewif_l_per_kwh DOUBLE,
    ewif_low_l_per_kwh DOUBLE,
    ewif_high_l_per_kwh DOUBLE,
    ewif_series_ppm INTEGER NOT NULL
);

CREATE TABLE footprint_slot (
    kind VARCHAR NOT NULL,
    run_id VARCHAR,
    site VARCHAR,
    zone VARCHAR,
    slot_start TIMESTAMPTZ NOT NULL,
    gpus BIGINT NOT NULL,
    energy_mj BIGINT NOT NULL,
    energy_low_mj BIGINT NOT NULL,
    energy_high_mj BIGINT NOT NULL,
    measured_mj BIGINT NOT NULL,
    gap_mj BIGINT NOT NULL,
    filled_mj BIGINT NOT NULL,
    held_us BIGINT NOT NULL,
    overhead_mj BIGINT,
    it_mj BIGINT,
    it_low_mj BIGINT,
    it_high_mj BIGINT,
    facility_mj BIGINT,
    facility_low_mj BIGINT,
    facility_high_mj BIGINT,
    facility_measured_mj BIGINT,
    facility_uncovered_mj BIGINT,
    co2e_ug BIGINT,
    co2e_low_ug BIGINT,
    co2e_high_ug BIGINT,
    co2e_measured_ug BIGINT,
    water_onsite_ul BIGINT,
    water_onsite_low_ul BIGINT,
    water_onsite_high_ul BIGINT,
    water_onsite_measured_ul BIGINT,
    water_offsite_ul BIGINT,
    water_offsite_low_ul BIGINT,
    water_offsite_high_ul BIGINT,
    water_offsite_measured_ul BIGINT
);

CREATE TABLE run_footprint AS
SELECT kind, run_id, slot_start AS first_slot, slot_start AS last_slot,
    COLUMNS(* EXCLUDE (kind, run_id, site, zone, slot_start))
FROM footprint_slot;

CREATE TABLE conservation (
    gpu_key INTEGER NOT NULL,
    metered_mj BIGINT NOT NULL,
    attributed_mj BIGINT NOT NULL,
    idle_mj BIGINT NOT NULL,
    unallocated_mj BIGINT NOT NULL,
    difference_mj BIGINT NOT NULL
);

CREATE TABLE computation (
    computed_at TIMESTAMPTZ NOT NULL,
    method_version VARCHAR NOT NULL,
    input_digest VARCHAR NOT NULL,
    factor_digest VARCHAR NOT NULL
);

CREATE TABLE publication (
    publication_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    published_at TIMESTAMPTZ NOT NULL,
    sample BOOLEAN NOT NULL,
    method_version VARCHAR NOT NULL,
    code_version VARCHAR NOT NULL,
    input_digest VARCHAR NOT NULL,
    factor_digest VARCHAR NOT NULL,
    validation_digest VARCHAR NOT NULL,
    output_digest VARCHAR NOT NULL,
    previous_digest VARCHAR NOT NULL,
    digest VARCHAR NOT NULL
);
