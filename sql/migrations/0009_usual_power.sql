-- Time without readings is filled with what a run usually drew; its bounds are stored beside it.

ALTER TABLE energy_slot ADD COLUMN filled_us BIGINT;
ALTER TABLE energy_slot ADD COLUMN filled_high_mj BIGINT;
ALTER TABLE device_energy ADD COLUMN filled_us BIGINT;
ALTER TABLE device_energy ADD COLUMN held_us BIGINT;

CREATE TABLE computed_power (
    run_id VARCHAR NOT NULL,
    gpu_key INTEGER NOT NULL,
    usual_mw BIGINT NOT NULL
);
