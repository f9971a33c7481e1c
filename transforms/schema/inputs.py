"""Tables of what figures are computed from: readings, runs, the grid, sites, factors."""

from __future__ import annotations

from transforms.schema.fields import columns
from transforms.schema.model import Table

TABLES: tuple[Table, ...] = (
    Table(
        "gpu",
        "one physical GPU",
        "GPUs seen in readings or declared in wattledger.toml",
        columns("gpu_key gpu_uuid host gpu_index model"),
    ),
    Table(
        "segment",
        "one file of readings",
        "Every file ever offered, with its verdict: the catalogue behind exactly-once loading",
        columns(
            "segment_key segment_id source_name source_format sample verdict rows_read rows_loaded rows_duplicate rows_skipped "
            "sample_period_ms first_ts last_ts loaded_at collector"
        ),
    ),
    Table(
        "segment_profile",
        "one GPU in one segment",
        "What the gate looked at before it let a segment in",
        columns(
            "segment_id source_name gpu_uuid rows_read first_ts last_ts null_power null_energy no_value min_power_mw max_power_mw "
            "limit_mw max_counter_mw min_util_pct max_util_pct negative_energy steps_back duplicates conflicts counter_resets longest_gap_ms "
            "future_s floor_mw compared_counter_mj compared_power_mj usual_step_ms"
        ),
    ),
    Table(
        "gpu_reading",
        "one reading of one GPU",
        "Readings, each exactly once; ordered by GPU and time inside a segment",
        columns(
            "gpu_key ts power_mw energy_mj util_pct mem_used_mib temp_c sm_clock_mhz power_source_code segment_key "
            "power_average_mw mem_temp_c power_limit_mw throttle_reasons"
        ),
    ),
    Table(
        "gpu_piece",
        "one unbroken stretch of rolled-up readings of one GPU in one slot",
        "What the energy of readings that are gone adds up to, exactly (transforms/energy.py)",
        columns(
            "gpu_key slot readings power_dnj first_t first_p first_c first_averaged last_t last_p last_c "
            "last_averaged segment_key"
        ),
    ),
    Table(
        "host_reading",
        "one interval of one part of one host",
        "Energy of CPU and memory, measured (RAPL) or modelled by codecarbon",
        columns("host component ts span_us energy_mj is_modelled method segment_key"),
    ),
    Table(
        "collector_event",
        "one event",
        "What happened on a node while it was recorded: GPUs lost, driver reloads, slow calls",
        columns("host gpu_uuid ts event detail segment_key"),
    ),
    Table(
        "gpu_instance",
        "one MIG instance",
        "MIG instances and the share of their GPU that they are; the GPU is metered once",
        columns("instance_uuid gpu_uuid share_ppm"),
    ),
    Table(
        "second_meter",
        "one run as a second meter saw it",
        "What another meter says of runs that the ledger measures itself",
        columns("meter meter_run_id label started_at ended_at gpu_mj cpu_mj dram_mj segment_key"),
    ),
    Table(
        "meter_reading",
        "one interval of one meter of a host or a site",
        "What other meters say: PDU, IPMI, the utility's bill",
        columns("meter scope metered valid_from valid_to energy_mj source_name segment_key"),
    ),
    Table(
        "run_record",
        "one process of a run on one host",
        "What `wattledger run` and `wattledger.track` wrote; runs are made of them",
        columns("record_id run_id host started_at ended_at exit_code record source_name loaded_at"),
    ),
    Table(
        "training_run",
        "one revision of one run",
        "Training runs; revisions are kept",
        columns(
            "run_id name owner run_model started_at ended_at labels source_name loaded_at superseded_at"
        ),
    ),
    Table(
        "run_allocation",
        "one revision of one GPU held by one run",
        "Which run held which GPU, when, and what share of it",
        columns("run_id gpu_uuid from_ts to_ts share_ppm loaded_at superseded_at"),
    ),
    Table(
        "grid_intensity",
        "one revision of one interval of one signal in one zone",
        "Carbon intensity series, bitemporal: what was valid when, and when it was known",
        columns(
            "zone valid_from valid_to signal intensity_g_per_kwh intensity_low_g_per_kwh intensity_high_g_per_kwh source is_estimated fetched_at superseded_at feed"
        ),
    ),
    Table(
        "grid_mix",
        "one revision of one fuel in one interval in one zone",
        "Generation per fuel, bitemporal; carbon and water intensity are derived from it by factors",
        columns(
            "zone valid_from valid_to fuel generation_kw source is_estimated fetched_at superseded_at feed"
        ),
    ),
    Table(
        "grid_fetch",
        "attempts in a row with one outcome for one feed and zone",
        "Every attempt to fetch grid data, with what became of it",
        columns(
            "feed provider zone first_ts last_ts outcome reason first_attempt_at last_attempt_at attempts "
            "intervals changed"
        ),
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
    ),
    Table(
        "zone",
        "one grid zone",
        "Zones as configured when the figures were computed",
        columns("zone country signal ladder loss loss_low loss_high"),
    ),
    Table(
        "host",
        "one host",
        "Hosts and their sites as configured when the figures were computed",
        columns("host site"),
    ),
    Table(
        "contract",
        "one contract for electricity",
        "Contracts and certificates, for the market-based figure",
        columns(
            "contract position site instrument matching share energy_kwh intensity_g_per_kwh "
            "intensity_low_g_per_kwh intensity_high_g_per_kwh valid_from valid_to source"
        ),
    ),
    Table(
        "contract_delivery",
        "one interval of one contract",
        "What a contract delivered, hour by hour",
        columns("contract valid_from valid_to energy_kwh"),
    ),
    Table(
        "tariff",
        "one price for some hours at one site",
        "Prices of electricity as configured; of those that fit, the last counts",
        columns(
            "site position price_per_kwh currency from_hour to_hour weekdays tz valid_from valid_to source"
        ),
    ),
    Table(
        "gpu_embodied",
        "one GPU",
        "Embodied carbon and water of a GPU and its part of the server, per hour held",
        columns(
            "gpu_key gpus_per_server embodied_ug_per_h embodied_low_ug_per_h embodied_high_ug_per_h "
            "embodied_ul_per_h embodied_low_ul_per_h embodied_high_ul_per_h"
        ),
    ),
    Table(
        "factor",
        "one factor for one scope",
        "Factors used, each with its source; overrides from wattledger.toml are marked",
        columns("factor scope value low high unit source licence origin year valid_from valid_to"),
    ),
)
