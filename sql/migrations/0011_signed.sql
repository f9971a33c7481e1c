-- Who wrote a run record, and what meters signed: keys of hosts, pinned on first sight, and their segments.

ALTER TABLE run_record ADD COLUMN owner_uid BIGINT;
ALTER TABLE run_record ADD COLUMN is_vouched BOOLEAN;
ALTER TABLE run_record ADD COLUMN record_sha256 VARCHAR;

CREATE TABLE host_key (
    host VARCHAR NOT NULL,
    public_key VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    accepted_by VARCHAR NOT NULL,
    accepted_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE signed_segment (
    segment_id VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    public_key VARCHAR NOT NULL,
    segment_sequence BIGINT NOT NULL,
    previous_sha256 VARCHAR NOT NULL,
    signature VARCHAR NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE seen_record (
    record_sha256 VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    owner_uid BIGINT NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    segment_id VARCHAR NOT NULL
);
