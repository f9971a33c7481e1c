-- What the collector of a node adds: more quantities, events, MIG instances, CPU and memory, run records.

ALTER TABLE gpu_reading ADD COLUMN power_average_mw INTEGER;
ALTER TABLE gpu_reading ADD COLUMN mem_temp_c SMALLINT;
ALTER TABLE gpu_reading ADD COLUMN power_limit_mw INTEGER;
ALTER TABLE gpu_reading ADD COLUMN throttle_reasons BIGINT;

ALTER TABLE segment ADD COLUMN collector VARCHAR;

CREATE TABLE collector_event (
    host VARCHAR NOT NULL,
    gpu_uuid VARCHAR,
    ts TIMESTAMPTZ NOT NULL,
    event VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    segment_key INTEGER NOT NULL
);

CREATE TABLE gpu_instance (
    instance_uuid VARCHAR NOT NULL,
    gpu_uuid VARCHAR NOT NULL,
    share_ppm INTEGER NOT NULL
);

CREATE TABLE host_reading (
    host VARCHAR NOT NULL,
    component VARCHAR NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    span_us BIGINT NOT NULL,
    energy_mj BIGINT NOT NULL,
    is_modelled BOOLEAN NOT NULL,
    method VARCHAR NOT NULL,
    segment_key INTEGER NOT NULL
);

CREATE TABLE run_record (
    record_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    exit_code INTEGER,
    record VARCHAR NOT NULL,
    source_name VARCHAR NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE host_slot (
    host VARCHAR NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    host_mj BIGINT NOT NULL,
    host_modelled_mj BIGINT NOT NULL,
    metered_us BIGINT NOT NULL
);

ALTER TABLE site ADD COLUMN rest_mw_per_gpu BIGINT;
ALTER TABLE site ADD COLUMN rest_low_mw_per_gpu BIGINT;
ALTER TABLE site ADD COLUMN rest_high_mw_per_gpu BIGINT;

ALTER TABLE footprint_slot ADD COLUMN host_mj BIGINT;
ALTER TABLE footprint_slot ADD COLUMN host_measured_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN host_mj BIGINT;
ALTER TABLE run_footprint ADD COLUMN host_measured_mj BIGINT;

CREATE TABLE second_meter (
    meter VARCHAR NOT NULL,
    meter_run_id VARCHAR NOT NULL,
    label VARCHAR NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ NOT NULL,
    gpu_mj BIGINT,
    cpu_mj BIGINT,
    dram_mj BIGINT,
    segment_key INTEGER NOT NULL
);
