"""What is checked and published: verdicts, publications, digests, kept work."""

from __future__ import annotations

from transforms.figures import RESTATED
from transforms.schema.model import TIMESTAMP, Field

FIELDS: tuple[Field, ...] = (
    # quarantine and validation
    Field(
        "reason",
        "VARCHAR",
        "Why: of a refusal, with what to do; of an override; of a publication, as given",
    ),
    Field("suite", "VARCHAR", "Great Expectations suite"),
    Field("row_no", "BIGINT", "Number of the row in its file, from 1"),
    Field(
        "field_name", "VARCHAR", "What the file calls the field at fault; empty for the whole row"
    ),
    Field("raw_value", "VARCHAR", "The value at fault, as it was written; its first 80 characters"),
    Field("kept_path", "VARCHAR", "Where the refused bytes are kept, relative to the project"),
    Field("recorded_at", TIMESTAMP, "When this was recorded, UTC"),
    Field("validation_id", "VARCHAR", "One execution of one suite"),
    Field("success", "BOOLEAN", "Whether it passed"),
    Field("checked_rows", "BIGINT", "Rows of the checked table"),
    Field("check_name", "VARCHAR", "Name of the check"),
    Field("severity", "VARCHAR", "fail or warn"),
    Field("statement", "VARCHAR", "The check as a sentence"),
    Field("unexpected_rows", "BIGINT", "Rows that break it"),
    Field("examples", "VARCHAR", "Up to ten of those rows, JSON"),
    # publication
    Field("computed_at", TIMESTAMP, "When the candidate was computed, UTC"),
    Field("publication_id", "VARCHAR", "Number and short digest of the publication"),
    Field("sequence", "BIGINT", "Number of the publication, from 1"),
    Field("published_at", TIMESTAMP, "When it was published, UTC"),
    Field("method_version", "VARCHAR", "Version of the method (docs/method.md)"),
    Field("code_version", "VARCHAR", "Version of Wattledger"),
    Field("input_digest", "VARCHAR", "SHA-256 over readings, runs, grid and sites used"),
    Field("factor_digest", "VARCHAR", "SHA-256 over the factors used"),
    Field("validation_digest", "VARCHAR", "SHA-256 over the verdicts"),
    Field("output_digest", "VARCHAR", "SHA-256 over the published figures"),
    Field(
        "previous_digest",
        "VARCHAR",
        "manifest_sha256 of the publication before; its digest, where it has no manifest",
    ),
    Field("digest", "VARCHAR", "SHA-256 over this row's versions and digests"),
    Field("settings_digest", "VARCHAR", "SHA-256 over wattledger.toml (table `setting`)"),
    Field("code_digest", "VARCHAR", "SHA-256 over the source files that computed"),
    Field(
        "manifest_sha256",
        "VARCHAR",
        "SHA-256 of the publication's manifest.json; null in its own file, which the manifest names",
    ),
    Field("section", "VARCHAR", "Table of wattledger.toml"),
    Field("value_json", "VARCHAR", "What it holds, defaults included, as JSON"),
    Field("table_name", "VARCHAR", "Table that holds the rows"),
    Field(
        "part",
        "VARCHAR",
        "Which rows: a segment's id for readings, a zone for grid data; empty for the whole table",
    ),
    Field("row_count", "BIGINT", "Number of rows"),
    Field("content_sha256", "VARCHAR", "SHA-256 of the rows (docs/verification.md)"),
    Field("slot", "BIGINT", "Number of the slot since 1970"),
    Field("slots", "BIGINT", "Number of slots"),
    Field("host_group", "INTEGER", "Hosts that are computed together"),
    Field("host_low_mj", "BIGINT", "Lower bound of host_mj", "mJ"),
    Field("host_high_mj", "BIGINT", "Upper bound of host_mj", "mJ"),
    Field("from_us", "BIGINT", "Begin of the allocation", "µs since 1970"),
    Field("to_us", "BIGINT", "End of the allocation", "µs since 1970"),
    Field(
        "taken", "BIGINT", "Transactions that took the lock so far; 0 where the warehouse is a file"
    ),
    Field(
        "moment", TIMESTAMP, "Time of the last transaction; the next is later, whatever clocks show"
    ),
    Field("fingerprint", "VARCHAR", "Sum over the rows, checked before they are used"),
    Field("facts", "VARCHAR", "What the figures rest on, as text or digest"),
    Field("as_of", TIMESTAMP, "Time of the last reading that the figures include, UTC"),
    Field("power_dnj", "BIGINT", "Integral of power within the stretch", "2 nJ"),
    *(
        Field(f"{end}_{name}", kind, f"{text} of the {end} reading", unit)
        for end in ("first", "last")
        for name, kind, text, unit in (
            ("t", "BIGINT", "Time", "µs since 1970"),
            ("p", "BIGINT", "Power", "mW"),
            ("c", "BIGINT", "Energy counter", "mJ"),
            ("averaged", "BOOLEAN", "Whether power is a mean over a second,", ""),
        )
    ),
    Field("rolled_up_at", TIMESTAMP, "When its readings were replaced, UTC"),
    Field("after_days", "DOUBLE", "Age that the policy demanded", "d"),
    Field("max_gap_us", "BIGINT", "Longest step that counted as measured then", "µs"),
    Field("readings_sha256", "VARCHAR", "content_sha256 of the readings before"),
    Field("readings_left", "BIGINT", "Readings kept: in slots that a border of an allocation cuts"),
    Field("pieces", "BIGINT", "Stretches kept in their place: rows of gpu_piece"),
    Field("overridden_by", "VARCHAR", "Who let figures pass that the check refuses"),
    Field("previous_id", "VARCHAR", "Publication whose figures are restated"),
    *(
        Field(
            figure.stored(f"_{when}"),
            "BIGINT",
            f"{figure.meaning}, as published {text}",
            figure.unit.stored_symbol,
        )
        for figure in RESTATED
        for when, text in (("before", "before"), ("after", "now"))
    ),
    Field("causes", "VARCHAR", "Which inputs of the run changed"),
    Field("version", "INTEGER", "Number of the migration"),
    Field("migration", "VARCHAR", "Name of the migration"),
    Field("sha256", "VARCHAR", "Digest of the migration's text"),
    Field("applied_at", TIMESTAMP, "When it was applied, UTC"),
)
