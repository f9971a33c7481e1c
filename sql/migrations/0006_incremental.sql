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
