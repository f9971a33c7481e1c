"""What every table and column means: the one place that says types, units and descriptions.

`sql/migrations` creates the tables, this module explains them: the warehouse writes these texts
as `COMMENT`s, `docs/data-dictionary.md` is generated from them, and a test holds migrations and
views to the types given here.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOT_US = 300_000_000
"""Length of a slot in microseconds: 5 minutes, the finest common grid resolution."""

BOUNDS = ("", "_low", "_high")
"""What the names of a value and of its bounds have in them: `pue`, `pue_low`, `pue_high`."""

PPM = 1_000_000
"""Shares are integers in parts per million."""

SIGNALS = ("average_lifecycle", "average_direct", "marginal", "residual_mix")
"""What a grid intensity can mean; signals are never mixed."""

SERIES_RUNGS = ("live", "cached")
RUNGS = (*SERIES_RUNGS, "profile", "configured", "country_year", "world")
"""Where an intensity may come from, best first: a series that its provider confirmed at the last
attempt, one that could not be asked for again, what the zone's series usually is at that hour, a
fallback from wattledger.toml, the country's yearly mix, the world's."""

FILE_FEED = "file"
"""The feed of grid data that was loaded from files."""

WATER = ("ewif", "withdrawal")
QUANTITIES = ("intensity", *WATER, "marginal", "residual")
"""What `slot_signal` holds for a zone and slot, and `slot_source` explains."""

NO_GPU = "none"
"""Model of the host device: what a run without any GPU holds, so that it has its host's energy."""

POWER_SOURCES = ("unknown", "instant", "average_1s")
"""Which NVML quantity a power reading is, in the order of their codes (docs/method.md)."""


@dataclass(frozen=True)
class Field:
    """A column: its name (which carries the unit), DuckDB type and meaning."""

    name: str
    sql_type: str
    description: str
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table or view: what one row is (`grain`), what it is for, and its columns in order."""

    name: str
    grain: str
    description: str
    fields: tuple[Field, ...]
    kind: str = "table"

    @property
    def columns(self) -> list[str]:
        return [field.name for field in self.fields]


_T = "TIMESTAMP WITH TIME ZONE"


def _bounded(
    head: str, unit: str, sql_type: str, description: str, shown_unit: str, *, of: bool = False
) -> tuple[Field, Field, Field]:
    """A value and its low and high: `pue`, `pue_low`; `co2e_ug`, `co2e_low_ug`.

    `of`: the bounds name the value, as where they stand far from it.
    """
    name = head + unit
    texts = (
        description,
        f"Lower bound of {name}" if of else "Its lower bound",
        f"Upper bound of {name}" if of else "Its upper bound",
    )
    value, low, high = (
        Field(f"{head}{bound}{unit}", sql_type, text, shown_unit)
        for bound, text in zip(BOUNDS, texts, strict=True)
    )
    return value, low, high


_FIELDS: dict[str, Field] = {
    f.name: f
    for f in (
        # identity
        Field("gpu_key", "INTEGER", "Short key of a GPU inside this warehouse; see `gpu`"),
        Field(
            "gpu_uuid",
            "VARCHAR",
            "Identity of the physical GPU: its NVML UUID, or `host/gpuN` for logs that carry none",
        ),
        Field("host", "VARCHAR", "Host that carries the GPU"),
        Field("gpu_index", "INTEGER", "Index of the GPU on its host, when known"),
        Field("model", "VARCHAR", "Product name as the driver gives it; null when unknown"),
        Field("site", "VARCHAR", "Site (data centre) from wattledger.toml"),
        Field("zone", "VARCHAR", "Grid zone, for example DE or US-TVA"),
        Field("run_id", "VARCHAR", "Training run; null where no run holds the energy"),
        Field(
            "kind",
            "VARCHAR",
            "`run`, `idle` (no run held the GPU) or `unallocated` (the unheld share of a shared GPU)",
        ),
        # segments
        Field("segment_key", "INTEGER", "Short key of a segment inside this warehouse"),
        Field(
            "segment_id", "VARCHAR", "SHA-256 of the file's bytes: the unit of exactly-once loading"
        ),
        Field("source_name", "VARCHAR", "File the data came from, as given on loading"),
        Field("source_format", "VARCHAR", "Reader that understood the file"),
        Field("sample", "BOOLEAN", "True where readings were made by Wattledger's own generator"),
        Field("verdict", "VARCHAR", "`loaded` or `quarantined`"),
        Field("rows_read", "BIGINT", "Readings found in the file"),
        Field("rows_loaded", "BIGINT", "Readings stored from it"),
        Field(
            "rows_duplicate",
            "BIGINT",
            "Readings left out because the same reading is stored already",
        ),
        Field(
            "rows_skipped",
            "BIGINT",
            "Lines that hold no reading: repeated headers, blank lines, a cut last line",
        ),
        Field("sample_period_ms", "BIGINT", "Median step between readings of one GPU", "ms"),
        Field("first_ts", _T, "Time of the first reading or interval, UTC"),
        Field("last_ts", _T, "Time of the last reading, or end of the last interval, UTC"),
        Field("loaded_at", _T, "When this row was written, UTC"),
        Field(
            "superseded_at", _T, "When a later revision replaced this row, UTC; null while current"
        ),
        # readings
        Field("ts", _T, "Time of the reading, UTC"),
        Field("power_mw", "INTEGER", "Board power in milliwatts, as NVML gives it", "mW"),
        Field("energy_mj", "BIGINT", "Energy in millijoules", "mJ"),
        Field("util_pct", "SMALLINT", "GPU utilisation", "%"),
        Field("mem_used_mib", "INTEGER", "Memory in use", "MiB"),
        Field("temp_c", "SMALLINT", "GPU temperature", "°C"),
        Field("sm_clock_mhz", "SMALLINT", "SM clock", "MHz"),
        Field(
            "power_average_mw",
            "INTEGER",
            "Board power averaged over 1 s, where the driver names it beside power_mw",
            "mW",
        ),
        Field("mem_temp_c", "SMALLINT", "Memory temperature", "°C"),
        Field("power_limit_mw", "INTEGER", "Power limit in force", "mW"),
        Field(
            "throttle_reasons",
            "BIGINT",
            "Why the clocks are held back: NVML's bits (4 power cap, 32 software thermal, 64 hardware thermal)",
        ),
        Field("power_source", "VARCHAR", "NVML quantity: instant, average_1s or unknown"),
        Field(
            "power_source_code",
            "UTINYINT",
            "0 unknown, 1 instant, 2 average_1s; the view gpu_readings has the names",
        ),
        # collector
        Field(
            "collector",
            "VARCHAR",
            "What the collector says of itself and its GPUs, JSON: versions, period, clock offset, "
            "and why a quantity is null; null for other sources",
        ),
        Field("event", "VARCHAR", "What happened on the node (docs/collector.md)"),
        Field("detail", "VARCHAR", "The event in words"),
        Field("instance_uuid", "VARCHAR", "MIG instance"),
        Field("component", "VARCHAR", "Part of the host: cpu or dram"),
        Field("span_us", "BIGINT", "Length of the interval that ends at ts", "µs"),
        Field("is_modelled", "BOOLEAN", "True where a model, not a meter, gave the value"),
        Field("method", "VARCHAR", "Meter or model"),
        Field("meter", "VARCHAR", "A second meter, for example codecarbon"),
        Field("meter_run_id", "VARCHAR", "What the second meter calls the run"),
        Field("label", "VARCHAR", "The run's id or name, as the second meter was told"),
        Field("gpu_mj", "BIGINT", "Energy of the GPUs by the second meter", "mJ"),
        Field("cpu_mj", "BIGINT", "Energy of the CPU by the second meter", "mJ"),
        Field("dram_mj", "BIGINT", "Energy of the memory by the second meter", "mJ"),
        Field("meter_gpu_kwh", "DOUBLE", "GPU energy by the second meter", "kWh"),
        Field("meter_host_kwh", "DOUBLE", "CPU and memory by the second meter", "kWh"),
        Field(
            "gpu_difference",
            "DOUBLE",
            "(energy_kwh - meter_gpu_kwh) / meter_gpu_kwh: how far our GPU energy is from theirs",
        ),
        Field("record_id", "VARCHAR", "One process of a run on one host"),
        Field("exit_code", "INTEGER", "Exit code of the process; null while it goes on or unseen"),
        Field("record", "VARCHAR", "The run record as written on the node, JSON"),
        # profile
        Field("null_power", "BIGINT", "Readings without power"),
        Field("null_energy", "BIGINT", "Readings without an energy counter"),
        Field("no_value", "BIGINT", "Readings with neither power nor counter"),
        Field("min_power_mw", "BIGINT", "Smallest power", "mW"),
        Field("max_power_mw", "BIGINT", "Largest power", "mW"),
        Field(
            "limit_mw",
            "BIGINT",
            "Largest power believed of this GPU: its board limit times the tolerance",
            "mW",
        ),
        Field(
            "max_counter_mw",
            "BIGINT",
            "Largest mean power that the energy counter implies between two readings",
            "mW",
        ),
        Field(
            "floor_mw",
            "BIGINT",
            "Least power believed of this GPU: half of what it draws idle",
            "mW",
        ),
        Field(
            "compared_counter_mj",
            "BIGINT",
            "Rise of the energy counter over the steps that have power at both ends too",
            "mJ",
        ),
        Field("compared_power_mj", "BIGINT", "Integral of power over the same steps", "mJ"),
        Field("usual_step_ms", "BIGINT", "Mean step between readings, without gaps", "ms"),
        Field("readings_expected", "BIGINT", "Readings that the recorder's period promises"),
        Field("readings_received", "BIGINT", "Readings that are there"),
        Field("completeness", "DOUBLE", "Readings received of those expected, 0 to 1"),
        Field("metered", "VARCHAR", "Host or site that the meter measures"),
        Field("meter_kwh", "DOUBLE", "Energy by the other meter", "kWh"),
        Field("meter_difference", "DOUBLE", "(ledger_kwh - meter_kwh) / meter_kwh"),
        Field("ledger_kwh", "DOUBLE", "The ledger's energy for the same time", "kWh"),
        Field("ledger_low_kwh", "DOUBLE", "Its lower bound", "kWh"),
        Field("ledger_high_kwh", "DOUBLE", "Its upper bound", "kWh"),
        Field(
            "covered_share",
            "DOUBLE",
            "Part of the interval that the ledger has anything for, 0 to 1",
        ),
        Field("min_util_pct", "BIGINT", "Smallest utilisation", "%"),
        Field("max_util_pct", "BIGINT", "Largest utilisation", "%"),
        Field("negative_energy", "BIGINT", "Readings whose energy counter is below zero"),
        Field("steps_back", "BIGINT", "Readings earlier than the one before them in the file"),
        Field("duplicates", "BIGINT", "Readings that repeat another one exactly"),
        Field("conflicts", "BIGINT", "Times with two different readings of one GPU"),
        Field("counter_resets", "BIGINT", "Times the energy counter went back (driver reload)"),
        Field("longest_gap_ms", "BIGINT", "Longest step between two readings", "ms"),
        Field(
            "future_s",
            "BIGINT",
            "Seconds by which the last reading lies in the future of the loading host",
            "s",
        ),
        # runs
        Field("name", "VARCHAR", "Name given by its owner"),
        Field("owner", "VARCHAR", "Person or team"),
        Field("run_model", "VARCHAR", "Model that the run trains"),
        Field("labels", "VARCHAR", "Free labels as a JSON object"),
        Field("started_at", _T, "Start of the run, UTC"),
        Field("ended_at", _T, "End of the run, UTC; null while it goes on"),
        Field("from_ts", _T, "Start of the allocation, UTC"),
        Field("to_ts", _T, "End of the allocation, UTC; null while it goes on"),
        Field("share_ppm", "INTEGER", "Share of the GPU in parts per million", "ppm"),
        # grid
        Field("valid_from", _T, "Start of validity, UTC; null = always"),
        Field("valid_to", _T, "End of validity (exclusive), UTC; null = for ever"),
        Field("signal", "VARCHAR", "average_lifecycle, average_direct, marginal or residual_mix"),
        *_bounded("intensity", "_g_per_kwh", "DOUBLE", "Carbon intensity", "g CO2e/kWh"),
        *_bounded("ewif", "_l_per_kwh", "DOUBLE", "Water consumed in generation per kWh", "L/kWh"),
        Field("source", "VARCHAR", "Who says so"),
        Field(
            "is_estimated", "BOOLEAN", "True where the provider marks the value as its own estimate"
        ),
        Field("fetched_at", _T, "When the value was obtained, UTC"),
        Field("fuel", "VARCHAR", "Fuel or technology, in Wattledger's names (see factor)"),
        Field("generation_kw", "BIGINT", "Mean generation during the interval", "kW"),
        Field(
            "feed",
            "VARCHAR",
            "Where the zone gets it from: the name of an [[input.grid_api]], or `file`",
        ),
        Field("provider", "VARCHAR", "Provider that was asked"),
        Field("outcome", "VARCHAR", "fetched, partial (some of it was missing) or failed"),
        Field("first_attempt_at", _T, "First of these attempts, UTC"),
        Field("last_attempt_at", _T, "Last of these attempts, UTC"),
        Field("attempts", "BIGINT", "Attempts in a row with the same outcome"),
        Field("intervals", "BIGINT", "Intervals that the last attempt gave"),
        Field("changed", "BIGINT", "Rows that these attempts added or revised"),
        Field(
            "rung",
            "VARCHAR",
            "Step of the ladder: live, cached, profile, configured, country_year or world",
        ),
        Field("quantity", "VARCHAR", "intensity, ewif, marginal or residual"),
        Field("country", "VARCHAR", "Country of the zone, ISO 3166-1 alpha-2"),
        Field("ladder", "VARCHAR", "Rungs allowed for the zone, best first"),
        Field("loss", "DOUBLE", "Share of generation lost in transmission and distribution"),
        Field("loss_low", "DOUBLE", "Its lower bound"),
        Field("loss_high", "DOUBLE", "Its upper bound"),
        Field("contract", "VARCHAR", "Contract for electricity, from wattledger.toml"),
        Field("position", "INTEGER", "Place among the contracts; earlier ones are used first"),
        Field("instrument", "VARCHAR", "ppa, certificate or tariff"),
        Field("matching", "VARCHAR", "hourly or annual"),
        Field("share", "DOUBLE", "Share of the site's grid energy that it covers, 0 to 1"),
        *_bounded("marginal", "_g_per_kwh", "DOUBLE", "Marginal emissions rate", "g CO2/kWh"),
        *_bounded(
            "residual", "_g_per_kwh", "DOUBLE", "Intensity of the residual mix", "g CO2e/kWh"
        ),
        Field("year", "INTEGER", "Year that the value describes, or of its publication"),
        Field("onsite_share", "DOUBLE", "Share of the facility energy generated on site, 0 to 1"),
        Field("onsite_share_low", "DOUBLE", "Its lower bound"),
        Field("onsite_share_high", "DOUBLE", "Its upper bound"),
        *_bounded(
            "onsite", "_g_per_kwh", "DOUBLE", "Direct emissions of on-site generation", "g CO2e/kWh"
        ),
        *_bounded(
            "onsite", "_l_per_kwh", "DOUBLE", "Water consumed by on-site generation", "L/kWh"
        ),
        Field(
            "shift_h",
            "INTEGER",
            "Hours by which the run would have started later; negative: earlier",
            "h",
        ),
        Field(
            "covered_ppm",
            "INTEGER",
            "Share of the grid energy that is covered: by the contract, or by a series",
            "ppm",
        ),
        # sites and factors
        Field(
            "pue",
            "DOUBLE",
            "Power usage effectiveness: facility energy per IT energy (ISO/IEC 30134-2)",
        ),
        Field("pue_low", "DOUBLE", "Its lower bound"),
        Field("pue_high", "DOUBLE", "Its upper bound"),
        *_bounded(
            "wue",
            "_l_per_kwh",
            "DOUBLE",
            "Water usage effectiveness: litres per kWh of IT energy (ISO/IEC 30134-9)",
            "L/kWh",
        ),
        *_bounded(
            "overhead",
            "_mw_per_gpu",
            "BIGINT",
            "Power of CPU, memory, network and fans per GPU, where the host is not metered",
            "mW",
        ),
        *_bounded(
            "rest",
            "_mw_per_gpu",
            "BIGINT",
            "Power of what is neither GPU, CPU nor memory per GPU, where CPU and memory are metered",
            "mW",
        ),
        Field("factor", "VARCHAR", "Name of the factor"),
        Field(
            "scope",
            "VARCHAR",
            "What it applies to: a fuel, a GPU model, a zone or `default`; of a meter, host or site",
        ),
        Field("value", "DOUBLE", "Central value, in `unit`"),
        Field("low", "DOUBLE", "Lower bound, in `unit`"),
        Field("high", "DOUBLE", "Upper bound, in `unit`"),
        Field("unit", "VARCHAR", "Unit of value, low and high"),
        Field("licence", "VARCHAR", "Terms of the source"),
        Field("origin", "VARCHAR", "`shipped` or `override` (from wattledger.toml)"),
        # quarantine and validation
        Field(
            "reason",
            "VARCHAR",
            "Why: of a refusal, with what to do; of an override; of a publication, as given",
        ),
        Field("suite", "VARCHAR", "Great Expectations suite"),
        Field("kept_path", "VARCHAR", "Where the refused bytes are kept, relative to the project"),
        Field("recorded_at", _T, "When this was recorded, UTC"),
        Field("validation_id", "VARCHAR", "One execution of one suite"),
        Field("success", "BOOLEAN", "Whether it passed"),
        Field("checked_rows", "BIGINT", "Rows of the checked table"),
        Field("check_name", "VARCHAR", "Name of the check"),
        Field("severity", "VARCHAR", "fail or warn"),
        Field("statement", "VARCHAR", "The check as a sentence"),
        Field("unexpected_rows", "BIGINT", "Rows that break it"),
        Field("examples", "VARCHAR", "Up to ten of those rows, JSON"),
        # slots
        Field("slot_start", _T, "Start of the 5-minute slot, UTC"),
        Field("counter_mj", "BIGINT", "Measured by the energy counter", "mJ"),
        Field("power_integral_mj", "BIGINT", "Measured by integrating power", "mJ"),
        Field("gap_mj", "BIGINT", "Estimated across a gap between readings", "mJ"),
        Field("gap_low_mj", "BIGINT", "Lower bound of gap_mj: the GPU at idle", "mJ"),
        Field("gap_high_mj", "BIGINT", "Upper bound of gap_mj: the GPU at its limit", "mJ"),
        Field(
            "filled_mj",
            "BIGINT",
            "Filled at the board limit: held by the run, but no reading at all",
            "mJ",
        ),
        Field("filled_low_mj", "BIGINT", "Lower bound of filled_mj: the GPU at idle", "mJ"),
        Field("covered_us", "BIGINT", "GPU time between readings", "µs"),
        Field("gap_us", "BIGINT", "GPU time bridged by an estimate", "µs"),
        Field("held_us", "BIGINT", "GPU time held, weighted by share", "µs"),
        Field("readings", "BIGINT", "Readings in the slot"),
        Field("energy_low_mj", "BIGINT", "Lower bound of energy_mj", "mJ"),
        Field("energy_high_mj", "BIGINT", "Upper bound of energy_mj", "mJ"),
        Field(
            "measured_mj", "BIGINT", "Part of energy_mj that was measured (counter or power)", "mJ"
        ),
        Field("metered_mj", "BIGINT", "Energy seen by the meters: counter + power + gap", "mJ"),
        Field("attributed_mj", "BIGINT", "Part of metered_mj that runs hold", "mJ"),
        Field("idle_mj", "BIGINT", "Part of metered_mj of GPUs that no run held", "mJ"),
        Field(
            "unallocated_mj",
            "BIGINT",
            "Part of metered_mj that no share of a shared GPU covers",
            "mJ",
        ),
        Field(
            "difference_mj", "BIGINT", "metered - attributed - idle - unallocated: always 0", "mJ"
        ),
        # footprint
        Field(
            "overhead_mj",
            "BIGINT",
            "Host energy beside the GPUs: CPU and memory where metered, the site's model elsewhere",
            "mJ",
        ),
        Field("host_mj", "BIGINT", "Energy of CPU and memory that the collector gave", "mJ"),
        Field("host_measured_mj", "BIGINT", "Part of host_mj that was measured (RAPL)", "mJ"),
        Field("host_modelled_mj", "BIGINT", "Part of host_mj that a model gave", "mJ"),
        Field("metered_us", "BIGINT", "Time for which CPU or memory are known", "µs"),
        *_bounded("it", "_mj", "BIGINT", "IT energy: GPU + host overhead", "mJ", of=True),
        *_bounded("facility", "_mj", "BIGINT", "Facility energy: IT energy x PUE", "mJ", of=True),
        Field(
            "facility_measured_mj",
            "BIGINT",
            "Part of facility_mj whose IT energy was measured",
            "mJ",
        ),
        Field(
            "facility_uncovered_mj",
            "BIGINT",
            "Part of facility_mj without any carbon intensity",
            "mJ",
        ),
        *_bounded("co2e", "_ug", "BIGINT", "Location-based CO2e (scope 2)", "µg", of=True),
        Field(
            "co2e_measured_ug",
            "BIGINT",
            "Part of co2e_ug with measured energy and a reported intensity",
            "µg",
        ),
        *_bounded("water_onsite", "_ul", "BIGINT", "Water consumed on site for cooling", "µL"),
        Field(
            "water_onsite_measured_ul", "BIGINT", "Part of it that rests on measured energy", "µL"
        ),
        *_bounded(
            "water_offsite", "_ul", "BIGINT", "Water consumed in generating the electricity", "µL"
        ),
        Field(
            "water_offsite_measured_ul",
            "BIGINT",
            "Part of it with measured energy and a reported generation mix",
            "µL",
        ),
        Field("series_ppm", "INTEGER", "Share of the slot covered by reported intensities", "ppm"),
        Field(
            "estimated_ppm",
            "INTEGER",
            "Share covered by intensities that the provider estimated",
            "ppm",
        ),
        Field(
            "ewif_series_ppm",
            "INTEGER",
            "Share of the slot whose EWIF comes from a reported generation mix",
            "ppm",
        ),
        Field(
            "fallback_ppm",
            "INTEGER",
            "Share covered by a lower rung of the ladder (see slot_source)",
            "ppm",
        ),
        *_bounded(
            "grid", "_mj", "BIGINT", "Part of facility_mj taken from the grid", "mJ", of=True
        ),
        Field("onsite_mj", "BIGINT", "Part of facility_mj generated on site", "mJ"),
        *_bounded(
            "co2e_scope1", "_ug", "BIGINT", "CO2e of on-site generation (scope 1)", "µg", of=True
        ),
        *_bounded("co2e_market", "_ug", "BIGINT", "Market-based CO2e (scope 2)", "µg", of=True),
        Field("contracted_mj", "BIGINT", "Part of grid_mj that contracts cover", "mJ"),
        Field(
            "residual_mj",
            "BIGINT",
            "Part of grid_mj counted with a residual mix; the rest beside contracted_mj has none and "
            "is counted with the location-based intensity",
            "mJ",
        ),
        *_bounded(
            "co2e_marginal",
            "_ug",
            "BIGINT",
            "Marginal effect: emissions that the energy caused at the margin; in no inventory",
            "µg",
            of=True,
        ),
        Field("marginal_mj", "BIGINT", "Part of grid_mj whose marginal rate is known", "mJ"),
        *_bounded(
            "co2e_losses",
            "_ug",
            "BIGINT",
            "CO2e of transmission and distribution losses (scope 3, category 3)",
            "µg",
            of=True,
        ),
        Field("gpus", "BIGINT", "GPUs that took part"),
        Field("first_slot", _T, "First slot with energy, UTC"),
        Field("last_slot", _T, "Last slot with energy, UTC"),
        *_bounded(
            "co2e_embodied",
            "_ug",
            "BIGINT",
            "Embodied CO2e of the hardware for the time held (scope 3)",
            "µg",
            of=True,
        ),
        *_bounded(
            "water_embodied",
            "_ul",
            "BIGINT",
            "Water consumed in making the GPUs, for the time held",
            "µL",
            of=True,
        ),
        *_bounded(
            "water_withdrawal",
            "_ul",
            "BIGINT",
            "Water withdrawn, on and off site: beside consumption, never added to it",
            "µL",
            of=True,
        ),
        Field(
            "cost_micro",
            "BIGINT",
            "Cost of the facility energy that has a price, in millionths of the tariff's currency",
            "1e-6",
        ),
        Field("priced_mj", "BIGINT", "Part of facility_mj that has a price", "mJ"),
        *_bounded(
            "embodied",
            "_ug_per_h",
            "BIGINT",
            "Embodied CO2e of a GPU and its part of the server for an hour held",
            "µg/h",
        ),
        *_bounded(
            "embodied", "_ul_per_h", "BIGINT", "Embodied water of a GPU for an hour held", "µL/h"
        ),
        Field("gpus_per_server", "INTEGER", "GPUs among which a server is divided"),
        Field("server", "VARCHAR", "Server model from wattledger.toml: scope of its factors"),
        *_bounded(
            "withdrawal_ratio", "", "DOUBLE", "Water withdrawn on site per litre consumed", "1"
        ),
        *_bounded(
            "withdrawal", "_l_per_kwh", "DOUBLE", "Water withdrawn in generating a kWh", "L/kWh"
        ),
        Field("price_per_kwh", "DOUBLE", "Price of a kWh in the tariff's currency", "1/kWh"),
        Field("currency", "VARCHAR", "Currency, from wattledger.toml"),
        Field("from_hour", "INTEGER", "First hour of the day, in the tariff's time zone", "h"),
        Field("to_hour", "INTEGER", "Hour at which it ends; 24 is midnight", "h"),
        Field("weekdays", "VARCHAR", "Days of the week on which it holds"),
        Field("tz", "VARCHAR", "Time zone of its hours"),
        # publication
        Field("computed_at", _T, "When the candidate was computed, UTC"),
        Field("publication_id", "VARCHAR", "Number and short digest of the publication"),
        Field("sequence", "BIGINT", "Number of the publication, from 1"),
        Field("published_at", _T, "When it was published, UTC"),
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
        Field("taken", "BIGINT", "Transactions so far; 0 where the warehouse is a file"),
        Field("facts", "VARCHAR", "What the figures rest on, as text or digest"),
        Field("as_of", _T, "Time of the last reading that the figures include, UTC"),
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
        Field("rolled_up_at", _T, "When its readings were replaced, UTC"),
        Field("after_days", "DOUBLE", "Age that the policy demanded", "d"),
        Field("max_gap_us", "BIGINT", "Longest step that counted as measured then", "µs"),
        Field("readings_sha256", "VARCHAR", "content_sha256 of the readings before"),
        Field(
            "readings_left", "BIGINT", "Readings kept: in slots that a border of an allocation cuts"
        ),
        Field("pieces", "BIGINT", "Rows of gpu_piece in their place"),
        Field("overridden_by", "VARCHAR", "Who let figures pass that the check refuses"),
        Field("previous_id", "VARCHAR", "Publication whose figures are restated"),
        *(
            Field(f"{head}_{when}_{unit}", "BIGINT", f"{what} {text}", shown)
            for head, unit, what, shown in (
                ("energy", "mj", "GPU energy", "mJ"),
                ("facility", "mj", "Facility energy", "mJ"),
                ("co2e", "ug", "Location-based CO2e", "µg"),
                ("co2e_market", "ug", "Market-based CO2e", "µg"),
                ("water_onsite", "ul", "Water consumed on site", "µL"),
                ("water_offsite", "ul", "Water consumed in generation", "µL"),
            )
            for when, text in (("before", "as published before"), ("after", "as published now"))
        ),
        Field("causes", "VARCHAR", "Which inputs of the run changed"),
        Field("version", "INTEGER", "Number of the migration"),
        Field("migration", "VARCHAR", "Name of the migration"),
        Field("sha256", "VARCHAR", "Digest of the migration's text"),
        Field("applied_at", _T, "When it was applied, UTC"),
        # published views
        *_bounded("energy", "_kwh", "DOUBLE", "GPU energy", "kWh"),
        Field("energy_measured_share", "DOUBLE", "Part of energy_kwh that was measured, 0 to 1"),
        Field("it_kwh", "DOUBLE", "IT energy: GPU + host overhead", "kWh"),
        Field(
            "host_kwh", "DOUBLE", "Part of it_kwh: CPU and memory as the collector gave them", "kWh"
        ),
        Field("host_measured_share", "DOUBLE", "Part of host_kwh that was measured, 0 to 1"),
        *_bounded("facility", "_kwh", "DOUBLE", "Facility energy: IT energy x PUE", "kWh"),
        Field(
            "facility_measured_share",
            "DOUBLE",
            "Part of facility_kwh whose IT energy was measured, 0 to 1",
        ),
        *_bounded("co2e", "_kg", "DOUBLE", "Location-based CO2e (scope 2)", "kg"),
        Field(
            "co2e_measured_share",
            "DOUBLE",
            "Part of co2e_kg with measured energy and a reported intensity, 0 to 1",
        ),
        *_bounded("water_onsite", "_l", "DOUBLE", "Water consumed on site", "L"),
        Field(
            "water_onsite_measured_share",
            "DOUBLE",
            "Part of it that rests on measured energy, 0 to 1",
        ),
        *_bounded(
            "water_offsite", "_l", "DOUBLE", "Water consumed in generating the electricity", "L"
        ),
        Field(
            "water_offsite_measured_share",
            "DOUBLE",
            "Part of it with measured energy and a reported mix, 0 to 1",
        ),
        Field("gpu_hours", "DOUBLE", "GPU time held, weighted by share", "h"),
        Field(
            "filled_kwh",
            "DOUBLE",
            "Part of energy_kwh filled at the board limit for want of readings",
            "kWh",
        ),
        Field("gap_kwh", "DOUBLE", "Part of energy_kwh estimated across gaps", "kWh"),
        Field("hour_start", _T, "Start of the hour, UTC"),
        Field("runs", "BIGINT", "Number of training runs"),
        Field("counter_share", "DOUBLE", "Part of the energy measured by the counter, 0 to 1"),
        Field("power_share", "DOUBLE", "Part measured by integrating power, 0 to 1"),
        Field("gap_share", "DOUBLE", "Part estimated across gaps, 0 to 1"),
        Field("filled_share", "DOUBLE", "Part filled at the board limit, 0 to 1"),
        Field(
            "intensity_reported_share",
            "DOUBLE",
            "Part of the facility energy with a reported intensity, 0 to 1",
        ),
        Field(
            "intensity_estimated_share",
            "DOUBLE",
            "Part with an intensity that the provider estimated, 0 to 1",
        ),
        Field(
            "intensity_fallback_share",
            "DOUBLE",
            "Part with an intensity from a lower rung of the ladder, 0 to 1",
        ),
        Field("energy_share", "DOUBLE", "Part of the run's facility energy, 0 to 1"),
        Field("grid_kwh", "DOUBLE", "Part of facility_kwh taken from the grid", "kWh"),
        Field("onsite_kwh", "DOUBLE", "Part of facility_kwh generated on site", "kWh"),
        Field("contracted_share", "DOUBLE", "Part of grid_kwh that contracts cover, 0 to 1"),
        Field("residual_share", "DOUBLE", "Part of grid_kwh counted with a residual mix, 0 to 1"),
        Field("marginal_share", "DOUBLE", "Part of grid_kwh whose marginal rate is known, 0 to 1"),
        *_bounded("co2e_scope1", "_kg", "DOUBLE", "CO2e of on-site generation (scope 1)", "kg"),
        *_bounded("co2e_market", "_kg", "DOUBLE", "Market-based CO2e (scope 2)", "kg"),
        *_bounded(
            "co2e_losses", "_kg", "DOUBLE", "CO2e of grid losses (scope 3, category 3)", "kg"
        ),
        *_bounded(
            "co2e_marginal",
            "_kg",
            "DOUBLE",
            "Marginal effect of the grid energy whose marginal rate is known",
            "kg",
        ),
        *_bounded(
            "co2e_embodied",
            "_kg",
            "DOUBLE",
            "Embodied CO2e of the hardware for the time held (scope 3)",
            "kg",
        ),
        *_bounded(
            "co2e_total",
            "_kg",
            "DOUBLE",
            "Scope 1, scope 2 location-based, and the parts of scope 3 counted here: grid losses, embodied",
            "kg",
        ),
        *_bounded(
            "water_embodied",
            "_l",
            "DOUBLE",
            "Water consumed in making the GPUs, for the time held",
            "L",
        ),
        *_bounded(
            "water_withdrawal",
            "_l",
            "DOUBLE",
            "Water withdrawn on and off site: beside consumption, never added to it",
            "L",
        ),
        Field(
            "cost",
            "DOUBLE",
            "Cost of the facility energy that has a price, in `currency`; null without a tariff",
        ),
        Field("priced_share", "DOUBLE", "Part of the facility energy that has a price, 0 to 1"),
        Field("family", "VARCHAR", "Label `family`: runs under one model; else the run's model"),
        Field(
            "phase",
            "VARCHAR",
            "Label `phase`: training, development, evaluation, inference; training if it has none",
        ),
        Field(
            "outcome",
            "VARCHAR",
            "Label `outcome`, else from exit code or scheduler: completed, failed, stopped, running, unknown",
        ),
        Field(
            "functional_unit",
            "VARCHAR",
            "Label `functional_unit`: what the run did (token, step, sample, run)",
        ),
        Field("functional_units", "DOUBLE", "Label `functional_units`: how many of it"),
        Field(
            "sci_g_per_unit",
            "DOUBLE",
            "Software carbon intensity per functional unit: (operational + embodied) / units (ISO/IEC 21031)",
            "g",
        ),
        Field("family_share", "DOUBLE", "Part of the family's facility energy, 0 to 1"),
        Field(
            "idle_facility_kwh",
            "DOUBLE",
            "The run's part of the idle and unallocated facility energy of its sites, by GPU time",
            "kWh",
        ),
        Field(
            "idle_co2e_kg", "DOUBLE", "CO2e of that energy (scope 1 and 2, location-based)", "kg"
        ),
        Field("idle_water_l", "DOUBLE", "Water consumed with that energy, on and off site", "L"),
        Field("input", "VARCHAR", "What alone is moved: a meter, a site's figure, a factor"),
        Field("water_low_ul", "BIGINT", "Water consumed with the input at its low", "µL"),
        Field("co2e_at_low_kg", "DOUBLE", "co2e_total_kg with the input at its low", "kg"),
        Field("water_at_low_l", "DOUBLE", "water_l with the input at its low", "L"),
        Field("water_high_ul", "BIGINT", "Water consumed with the input at its high", "µL"),
        Field("co2e_at_high_kg", "DOUBLE", "co2e_total_kg with the input at its high", "kg"),
        Field("water_at_high_l", "DOUBLE", "water_l with the input at its high", "L"),
        Field("water_l", "DOUBLE", "Water consumed on and off site", "L"),
        Field("co2e_swing_kg", "DOUBLE", "How much the input alone moves co2e_total_kg", "kg"),
        Field("water_swing_l", "DOUBLE", "How much the input alone moves water_l", "L"),
        Field("overrides", "VARCHAR", "Factors from wattledger.toml that the figures rest on"),
        Field("location_co2e_kg", "DOUBLE", "Location-based CO2e as it was", "kg"),
        Field(
            "difference",
            "DOUBLE",
            "(co2e_kg - location_co2e_kg) / location_co2e_kg: below zero is cleaner",
        ),
        Field("started_would", _T, "When the run would have started, UTC"),
        Field("is_own_zone", "BOOLEAN", "True where it is a zone that the run was in"),
    )
}


def _table(name: str, grain: str, description: str, columns: str, kind: str = "table") -> Table:
    return Table(name, grain, description, tuple(_FIELDS[c] for c in columns.split()), kind)


_SLOT_ENERGY = (
    "counter_mj power_integral_mj gap_mj gap_low_mj gap_high_mj filled_mj filled_low_mj held_us"
)
_FOOTPRINT_VALUES = (
    "energy_mj energy_low_mj energy_high_mj measured_mj gap_mj filled_mj held_us overhead_mj "
    "it_mj it_low_mj it_high_mj "
    "facility_mj facility_low_mj facility_high_mj facility_measured_mj facility_uncovered_mj "
    "co2e_ug co2e_low_ug co2e_high_ug co2e_measured_ug "
    "water_onsite_ul water_onsite_low_ul water_onsite_high_ul water_onsite_measured_ul "
    "water_offsite_ul water_offsite_low_ul water_offsite_high_ul water_offsite_measured_ul "
    "host_mj host_measured_mj "
    "grid_mj grid_low_mj grid_high_mj onsite_mj "
    "co2e_scope1_ug co2e_scope1_low_ug co2e_scope1_high_ug "
    "co2e_market_ug co2e_market_low_ug co2e_market_high_ug contracted_mj residual_mj "
    "co2e_marginal_ug co2e_marginal_low_ug co2e_marginal_high_ug marginal_mj "
    "co2e_losses_ug co2e_losses_low_ug co2e_losses_high_ug "
    "co2e_embodied_ug co2e_embodied_low_ug co2e_embodied_high_ug "
    "water_embodied_ul water_embodied_low_ul water_embodied_high_ul "
    "water_withdrawal_ul water_withdrawal_low_ul water_withdrawal_high_ul "
    "cost_micro priced_mj"
)

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        _table(
            "schema_migration",
            "one migration",
            "Migrations applied to this file",
            "version migration sha256 applied_at",
        ),
        _table(
            "gpu",
            "one physical GPU",
            "GPUs seen in readings or declared in wattledger.toml",
            "gpu_key gpu_uuid host gpu_index model",
        ),
        _table(
            "segment",
            "one file of readings",
            "Every file ever offered, with its verdict: the catalogue behind exactly-once loading",
            "segment_key segment_id source_name source_format sample verdict rows_read rows_loaded rows_duplicate rows_skipped "
            "sample_period_ms first_ts last_ts loaded_at collector",
        ),
        _table(
            "segment_profile",
            "one GPU in one segment",
            "What the gate looked at before it let a segment in",
            "segment_id source_name gpu_uuid rows_read first_ts last_ts null_power null_energy no_value min_power_mw max_power_mw "
            "limit_mw max_counter_mw min_util_pct max_util_pct negative_energy steps_back duplicates conflicts counter_resets longest_gap_ms "
            "future_s floor_mw compared_counter_mj compared_power_mj usual_step_ms",
        ),
        _table(
            "gpu_reading",
            "one reading of one GPU",
            "Readings, each exactly once; ordered by GPU and time inside a segment",
            "gpu_key ts power_mw energy_mj util_pct mem_used_mib temp_c sm_clock_mhz power_source_code segment_key "
            "power_average_mw mem_temp_c power_limit_mw throttle_reasons",
        ),
        _table(
            "collector_event",
            "one event",
            "What happened on a node while it was recorded: GPUs lost, driver reloads, slow calls",
            "host gpu_uuid ts event detail segment_key",
        ),
        _table(
            "gpu_instance",
            "one MIG instance",
            "MIG instances and the share of their GPU that they are; the GPU is metered once",
            "instance_uuid gpu_uuid share_ppm",
        ),
        _table(
            "host_reading",
            "one interval of one part of one host",
            "Energy of CPU and memory, measured (RAPL) or modelled by codecarbon",
            "host component ts span_us energy_mj is_modelled method segment_key",
        ),
        _table(
            "run_record",
            "one process of a run on one host",
            "What `wattledger run` and `wattledger.track` wrote; runs are made of them",
            "record_id run_id host started_at ended_at exit_code record source_name loaded_at",
        ),
        _table(
            "training_run",
            "one revision of one run",
            "Training runs; revisions are kept",
            "run_id name owner run_model started_at ended_at labels source_name loaded_at superseded_at",
        ),
        _table(
            "run_allocation",
            "one revision of one GPU held by one run",
            "Which run held which GPU, when, and what share of it",
            "run_id gpu_uuid from_ts to_ts share_ppm loaded_at superseded_at",
        ),
        _table(
            "grid_intensity",
            "one revision of one interval of one signal in one zone",
            "Carbon intensity series, bitemporal: what was valid when, and when it was known",
            "zone valid_from valid_to signal intensity_g_per_kwh intensity_low_g_per_kwh intensity_high_g_per_kwh source is_estimated fetched_at superseded_at feed",
        ),
        _table(
            "grid_mix",
            "one revision of one fuel in one interval in one zone",
            "Generation per fuel, bitemporal; carbon and water intensity are derived from it by factors",
            "zone valid_from valid_to fuel generation_kw source is_estimated fetched_at superseded_at feed",
        ),
        _table(
            "grid_fetch",
            "attempts in a row with one outcome for one feed and zone",
            "Every attempt to fetch grid data, with what became of it",
            "feed provider zone first_ts last_ts outcome reason first_attempt_at last_attempt_at attempts "
            "intervals changed",
        ),
        _table(
            "site",
            "one site in one period",
            "Sites as configured when the figures were computed",
            "site zone pue pue_low pue_high wue_l_per_kwh wue_low_l_per_kwh wue_high_l_per_kwh overhead_mw_per_gpu "
            "overhead_low_mw_per_gpu overhead_high_mw_per_gpu valid_from valid_to "
            "rest_mw_per_gpu rest_low_mw_per_gpu rest_high_mw_per_gpu "
            "onsite_share onsite_share_low onsite_share_high "
            "onsite_g_per_kwh onsite_low_g_per_kwh onsite_high_g_per_kwh "
            "onsite_l_per_kwh onsite_low_l_per_kwh onsite_high_l_per_kwh "
            "server gpus_per_server withdrawal_ratio withdrawal_ratio_low withdrawal_ratio_high",
        ),
        _table(
            "zone",
            "one grid zone",
            "Zones as configured when the figures were computed",
            "zone country signal ladder loss loss_low loss_high",
        ),
        _table(
            "contract",
            "one contract for electricity",
            "Contracts and certificates, for the market-based figure",
            "contract position site instrument matching share energy_kwh intensity_g_per_kwh "
            "intensity_low_g_per_kwh intensity_high_g_per_kwh valid_from valid_to source",
        ),
        _table(
            "contract_delivery",
            "one interval of one contract",
            "What a contract delivered, hour by hour",
            "contract valid_from valid_to energy_kwh",
        ),
        _table(
            "contract_slot",
            "one contract in one slot",
            "What share of its site's grid energy a contract covers",
            "contract site slot_start covered_ppm",
        ),
        _table(
            "tariff",
            "one price for some hours at one site",
            "Prices of electricity as configured; of those that fit, the last counts",
            "site position price_per_kwh currency from_hour to_hour weekdays tz valid_from valid_to source",
        ),
        _table(
            "gpu_embodied",
            "one GPU",
            "Embodied carbon and water of a GPU and its part of the server, per hour held",
            "gpu_key gpus_per_server embodied_ug_per_h embodied_low_ug_per_h embodied_high_ug_per_h "
            "embodied_ul_per_h embodied_low_ul_per_h embodied_high_ul_per_h",
        ),
        _table(
            "host",
            "one host",
            "Hosts and their sites as configured when the figures were computed",
            "host site",
        ),
        _table(
            "factor",
            "one factor for one scope",
            "Factors used, each with its source; overrides from wattledger.toml are marked",
            "factor scope value low high unit source licence origin year valid_from valid_to",
        ),
        _table(
            "factor_use",
            "one factor that one run rests on",
            "Which factors the figures of each run used",
            "kind run_id factor scope origin",
        ),
        _table(
            "quarantine",
            "one refused file",
            "What was refused, why, and where it is kept",
            "segment_id source_name suite reason kept_path recorded_at",
        ),
        _table(
            "validation_run",
            "one execution of a suite",
            "Executions of the checks",
            "validation_id suite recorded_at success checked_rows",
        ),
        _table(
            "validation_result",
            "one check in one execution",
            "What each check said",
            "validation_id suite check_name severity statement success unexpected_rows examples",
        ),
        _table(
            "second_meter",
            "one run as a second meter saw it",
            "What another meter says of runs that the ledger measures itself",
            "meter meter_run_id label started_at ended_at gpu_mj cpu_mj dram_mj segment_key",
        ),
        _table(
            "meter_reading",
            "one interval of one meter of a host or a site",
            "What other meters say: PDU, IPMI, the utility's bill",
            "meter scope metered valid_from valid_to energy_mj source_name segment_key",
        ),
        _table(
            "gpu_slot",
            "one GPU in one slot",
            "Metered energy, before any attribution",
            "gpu_key slot_start counter_mj power_integral_mj gap_mj covered_us gap_us readings counter_resets",
        ),
        _table(
            "host_slot",
            "one host in one slot",
            "Energy of CPU and memory, before it is shared out over the GPUs of the host",
            "host slot_start host_mj host_modelled_mj metered_us",
        ),
        _table(
            "host_energy_slot",
            "one host in one slot",
            "IT energy of a host: GPUs, CPU and memory, and what its site's model adds",
            "host slot_start it_mj it_low_mj it_high_mj",
        ),
        _table(
            "energy_slot",
            "one run (or idle, or unallocated) on one GPU in one slot",
            "Attributed energy; adds up to gpu_slot to the millijoule",
            f"kind run_id gpu_key slot_start {_SLOT_ENERGY} energy_mj energy_low_mj energy_high_mj measured_mj",
        ),
        _table(
            "slot_signal",
            "one zone in one slot",
            "Intensities used, and how much of each slot was reported, estimated or filled",
            "zone slot_start intensity_g_per_kwh intensity_low_g_per_kwh intensity_high_g_per_kwh series_ppm estimated_ppm fallback_ppm "
            "ewif_l_per_kwh ewif_low_l_per_kwh ewif_high_l_per_kwh ewif_series_ppm "
            "marginal_g_per_kwh marginal_low_g_per_kwh marginal_high_g_per_kwh "
            "residual_g_per_kwh residual_low_g_per_kwh residual_high_g_per_kwh "
            "withdrawal_l_per_kwh withdrawal_low_l_per_kwh withdrawal_high_l_per_kwh",
        ),
        _table(
            "slot_source",
            "one source of one quantity in one zone and slot",
            "What each intensity rests on: rung of the ladder, feed and source",
            "zone slot_start quantity rung feed source is_estimated covered_us",
        ),
        _table(
            "footprint_slot",
            "one run (or idle, or unallocated) at one site in one slot",
            "Energy, carbon and water by slot",
            f"kind run_id site zone slot_start gpus {_FOOTPRINT_VALUES}",
        ),
        _table(
            "run_footprint",
            "one run (or idle, or unallocated)",
            "Energy, carbon and water by run, in integers",
            f"kind run_id first_slot last_slot gpus {_FOOTPRINT_VALUES}",
        ),
        _table(
            "run_alternative",
            "one run at another time or in another zone",
            "What the same energy would have emitted; only finished runs. Null CO2e: not all of that "
            "time is covered by a series",
            "run_id zone shift_h covered_ppm co2e_ug",
        ),
        _table(
            "run_sensitivity",
            "one input of one run",
            "Totals of a run (scopes 1 to 3; water consumed) with one input at its low and at its high",
            "run_id input co2e_low_ug co2e_high_ug water_low_ul water_high_ul",
        ),
        _table(
            "conservation",
            "one GPU",
            "Metered energy against attributed + idle + unallocated",
            "gpu_key metered_mj attributed_mj idle_mj unallocated_mj difference_mj",
        ),
        _table(
            "computation",
            "the last computation",
            "From which inputs and factors the candidate figures were computed",
            "computed_at method_version input_digest factor_digest",
        ),
        _table(
            "publication",
            "one publication",
            "The ledger of publications; each row holds the digest of the one before",
            "publication_id sequence published_at sample method_version code_version input_digest factor_digest validation_digest output_digest previous_digest digest "
            "settings_digest code_digest reason manifest_sha256",
        ),
        _table(
            "setting",
            "one table of wattledger.toml",
            "The settings of the last computation, and the thresholds of the last gate",
            "section value_json",
        ),
        _table(
            "segment_digest",
            "one table's rows of one segment",
            "Digests of stored readings, taken before they were first published",
            "segment_key table_name row_count content_sha256",
        ),
        _table(
            "kept_input",
            "one part of one table of the warehouse",
            "Digests of what the figures rest on and this file does not hold: readings, grid data",
            "table_name part row_count content_sha256",
        ),
        _table(
            "gpu_piece",
            "one unbroken stretch of rolled-up readings of one GPU in one slot",
            "What the energy of readings that are gone adds up to, exactly (transforms/energy.py)",
            "gpu_key slot readings power_dnj first_t first_p first_c first_averaged last_t last_p last_c "
            "last_averaged segment_key",
        ),
        _table(
            "segment_piece",
            "one stretch of one GPU within a slot, of one segment",
            "Readings reduced to unbroken stretches, kept from one computation to the next (warehouse only)",
            "gpu_key slot readings power_dnj first_t first_p first_c first_averaged "
            "last_t last_p last_c last_averaged segment_key",
        ),
        _table(
            "reduced_segment",
            "one segment whose stretches are kept",
            "Which segments are reduced, and by which rule (warehouse only)",
            "segment_key max_gap_us",
        ),
        _table(
            "device_energy",
            "one run (or idle, unallocated, metered) on one GPU",
            "What each GPU drew, and who held it, in sum: kept up to date by what changes (warehouse only)",
            "kind run_id gpu_key slots counter_mj power_integral_mj gap_mj filled_mj",
        ),
        _table(
            "site_energy_slot",
            "one run (or idle, or unallocated) in one host group in one slot",
            "Energy by site before PUE and grid: what the figures of a site are made of (warehouse only)",
            "kind run_id site host_group slot_start gpus energy_mj energy_low_mj energy_high_mj measured_mj gap_mj "
            "filled_mj host_mj host_measured_mj host_low_mj host_high_mj "
            "co2e_embodied_ug co2e_embodied_low_ug co2e_embodied_high_ug "
            "water_embodied_ul water_embodied_low_ul water_embodied_high_ul held_us metered_us",
        ),
        _table(
            "computed_segment",
            "one file",
            "Files whose readings the candidate figures are made from (warehouse only)",
            "segment_key",
        ),
        _table(
            "computed_span",
            "one allocation",
            "Allocations as the candidate figures took them; those without an end last until as_of (warehouse only)",
            "run_id gpu_key from_us to_us share_ppm",
        ),
        _table(
            "computed_device",
            "one device",
            "What the candidate figures took each device to be (warehouse only)",
            "gpu_key facts",
        ),
        *(
            _table(
                f"turn_{what}",
                "the table",
                f"Counts transactions that {does}, so that two at once can't both count on a lake (warehouse only)",
                "taken",
            )
            for what, does in (("load", "load data"), ("figures", "write figures"))
        ),
        _table(
            "computed_facts",
            "the last computation",
            "Digest of settings, factors, method and code of the candidate figures (warehouse only)",
            "facts as_of",
        ),
        _table(
            "rolled_up",
            "one segment whose readings were rolled up",
            "Which readings are gone, under which policy, with the digest that they were published with",
            "segment_key segment_id rolled_up_at after_days max_gap_us readings readings_sha256 readings_left pieces",
        ),
        _table(
            "gate_override",
            "one check that was overridden for one publication",
            "Who let figures pass that a check refuses, and why",
            "publication_id suite check_name overridden_by reason unexpected_rows recorded_at",
        ),
        _table(
            "restatement",
            "one run whose figures a publication changed",
            "What each publication restates of the one before; null where the run is in one of them only",
            "publication_id previous_id run_id energy_before_mj energy_after_mj facility_before_mj "
            "facility_after_mj co2e_before_ug co2e_after_ug co2e_market_before_ug co2e_market_after_ug water_onsite_before_ul water_onsite_after_ul "
            "water_offsite_before_ul water_offsite_after_ul causes",
        ),
        _table(
            "run_summary",
            "one training run",
            "Energy, carbon and water of every run, with bounds and measured share",
            "run_id name owner run_model started_at ended_at gpus gpu_hours "
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
            "sci_g_per_unit overrides",
            "view",
        ),
        _table(
            "run_label",
            "one training run",
            "What the labels of a run say of its place among others (docs/formats.md)",
            "run_id family phase outcome functional_unit functional_units",
            "view",
        ),
        _table(
            "family_summary",
            "one phase and outcome of one family of runs",
            "What a model cost with its experiments, restarts and failures",
            "family phase outcome runs gpu_hours facility_kwh co2e_total_kg co2e_total_low_kg "
            "co2e_total_high_kg water_onsite_l water_offsite_l cost family_share",
            "view",
        ),
        _table(
            "idle_spread",
            "one training run",
            "Idle and unallocated energy of a site, divided among its runs by GPU time; in no figure of a run",
            "run_id gpu_hours idle_facility_kwh idle_co2e_kg idle_water_l",
            "view",
        ),
        _table(
            "fleet_summary",
            "one kind of use",
            "What runs used, what lay idle, what no share covered",
            "kind runs gpu_hours energy_kwh facility_kwh co2e_kg water_onsite_l water_offsite_l",
            "view",
        ),
        _table(
            "energy_by_hour",
            "one run (or idle, or unallocated) in one hour",
            "Energy, carbon and water over time",
            "hour_start kind run_id energy_kwh facility_kwh co2e_kg water_onsite_l water_offsite_l",
            "view",
        ),
        _table(
            "gpu_energy",
            "one run (or idle, or unallocated) on one GPU",
            "Energy by GPU",
            "host gpu_uuid model kind run_id gpu_hours energy_kwh energy_low_kwh energy_high_kwh energy_measured_share",
            "view",
        ),
        _table(
            "data_quality",
            "one run",
            "What each run's figures rest on",
            "run_id counter_share power_share gap_share filled_share intensity_reported_share "
            "intensity_estimated_share intensity_fallback_share",
            "view",
        ),
        _table(
            "intensity_sources",
            "one source of one run's intensity",
            "What share of each run's energy each rung of the ladder covered",
            "run_id quantity rung feed source is_estimated energy_share",
            "view",
        ),
        _table(
            "alternatives",
            "one run at another time or in another zone",
            "When and where would a finished run have been cleaner",
            "run_id zone is_own_zone shift_h started_would co2e_kg location_co2e_kg difference",
            "view",
        ),
        _table(
            "sensitivity",
            "one input of one run",
            "Which input moves a run's totals most, each alone between its low and its high",
            "run_id input co2e_total_kg co2e_at_low_kg co2e_at_high_kg co2e_swing_kg "
            "water_l water_at_low_l water_at_high_l water_swing_l",
            "view",
        ),
        _table(
            "meter_agreement",
            "one run as a second meter saw it",
            "Our energy of a run beside a second meter's; run_id is null where no run fits",
            "meter meter_run_id label run_id started_at ended_at meter_gpu_kwh energy_kwh "
            "gpu_difference meter_host_kwh host_kwh",
            "view",
        ),
        _table(
            "reading_completeness",
            "one GPU in one hour in which it was recorded",
            "Readings that the recorder's period promises, and those that are there",
            "host gpu_uuid hour_start readings_expected readings_received completeness",
            "view",
        ),
        _table(
            "meter_reconciliation",
            "one interval of a meter of a host or a site",
            "What another meter says, beside the ledger: IT energy of a host, facility energy of a site",
            "meter scope metered valid_from valid_to meter_kwh ledger_kwh ledger_low_kwh ledger_high_kwh "
            "meter_difference covered_share source_name",
            "view",
        ),
        _table(
            "gpu_readings",
            "one reading of one GPU",
            "Readings with the names of GPU, host and file (warehouse only)",
            "ts host gpu_uuid power_mw energy_mj util_pct mem_used_mib temp_c sm_clock_mhz power_source segment_id source_name "
            "power_average_mw mem_temp_c power_limit_mw throttle_reasons",
            "view",
        ),
    )
}
