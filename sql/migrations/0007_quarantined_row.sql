-- Rows that were set aside while the rest of their file was loaded.

CREATE TABLE quarantined_row (
    segment_id VARCHAR NOT NULL,
    row_no BIGINT NOT NULL,
    reason VARCHAR NOT NULL,
    field_name VARCHAR NOT NULL,
    raw_value VARCHAR NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL
);
