"""What is recorded: devices, files of readings, readings, other meters, runs."""

from __future__ import annotations

from transforms.schema.model import TIMESTAMP, Field

FIELDS: tuple[Field, ...] = (
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
    Field("segment_id", "VARCHAR", "SHA-256 of the file's bytes: the unit of exactly-once loading"),
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
    Field("first_ts", TIMESTAMP, "Time of the first reading or interval, UTC"),
    Field("last_ts", TIMESTAMP, "Time of the last reading, or end of the last interval, UTC"),
    Field("loaded_at", TIMESTAMP, "When this row was written, UTC"),
    Field(
        "superseded_at",
        TIMESTAMP,
        "When a later revision replaced this row, UTC; null while current",
    ),
    # readings
    Field("ts", TIMESTAMP, "Time of the reading, UTC"),
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
    Field(
        "owner_uid", "BIGINT", "User of the node for whom the record speaks; null for old records"
    ),
    Field(
        "is_vouched", "BOOLEAN", "Whether root, or the user who runs the pipeline, wrote the record"
    ),
    Field("record_sha256", "VARCHAR", "SHA-256 of the file of a run record"),
    Field("seen_at", TIMESTAMP, "When the host's collector saw the finished record, UTC"),
    Field("public_key", "VARCHAR", "Ed25519 public key of a host's collector, in hexadecimal"),
    Field("accepted_by", "VARCHAR", "Who accepted the key: first sight, or a person"),
    Field("accepted_at", TIMESTAMP, "Since when the key counts for the host, UTC"),
    Field(
        "segment_sequence",
        "BIGINT",
        "Number of the segment in the chain of its host and key, from 1",
    ),
    Field(
        "previous_sha256",
        "VARCHAR",
        "Digest of the segment before it in the chain; empty for the first",
    ),
    Field(
        "signature", "VARCHAR", "Ed25519 signature of host, sequence and digests, in hexadecimal"
    ),
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
    Field(
        "board_limit_mw", "BIGINT", "Largest power limit that the readings tell of this GPU", "mW"
    ),
    Field(
        "limit_from",
        "VARCHAR",
        "What its power limit is of: readings (they tell it), board (exactly this one), class or default",
    ),
    Field("blank_values", "BIGINT", "Values that stood for missing ones and are unknown"),
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
    Field(
        "state",
        "VARCHAR",
        "`ended`; `open` (it goes on); `no readings` (nobody metered it: all is filled); `not begun` at the last "
        "reading; `holds nothing` (no time, or no GPU). The last two have no figures",
    ),
    Field(
        "flags",
        "VARCHAR",
        "What to know before the figure is used: a board whose limit is known by its class only, shares that were "
        "assumed, records that were counted once or may count twice; null where there is nothing",
    ),
    Field("owner", "VARCHAR", "Person or team"),
    Field("run_model", "VARCHAR", "Model that the run trains"),
    Field("labels", "VARCHAR", "Free labels as a JSON object"),
    Field("started_at", TIMESTAMP, "Start of the run, UTC"),
    Field("ended_at", TIMESTAMP, "End of the run, UTC; null while it goes on"),
    Field("from_ts", TIMESTAMP, "Start of the allocation, UTC"),
    Field("to_ts", TIMESTAMP, "End of the allocation, UTC; null while it goes on"),
    Field("share_ppm", "INTEGER", "Share of the GPU in parts per million", "ppm"),
)
