-- The ledger's own clock, which never goes back: what is known when is in the order of its moments, whatever the
-- clocks of machines show. It starts at the last time that is stored.

CREATE TABLE ledger_clock (moment TIMESTAMPTZ NOT NULL);

INSERT INTO ledger_clock
SELECT coalesce(max(stored_at), TIMESTAMPTZ '1970-01-01 00:00:00+00')
FROM (
    SELECT loaded_at AS stored_at FROM segment
    UNION ALL SELECT unnest([loaded_at, superseded_at]) FROM training_run
    UNION ALL SELECT unnest([loaded_at, superseded_at]) FROM run_allocation
    UNION ALL SELECT unnest([fetched_at, superseded_at]) FROM grid_intensity
    UNION ALL SELECT unnest([fetched_at, superseded_at]) FROM grid_mix
    UNION ALL SELECT last_attempt_at FROM grid_fetch
    UNION ALL SELECT loaded_at FROM run_record
    UNION ALL SELECT recorded_at FROM quarantine
    UNION ALL SELECT recorded_at FROM quarantined_row
    UNION ALL SELECT recorded_at FROM validation_run
    UNION ALL SELECT rolled_up_at FROM rolled_up
    UNION ALL SELECT computed_at FROM computation
    UNION ALL SELECT published_at FROM publication
);

-- What is kept from one computation to the next is checked before it is used; what was kept so far is made anew.
DELETE FROM segment_piece;
DELETE FROM reduced_segment;
ALTER TABLE reduced_segment ADD COLUMN pieces BIGINT;
ALTER TABLE reduced_segment ADD COLUMN fingerprint VARCHAR;

CREATE TABLE computed_table (
    table_name VARCHAR NOT NULL,
    row_count BIGINT NOT NULL,
    fingerprint VARCHAR NOT NULL
);
