"""Tables of what figures are computed from: readings, runs, the grid, sites, factors."""

from __future__ import annotations

from transforms.schema.fields import columns
from transforms.schema.model import Table

TABLES: tuple[Table, ...] = (
    Table(
        "segment",
        "one file of readings",
        "Every file ever offered, with its verdict: the catalogue behind exactly-once loading",
        columns(
            "segment_key segment_id source_name source_format sample verdict rows_read rows_loaded rows_duplicate rows_skipped "
            "sample_period_ms first_ts last_ts loaded_at collector"
        ),
        key=("segment_key",),
        role="input",
        published="whole",
        in_force="verdict = 'loaded'",
        changes="by_growth",
        digested=("segment_id",),
    ),
    Table(
        "segment_profile",
        "one GPU in one segment",
        "What the gate looked at before it let a segment in",
        columns(
            "segment_id source_name gpu_uuid rows_read first_ts last_ts null_power null_energy no_value min_power_mw max_power_mw "
            "limit_mw max_counter_mw min_util_pct max_util_pct negative_energy steps_back duplicates conflicts counter_resets longest_gap_ms "
            "future_s floor_mw compared_counter_mj compared_power_mj usual_step_ms board_limit_mw limit_from blank_values"
        ),
        key=("segment_id", "gpu_uuid"),
        role="input",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "training_run",
        "one revision of one run",
        "Training runs; revisions are kept",
        columns(
            "run_id name owner run_model started_at ended_at labels source_name loaded_at superseded_at"
        ),
        key=("run_id", "loaded_at"),
        role="input",
        published="in_force",
        in_force="superseded_at IS NULL",
        changes="by_revision",
        known_since="loaded_at",
        digested=("run_id", "name", "owner", "run_model", "started_at", "ended_at", "labels"),
    ),
    Table(
        "run_allocation",
        "one revision of one GPU held by one run",
        "Which run held which GPU, when, and what share of it",
        columns("run_id gpu_uuid from_ts to_ts share_ppm loaded_at superseded_at"),
        key=("run_id", "gpu_uuid", "from_ts", "loaded_at"),
        role="input",
        published="in_force",
        in_force="superseded_at IS NULL",
        changes="by_revision",
        known_since="loaded_at",
        digested=("run_id", "gpu_uuid", "from_ts", "to_ts", "share_ppm"),
    ),
    Table(
        "gpu",
        "one physical GPU",
        "GPUs seen in readings or declared in wattledger.toml",
        columns("gpu_key gpu_uuid host gpu_index model"),
        key=("gpu_key",),
        role="input",
        published="whole",
        digested=("gpu_uuid", "host", "gpu_index", "model"),
    ),
    Table(
        "gpu_reading",
        "one reading of one GPU",
        "Readings, each exactly once; ordered by GPU and time inside a segment",
        columns(
            "gpu_key ts power_mw energy_mj util_pct mem_used_mib temp_c sm_clock_mhz power_source_code segment_key "
            "power_average_mw mem_temp_c power_limit_mw throttle_reasons"
        ),
        key=("gpu_key", "ts"),
        role="readings",
        changes="by_roll_up",
    ),
    Table(
        "gpu_piece",
        "one unbroken stretch of rolled-up readings of one GPU in one slot",
        "What the energy of readings that are gone adds up to, exactly (transforms/energy.py)",
        columns(
            "gpu_key slot readings power_dnj first_t first_p first_c first_averaged last_t last_p last_c "
            "last_averaged segment_key"
        ),
        key=("gpu_key", "slot", "first_t"),
        role="readings",
        changes="by_roll_up",
    ),
    Table(
        "host_reading",
        "one interval of one part of one host",
        "Energy of CPU and memory, measured (RAPL) or modelled by codecarbon",
        columns("host component ts span_us energy_mj is_modelled method segment_key"),
        key=("host", "component", "ts"),
        role="readings",
        changes="by_roll_up",
    ),
    Table(
        "grid_intensity",
        "one revision of one interval of one signal in one zone",
        "Carbon intensity series, bitemporal: what was valid when, and when it was known",
        columns(
            "zone valid_from valid_to signal intensity_g_per_kwh intensity_low_g_per_kwh intensity_high_g_per_kwh source is_estimated fetched_at superseded_at feed"
        ),
        key=("zone", "signal", "feed", "valid_from", "fetched_at"),
        role="grid",
        in_force="superseded_at IS NULL",
        changes="by_revision",
        known_since="fetched_at",
        part="zone",
    ),
    Table(
        "grid_mix",
        "one revision of one fuel in one interval in one zone",
        "Generation per fuel, bitemporal; carbon and water intensity are derived from it by factors",
        columns(
            "zone valid_from valid_to fuel generation_kw source is_estimated fetched_at superseded_at feed"
        ),
        key=("zone", "fuel", "feed", "valid_from", "fetched_at"),
        role="grid",
        in_force="superseded_at IS NULL",
        changes="by_revision",
        known_since="fetched_at",
        part="zone",
    ),
    Table(
        "grid_fetch",
        "attempts in a row with one outcome for one feed and zone",
        "Every attempt to fetch grid data, with what became of it",
        columns(
            "feed provider zone first_ts last_ts outcome reason first_attempt_at last_attempt_at attempts "
            "intervals changed"
        ),
        key=("feed", "zone", "first_attempt_at"),
        role="grid",
        published="whole",
        changes="at_any_time",
    ),
    Table(
        "site",
        "one site in one period",
        "Sites as configured when the figures were computed",
        columns(
            "site zone pue pue_low pue_high wue_l_per_kwh wue_low_l_per_kwh wue_high_l_per_kwh overhead_mw_per_gpu "
            "overhead_low_mw_per_gpu overhead_high_mw_per_gpu valid_from valid_to "
            "rest_mw_per_gpu rest_low_mw_per_gpu rest_high_mw_per_gpu "
            "onsite_share onsite_share_low onsite_share_high "
            "onsite_g_per_kwh onsite_low_g_per_kwh onsite_high_g_per_kwh "
            "onsite_l_per_kwh onsite_low_l_per_kwh onsite_high_l_per_kwh "
            "server gpus_per_server withdrawal_ratio withdrawal_ratio_low withdrawal_ratio_high"
        ),
        key=("site", "valid_from"),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "zone",
        "one grid zone",
        "Zones as configured when the figures were computed",
        columns("zone country signal ladder loss loss_low loss_high"),
        key=("zone",),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "contract",
        "one contract for electricity",
        "Contracts and certificates, for the market-based figure",
        columns(
            "contract position site instrument matching share energy_kwh intensity_g_per_kwh "
            "intensity_low_g_per_kwh intensity_high_g_per_kwh valid_from valid_to source"
        ),
        key=("contract",),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "contract_delivery",
        "one interval of one contract",
        "What a contract delivered, hour by hour",
        columns("contract valid_from valid_to energy_kwh"),
        key=("contract", "valid_from"),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "tariff",
        "one price for some hours at one site",
        "Prices of electricity as configured; of those that fit, the last counts",
        columns(
            "site position price_per_kwh currency from_hour to_hour weekdays tz valid_from valid_to source"
        ),
        key=("site", "position"),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "host",
        "one host",
        "Hosts and their sites as configured when the figures were computed",
        columns("host site"),
        key=("host",),
        role="configured",
        published="whole",
        digested=("*",),
    ),
    Table(
        "factor",
        "one factor for one scope",
        "Factors used, each with its source; overrides from wattledger.toml are marked",
        columns("factor scope value low high unit source licence origin year valid_from valid_to"),
        key=("factor", "scope", "valid_from"),
        role="configured",
        published="whole",
    ),
    Table(
        "collector_event",
        "one event",
        "What happened on a node while it was recorded: GPUs lost, driver reloads, slow calls",
        columns("host gpu_uuid ts event detail segment_key"),
        key=("host", "gpu_uuid", "ts", "event", "detail"),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "gpu_instance",
        "one MIG instance",
        "MIG instances and the share of their GPU that they are; the GPU is metered once",
        columns("instance_uuid gpu_uuid share_ppm"),
        key=("instance_uuid",),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "run_record",
        "one process of a run on one host",
        "What `wattledger run` and `wattledger.track` wrote; runs are made of them",
        columns(
            "record_id run_id host started_at ended_at exit_code record source_name loaded_at "
            "owner_uid is_vouched record_sha256"
        ),
        key=("record_id",),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "seen_record",
        "one finished run record that one segment tells of",
        "Run records that the collector of their host saw on its node, and signed with its segments",
        columns("record_sha256 host owner_uid seen_at segment_id"),
        key=("record_sha256", "segment_id"),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "host_key",
        "one key that was accepted for one host",
        "With which key the collector of a host signs: pinned on first sight, changed by a person only",
        columns("host public_key reason accepted_by accepted_at"),
        key=("host", "accepted_at"),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "signed_segment",
        "one signed segment",
        "Segments that the collector of their host signed, each with the digest of the one before",
        columns("segment_id host public_key segment_sequence previous_sha256 signature loaded_at"),
        key=("segment_id",),
        role="context",
        published="whole",
        changes="by_growth",
    ),
    Table(
        "second_meter",
        "one run as a second meter saw it",
        "What another meter says of runs that the ledger measures itself",
        columns("meter meter_run_id label started_at ended_at gpu_mj cpu_mj dram_mj segment_key"),
        key=("meter", "meter_run_id"),
        role="context",
        published="whole",
        changes="at_any_time",
    ),
    Table(
        "meter_reading",
        "one interval of one meter of a host or a site",
        "What other meters say: PDU, IPMI, the utility's bill",
        columns("meter scope metered valid_from valid_to energy_mj source_name segment_key"),
        key=("meter", "scope", "metered", "valid_from"),
        role="context",
        published="whole",
        changes="at_any_time",
    ),
)
