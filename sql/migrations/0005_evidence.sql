-- What an auditor needs beside the figures: settings, digests of everything kept, the manifest of each
-- publication, overrides of the gate with names and reasons, and what later publications restate.

CREATE TABLE setting (
    section VARCHAR NOT NULL,
    value_json VARCHAR NOT NULL
);

CREATE TABLE segment_digest (
    segment_key INTEGER NOT NULL,
    table_name VARCHAR NOT NULL,
    row_count BIGINT NOT NULL,
    content_sha256 VARCHAR NOT NULL
);

CREATE TABLE kept_input (
    table_name VARCHAR NOT NULL,
    part VARCHAR NOT NULL,
    row_count BIGINT NOT NULL,
    content_sha256 VARCHAR NOT NULL
);

ALTER TABLE publication ADD COLUMN settings_digest VARCHAR;
ALTER TABLE publication ADD COLUMN code_digest VARCHAR;
ALTER TABLE publication ADD COLUMN reason VARCHAR;
ALTER TABLE publication ADD COLUMN manifest_sha256 VARCHAR;

CREATE TABLE gate_override (
    publication_id VARCHAR NOT NULL,
    suite VARCHAR NOT NULL,
    check_name VARCHAR NOT NULL,
    overridden_by VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    unexpected_rows BIGINT NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE restatement (
    publication_id VARCHAR NOT NULL,
    previous_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    energy_before_mj BIGINT,
    energy_after_mj BIGINT,
    facility_before_mj BIGINT,
    facility_after_mj BIGINT,
    co2e_before_ug BIGINT,
    co2e_after_ug BIGINT,
    co2e_market_before_ug BIGINT,
    co2e_market_after_ug BIGINT,
    water_onsite_before_ul BIGINT,
    water_onsite_after_ul BIGINT,
    water_offsite_before_ul BIGINT,
    water_offsite_after_ul BIGINT,
    causes VARCHAR NOT NULL
);

-- What the gate compares: the counter with the integral of power over the same steps, power with what
-- the GPU draws idle, and how many readings there should be.
ALTER TABLE segment_profile ADD COLUMN floor_mw BIGINT;
ALTER TABLE segment_profile ADD COLUMN compared_counter_mj BIGINT;
ALTER TABLE segment_profile ADD COLUMN compared_power_mj BIGINT;
ALTER TABLE segment_profile ADD COLUMN usual_step_ms BIGINT;

-- Other meters of hosts and sites, and what the ledger has for hosts.
CREATE TABLE meter_reading (
    meter VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,
    metered VARCHAR NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    energy_mj BIGINT NOT NULL,
    source_name VARCHAR NOT NULL,
    segment_key INTEGER NOT NULL
);

CREATE TABLE host_energy_slot (
    host VARCHAR NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    it_mj BIGINT NOT NULL,
    it_low_mj BIGINT NOT NULL,
    it_high_mj BIGINT NOT NULL
);

-- Retention: readings that were replaced by their sums over slots, exactly.
CREATE TABLE gpu_piece (
    gpu_key INTEGER NOT NULL,
    slot BIGINT NOT NULL,
    readings BIGINT NOT NULL,
    power_dnj BIGINT NOT NULL,
    first_t BIGINT NOT NULL,
    first_p BIGINT,
    first_c BIGINT,
    first_averaged BOOLEAN NOT NULL,
    last_t BIGINT NOT NULL,
    last_p BIGINT,
    last_c BIGINT,
    last_averaged BOOLEAN NOT NULL,
    segment_key INTEGER NOT NULL
);

CREATE TABLE rolled_up (
    segment_key INTEGER NOT NULL,
    segment_id VARCHAR NOT NULL,
    rolled_up_at TIMESTAMPTZ NOT NULL,
    after_days DOUBLE NOT NULL,
    max_gap_us BIGINT NOT NULL,
    readings BIGINT NOT NULL,
    readings_sha256 VARCHAR NOT NULL,
    readings_left BIGINT NOT NULL,
    pieces BIGINT NOT NULL
);
