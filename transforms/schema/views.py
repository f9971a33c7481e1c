"""Views: figures in the units that people read."""

from __future__ import annotations

from transforms.schema.fields import columns
from transforms.schema.model import Table

TABLES: tuple[Table, ...] = (
    Table(
        "run_summary",
        "one training run",
        "Energy, carbon and water of every run, with bounds and measured share",
        columns(
            "run_id state flags name owner run_model started_at ended_at gpus gpu_hours "
            "energy_kwh energy_low_kwh energy_high_kwh energy_measured_share gap_kwh filled_kwh it_kwh "
            "facility_kwh facility_low_kwh facility_high_kwh facility_measured_share "
            "co2e_kg co2e_low_kg co2e_high_kg co2e_measured_share "
            "water_onsite_l water_onsite_low_l water_onsite_high_l water_onsite_measured_share "
            "water_offsite_l water_offsite_low_l water_offsite_high_l water_offsite_measured_share "
            "host_kwh host_measured_share grid_kwh onsite_kwh "
            "co2e_scope1_kg co2e_scope1_low_kg co2e_scope1_high_kg "
            "co2e_market_kg co2e_market_low_kg co2e_market_high_kg contracted_share residual_share "
            "co2e_losses_kg co2e_losses_low_kg co2e_losses_high_kg "
            "co2e_marginal_kg co2e_marginal_low_kg co2e_marginal_high_kg marginal_share "
            "co2e_embodied_kg co2e_embodied_low_kg co2e_embodied_high_kg "
            "co2e_total_kg co2e_total_low_kg co2e_total_high_kg "
            "water_embodied_l water_embodied_low_l water_embodied_high_l "
            "water_withdrawal_l water_withdrawal_low_l water_withdrawal_high_l "
            "cost currency priced_share family phase outcome functional_unit functional_units "
            "sci_g_per_unit overrides"
        ),
        kind="view",
        role="view",
        key=("run_id",),
        published="whole",
    ),
    Table(
        "run_label",
        "one training run",
        "What the labels of a run say of its place among others (docs/formats.md)",
        columns("run_id family phase outcome functional_unit functional_units"),
        kind="view",
        role="view",
        key=("run_id",),
        published="whole",
    ),
    Table(
        "family_summary",
        "one phase and outcome of one family of runs",
        "What a model cost with its experiments, restarts and failures",
        columns(
            "family phase outcome runs gpu_hours facility_kwh co2e_total_kg co2e_total_low_kg "
            "co2e_total_high_kg water_onsite_l water_offsite_l cost family_share"
        ),
        kind="view",
        role="view",
        key=("family", "phase", "outcome"),
        published="whole",
    ),
    Table(
        "idle_spread",
        "one training run",
        "Idle and unallocated energy of a site, divided among its runs by GPU time; in no figure of a run",
        columns("run_id gpu_hours idle_facility_kwh idle_co2e_kg idle_water_l"),
        kind="view",
        role="view",
        key=("run_id",),
        published="whole",
    ),
    Table(
        "fleet_summary",
        "one kind of use (run, idle, unallocated)",
        "What runs used, what lay idle, what no share covered",
        columns(
            "kind runs gpu_hours energy_kwh facility_kwh co2e_kg water_onsite_l water_offsite_l"
        ),
        kind="view",
        role="view",
        key=("kind",),
        published="whole",
    ),
    Table(
        "energy_by_hour",
        "one run (or idle, or unallocated) in one hour",
        "Energy, carbon and water over time",
        columns(
            "hour_start kind run_id energy_kwh facility_kwh co2e_kg water_onsite_l water_offsite_l"
        ),
        kind="view",
        role="view",
        key=("hour_start", "kind", "run_id"),
        published="whole",
    ),
    Table(
        "gpu_energy",
        "one run (or idle, or unallocated) on one GPU",
        "Energy by GPU",
        columns(
            "host gpu_uuid model kind run_id gpu_hours energy_kwh energy_low_kwh energy_high_kwh energy_measured_share"
        ),
        kind="view",
        role="view",
        key=("gpu_uuid", "kind", "run_id"),
        published="whole",
    ),
    Table(
        "data_quality",
        "one run",
        "What each run's figures rest on",
        columns(
            "run_id counter_share power_share gap_share filled_share signed_share records_seen_share "
            "intensity_reported_share intensity_estimated_share intensity_fallback_share"
        ),
        kind="view",
        role="view",
        key=("run_id",),
        published="whole",
    ),
    Table(
        "segment_chain",
        "one host and key",
        "Signed segments of each host: how many are there, and how many are missing",
        columns("host public_key last_sequence present missing first_missing"),
        kind="view",
        role="view",
        key=("host", "public_key"),
        published="whole",
    ),
    Table(
        "intensity_sources",
        "one source of one quantity (intensity, ewif, marginal, residual) of one run",
        "What share of each run's energy each tier of the ladder covered",
        columns("run_id quantity rung feed source is_estimated energy_share"),
        kind="view",
        role="view",
        key=("run_id", "quantity", "rung", "feed", "source", "is_estimated"),
        published="whole",
    ),
    Table(
        "alternatives",
        "one finished run at another time or in another zone",
        "When and where would a finished run have been cleaner",
        columns(
            "run_id zone is_own_zone shift_h started_would co2e_kg location_co2e_kg difference"
        ),
        kind="view",
        role="view",
        key=("run_id", "zone", "shift_h"),
        published="whole",
    ),
    Table(
        "sensitivity",
        "one input of one run",
        "Which input moves a run's totals most, each alone between its low and its high",
        columns(
            "run_id input co2e_total_kg co2e_at_low_kg co2e_at_high_kg co2e_swing_kg "
            "water_l water_at_low_l water_at_high_l water_swing_l"
        ),
        kind="view",
        role="view",
        key=("run_id", "input"),
        published="whole",
    ),
    Table(
        "meter_agreement",
        "one run as a second meter saw it",
        "Our energy of a run beside a second meter's; run_id is null where no run fits",
        columns(
            "meter meter_run_id label run_id started_at ended_at meter_gpu_kwh energy_kwh "
            "gpu_difference meter_host_kwh host_kwh"
        ),
        kind="view",
        role="view",
        key=("meter", "meter_run_id", "run_id"),
        published="whole",
    ),
    Table(
        "reading_completeness",
        "one GPU in one hour in which it was recorded",
        "Readings that the recorder's period promises, and those that are there",
        columns("host gpu_uuid hour_start readings_expected readings_received completeness"),
        kind="view",
        role="view",
        key=("gpu_uuid", "hour_start"),
        published="whole",
    ),
    Table(
        "meter_reconciliation",
        "one interval of a meter of a host or a site",
        "What another meter says, beside the ledger: IT energy of a host, facility energy of a site",
        columns(
            "meter scope metered valid_from valid_to meter_kwh ledger_kwh ledger_low_kwh ledger_high_kwh "
            "meter_difference covered_share source_name"
        ),
        kind="view",
        role="view",
        key=("meter", "scope", "metered", "valid_from"),
        published="whole",
    ),
    Table(
        "gpu_readings",
        "one reading of one GPU",
        "Readings with the names of GPU, host and file",
        columns(
            "ts host gpu_uuid power_mw energy_mj util_pct mem_used_mib temp_c sm_clock_mhz power_source segment_id source_name "
            "power_average_mw mem_temp_c power_limit_mw throttle_reasons"
        ),
        kind="view",
        role="view",
        key=("gpu_uuid", "ts"),
    ),
)
