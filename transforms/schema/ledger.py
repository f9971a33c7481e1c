"""Tables of what is checked, published and kept of it."""

from __future__ import annotations

from transforms.schema.fields import columns
from transforms.schema.model import Table

TABLES: tuple[Table, ...] = (
    Table(
        "computation",
        "the last computation",
        "From which inputs and factors the candidate figures were computed",
        columns("computed_at method_version input_digest factor_digest"),
        key=(),
        role="ledger",
        published="whole",
        changes="at_any_time",
    ),
    Table(
        "publication",
        "one publication",
        "The ledger of publications; each row holds the digest of the one before",
        columns(
            "publication_id sequence published_at sample method_version code_version input_digest factor_digest validation_digest output_digest previous_digest digest "
            "settings_digest code_digest reason manifest_sha256"
        ),
        key=("publication_id",),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "restatement",
        "one run whose figures a publication changed",
        "What each publication restates of the one before; null where the run is in one of them only",
        columns(
            "publication_id previous_id run_id energy_before_mj energy_after_mj facility_before_mj "
            "facility_after_mj co2e_before_ug co2e_after_ug co2e_market_before_ug co2e_market_after_ug water_onsite_before_ul water_onsite_after_ul "
            "water_offsite_before_ul water_offsite_after_ul causes"
        ),
        key=("publication_id", "run_id"),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "gate_override",
        "one check that was overridden for one publication",
        "Who let figures pass that a check refuses, and why",
        columns("publication_id suite check_name overridden_by reason unexpected_rows recorded_at"),
        key=("publication_id", "suite", "check_name"),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "setting",
        "one table of wattledger.toml",
        "The settings of the last computation, and the thresholds of the last gate",
        columns("section value_json"),
        key=("section",),
        role="ledger",
        published="whole",
        changes="at_any_time",
    ),
    Table(
        "kept_input",
        "one part of one table of the warehouse",
        "Digests of what the figures rest on and this file does not hold: readings, grid data",
        columns("table_name part row_count content_sha256"),
        key=("table_name", "part"),
        role="ledger",
        published="whole",
        changes="at_any_time",
    ),
    Table(
        "segment_digest",
        "one table's rows of one segment",
        "Digests of stored readings, taken before they were first published",
        columns("segment_key table_name row_count content_sha256"),
        key=("table_name", "segment_key"),
        role="ledger",
    ),
    Table(
        "rolled_up",
        "one segment whose readings were rolled up",
        "Which readings are gone, under which policy, with the digest that they were published with",
        columns(
            "segment_key segment_id rolled_up_at after_days max_gap_us readings readings_sha256 readings_left pieces"
        ),
        key=("segment_key",),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "quarantine",
        "one refused file",
        "What was refused, why, and where it is kept",
        columns("segment_id source_name suite reason kept_path recorded_at"),
        key=("segment_id", "reason"),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "quarantined_row",
        "one row of a loaded file that was set aside",
        "Rows that could not be believed, while the rest of their file was loaded",
        columns("segment_id row_no reason field_name raw_value recorded_at"),
        key=("segment_id", "row_no"),
        role="ledger",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "validation_run",
        "one execution of a suite",
        "Executions of the checks",
        columns("validation_id suite recorded_at success checked_rows"),
        key=("validation_id",),
        role="ledger",
        published="of_publication",
        changes="by_growth",
    ),
    Table(
        "validation_result",
        "one check in one execution",
        "What each check said",
        columns(
            "validation_id suite check_name severity statement success unexpected_rows examples"
        ),
        key=("validation_id", "check_name"),
        role="ledger",
        published="of_publication",
        changes="by_growth",
    ),
    Table(
        "schema_migration",
        "one migration",
        "Migrations applied to this file",
        columns("version migration sha256 applied_at"),
        key=("version",),
        role="ledger",
    ),
    Table(
        "ledger_clock",
        "the table",
        "The ledger's clock, which never goes back: the moment of the last transaction",
        columns("moment"),
        key=(),
        role="lock",
    ),
    Table(
        "turn_load",
        "the table",
        "Lock of loading on a lake: transactions that load at the same time conflict in this row",
        columns("taken"),
        key=(),
        role="lock",
    ),
    Table(
        "turn_figures",
        "the table",
        "Lock of figures on a lake: transactions that write them at the same time conflict in this row",
        columns("taken"),
        key=(),
        role="lock",
    ),
)
