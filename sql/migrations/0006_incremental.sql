-- What is kept from one computation to the next, so that the next one does only what is new.

CREATE TABLE segment_piece (
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

CREATE TABLE reduced_segment (
    segment_key INTEGER NOT NULL,
    max_gap_us BIGINT NOT NULL
);

CREATE TABLE computed_segment (segment_key INTEGER NOT NULL);

CREATE TABLE computed_span (
    run_id VARCHAR NOT NULL,
    gpu_key INTEGER NOT NULL,
    from_us BIGINT NOT NULL,
    to_us BIGINT NOT NULL,
    share_ppm INTEGER NOT NULL
);

CREATE TABLE computed_device (
    gpu_key INTEGER NOT NULL,
    facts VARCHAR NOT NULL
);

CREATE TABLE computed_facts (
    facts VARCHAR NOT NULL,
    as_of TIMESTAMPTZ
);

CREATE TABLE device_energy (
    kind VARCHAR NOT NULL,
    run_id VARCHAR,
    gpu_key INTEGER NOT NULL,
    slots BIGINT NOT NULL,
    counter_mj BIGINT NOT NULL,
    power_integral_mj BIGINT NOT NULL,
    gap_mj BIGINT NOT NULL,
    filled_mj BIGINT NOT NULL
);

CREATE TABLE site_energy_slot (
    kind VARCHAR NOT NULL,
    run_id VARCHAR,
    site VARCHAR,
    host_group INTEGER NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    gpus BIGINT NOT NULL,
    energy_mj BIGINT NOT NULL,
    energy_low_mj BIGINT NOT NULL,
    energy_high_mj BIGINT NOT NULL,
    measured_mj BIGINT NOT NULL,
    gap_mj BIGINT NOT NULL,
    filled_mj BIGINT NOT NULL,
    host_mj BIGINT NOT NULL,
    host_measured_mj BIGINT NOT NULL,
    host_low_mj BIGINT NOT NULL,
    host_high_mj BIGINT NOT NULL,
    co2e_embodied_ug BIGINT,
    co2e_embodied_low_ug BIGINT,
    co2e_embodied_high_ug BIGINT,
    water_embodied_ul BIGINT,
    water_embodied_low_ul BIGINT,
    water_embodied_high_ul BIGINT,
    held_us BIGINT NOT NULL,
    metered_us BIGINT NOT NULL
);

-- Staging is each process's own, in memory.
DROP SCHEMA IF EXISTS staging CASCADE;

-- On a lake, of two processes that write the same at once the later one to commit fails: both change this row.
CREATE TABLE turn_load AS SELECT 0::BIGINT AS taken;
CREATE TABLE turn_figures AS SELECT 0::BIGINT AS taken;
