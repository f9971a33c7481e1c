"""`nvidia-smi --query-gpu=... --format=csv` logs, as people really have them.

With or without units, header repeated or absent, values not available, columns in any order, the
last line cut; and logs that name no GPU at all, where the devices come in order, sweep by sweep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.files import open_plain_text, scan_lines, split_fields
from flows.rows import MISSING, RowFaults
from flows.sources.gpu.staged import (
    STAGED,
    Staged,
    convert_to_milliwatts,
    drop_out_of_range,
    write_staged,
)

FORMAT = "nvidia-smi"

_POWER = {
    "power.draw.instant": "instant",
    "power.draw.average": "average_1s",
    "power.draw": "unknown",
}
"""Best first. What plain power.draw means depends on GPU and driver."""

_ALIASES = {
    "gpu_uuid": ["uuid", "gpu_uuid"],
    "gpu_index": ["index"],
    "bus": ["pci.bus_id", "gpu_bus_id"],
    "model": ["name", "gpu_name"],
    **{power: [power] for power in _POWER},
    "energy_mj": ["total_energy_consumption", "energy.total"],
    "util_pct": ["utilization.gpu"],
    "mem_used_mib": ["memory.used"],
    "temp_c": ["temperature.gpu"],
    "sm_clock_mhz": ["clocks.current.sm", "clocks.sm"],
}
_NUMBERS = ["energy_mj", "util_pct", "mem_used_mib", "temp_c", "sm_clock_mhz"]

_WAITS = 0.97
"""Of the steps between rows, one in 33 at the least is a wait between sweeps (up to 32 GPUs)."""


@dataclass(frozen=True)
class Options:
    """What the log itself does not say."""

    host: str = ""
    tz: str = ""
    model: str = ""
    gpus: int = 0
    """Devices per sweep, for logs that name no GPU; 0 = infer from the rhythm of the rows."""


def _parse_header(line: str) -> list[str]:
    return [re.sub(r"\s*\[.*?\]", "", part).strip(" \t\r\n\"'").lower() for part in line.split(",")]


def read(path: Path, staged: Staged, options: Options) -> Staged:
    """Read a log into a staged file.

    Args:
        path: The log, as text in UTF-8 or UTF-16, or packed with gzip.
        staged: What becomes of it.
        options: What the log itself does not say.

    Returns:
        `staged`, its file written.

    Raises:
        BadInput: anything that keeps a value from being understood, with row and column.
        UsageError: the log names no host and none was given.
    """
    with open_plain_text(path, staged.path.parent) as plain:
        header_line = _first_line(plain)
        names = _parse_header(header_line)
        _check_header(path, header_line, names)
        columns = _choose_columns(names)
        lines = (
            scan_lines(plain)
            .filter(pl.col("line").str.strip_chars() != "")
            .with_columns(split_fields(len(names)))
            .with_columns(
                repeated=pl.col("f0").str.to_lowercase().str.strip_chars() == names[0],
            )
            .collect(engine="streaming")
        )
        ended = _ends_with_newline(plain)
    faults = staged.faults
    faults.skip("repeated headers", lines.filter("repeated").height - 1)
    rows = (
        lines.with_columns(header=pl.col("repeated").cum_sum())
        .filter(~pl.col("repeated"))
        # A row that is set aside keeps its place in the sweep.
        .with_columns(place=pl.int_range(pl.len()).over("header"))
    )
    if rows.height == 0:
        raise BadInput("there is a header but no reading", where=str(path), remedy="Record again")
    total = rows.height
    rows, cut = _drop_cut_line(rows, len(names), ended)
    faults.skip("last line, cut while it was written", cut)
    rows = faults.drop_ragged(rows, len(names))
    faults.check(total)
    frame = rows.select(
        "row_no",
        "header",
        "place",
        timestamp=f"f{names.index('timestamp')}",
        **{k: f"f{names.index(v)}" for k, v in columns.items()},
    )
    by = next((name for name in ("gpu_uuid", "gpu_index", "bus") if name in columns), "")
    frame = faults.parse_times(frame, "timestamp", options.tz, by=by)
    readings = _parse_values(frame, columns, path, faults)
    faults.check(total)
    readings = _add_identity(readings, columns, path, options, faults)
    faults.check(total)
    staged.format = FORMAT
    return write_staged(readings, staged)


def _first_line(plain: Path) -> str:
    with plain.open(encoding="utf-8-sig") as file:
        return next((line for line in file if line.strip()), "")


def _ends_with_newline(plain: Path) -> bool:
    with plain.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _check_header(path: Path, line: str, names: list[str]) -> None:
    if len(names) < 2:
        other = next((d for d in (";", "\t", "|") if d in line), None)
        if other is not None:
            raise BadInput(
                f"fields are separated by {other!r}",
                where=locate(path, 1),
                remedy="nvidia-smi writes commas; convert the file, or map it under [sources.NAME]",
            )
    if "timestamp" not in names or not any(name in names for name in _POWER):
        missing = "timestamp" if "timestamp" not in names else "power.draw"
        raise BadInput(
            f"no column {missing!r}",
            where=locate(path, 1, value=line.strip()),
            remedy="Record with --query-gpu=timestamp,index,uuid,name,power.draw,... or describe "
            "the columns under [sources.NAME] in wattledger.toml and pass --source NAME",
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"column {sorted(twice)[0]!r} stands twice", where=locate(path, 1))


def _choose_columns(names: list[str]) -> dict[str, str]:
    """Column of STAGED -> its name in the header, for those that are there."""
    columns = {}
    for ours, theirs in _ALIASES.items():
        name = next((name for name in theirs if name in names), None)
        if name:
            columns[ours] = name
    return columns


def _drop_cut_line(rows: pl.DataFrame, width: int, ended: bool) -> tuple[pl.DataFrame, int]:
    """Leave out a last line that was cut while it was written."""
    last = rows.row(-1, named=True)
    short = last["fields"] < width
    if rows.height > 1 and not short and not ended:
        before = rows.row(-2, named=True)
        tail = f"f{width - 1}"
        unit = re.search(r"[A-Za-z%]+\]?$", before[tail] or "")
        short = bool(unit) and not re.search(r"[A-Za-z%]+\]?$", last[tail] or "")
        short |= not last[tail]
    if short and rows.height > 1:
        return rows.head(-1), 1
    return rows, 0


def _parse_values(
    frame: pl.DataFrame, columns: dict[str, str], path: Path, faults: RowFaults
) -> pl.DataFrame:
    """Parse numbers; values that the driver did not have are null, and the best power of each row counts."""
    powers = [name for name in _POWER if name in columns]
    numbers = [*powers, *(name for name in _NUMBERS if name in columns)]
    text = [name for name in ("gpu_uuid", "gpu_index", "bus", "model") if name in columns]
    parsed = frame.with_columns(
        pl.when(pl.col(name).str.contains(MISSING) | (pl.col(name) == ""))
        .then(None)
        .otherwise(pl.col(name))
        .alias(name)
        for name in text
    )
    remedy = "Remove or fix the line; [N/A] stands for a value that was not available"
    for name in numbers:
        parsed = faults.parse_numbers(
            parsed, name, to=f"{name}_n", field=columns[name], remedy=remedy
        )
    known = [pl.col(f"{name}_n").is_not_null() for name in powers]
    result = parsed.with_columns(
        power_mw=convert_to_milliwatts(pl.coalesce(f"{name}_n" for name in powers), "W"),
        power_source=pl.coalesce(
            pl.when(is_known).then(pl.lit(_POWER[name]))
            for name, is_known in zip(powers, known, strict=True)
        ).fill_null("unknown"),
        **{
            name: pl.col(f"{name}_n").round() if name in columns else pl.lit(None, pl.Float64)
            for name in _NUMBERS
        },
    )
    for name in ("power_mw", *_NUMBERS):
        result = drop_out_of_range(result, name, faults)
    no_power = result.height > 0 and result["power_mw"].null_count() == result.height
    if no_power and "energy_mj" not in columns:
        raise BadInput(
            "no reading has a power",
            where=locate(path, column=columns[powers[0]], value=frame[powers[0]][0]),
            remedy="This GPU or driver does not report power, so there is nothing to account",
        )
    return result.with_columns(pl.col(name).cast(STAGED[name]) for name in ("power_mw", *_NUMBERS))


def _add_identity(
    readings: pl.DataFrame,
    columns: dict[str, str],
    path: Path,
    options: Options,
    faults: RowFaults,
) -> pl.DataFrame:
    """Add host, model, gpu_index and gpu_uuid: from the row, or by its place in the sweep."""
    host = options.host
    if not host and "gpu_uuid" not in columns:
        raise UsageError(
            "the log does not say which host it is from",
            where=str(path),
            remedy="Name it with --host, for example --host node01",
        )
    model = pl.col("model") if "model" in columns else pl.lit(options.model or None, pl.String)
    index = _number_gpus(readings, columns, path, options)
    named = readings.with_columns(gpu_index=index, model=model, host=pl.lit(host or "unknown"))
    if "gpu_uuid" in columns:
        missing = pl.col("gpu_uuid").is_null()
        return faults.drop(
            named, missing, "no GPU UUID", field="uuid", remedy="Remove or fix the line"
        )
    named = faults.drop(
        named,
        pl.col("gpu_index").is_null(),
        "not a GPU index",
        field="index",
        remedy="Remove or fix the line",
    )
    return named.with_columns(gpu_uuid=pl.format("{}/gpu{}", "host", "gpu_index"))


def _number_gpus(
    readings: pl.DataFrame, columns: dict[str, str], path: Path, options: Options
) -> pl.Expr:
    """The index of each row's GPU: as logged, by the order of buses, or by the place in the sweep."""
    if "gpu_index" in columns:
        return pl.col("gpu_index").cast(pl.Int32, strict=False)
    if "bus" in columns:
        order = {bus: i for i, bus in enumerate(sorted(readings["bus"].drop_nulls().unique()))}
        return pl.col("bus").replace_strict(order, default=None, return_dtype=pl.Int32)
    if "gpu_uuid" in columns:
        return pl.lit(None, pl.Int32)
    count = options.gpus or infer_gpus(readings)
    _check_sweeps(readings, count, path)
    return (pl.col("place") % count).cast(pl.Int32)


def infer_gpus(readings: pl.DataFrame) -> int:
    """How many GPUs a sweep has, from the rhythm of the rows.

    nvidia-smi writes all devices within a few milliseconds and then waits. The usual number of
    rows between two waits is the number of devices.

    Args:
        readings: `ts`, in the order of the file.
    """
    step = readings["ts"].diff().dt.total_microseconds().fill_null(0)
    if step.max() in (0, None):
        return readings.height
    # A wait is nearer to the longest usual step than to zero.
    usual = step.filter(step > 0).quantile(_WAITS) or 1
    starts = pl.select(pl.arg_where(pl.lit(step) > usual / 2)).to_series()
    if starts.len() < 2:
        return int(starts[0]) if starts.len() else readings.height
    return int(starts.cast(pl.Int64).diff().drop_nulls().mode().min())  # type: ignore[arg-type]


def _check_sweeps(readings: pl.DataFrame, count: int, path: Path) -> None:
    """Refuse a log whose rows do not come `count` to a sweep, naming the first odd one."""
    place = readings.select(
        "row_no",
        step=pl.col("ts").diff().dt.total_microseconds().over("header"),
        place=pl.col("place") % count,
    )
    starts = place.filter(pl.col("place") == 0).drop_nulls("step")
    period = place.filter(pl.col("step") > 0)["step"].quantile(_WAITS)
    if count == 1 or period is None:
        return
    # A wait within a sweep means nothing (a device can be slow to answer), but a device that
    # goes missing moves the waits away from the first place in all sweeps after it.
    odd = starts.with_columns(
        waited=(pl.col("step") > period / 2).cast(pl.Float64).rolling_mean(9, min_samples=5)
    ).filter(pl.col("waited") < 0.5)
    if odd.height:
        raise BadInput(
            f"the rows do not come {count} to a sweep here, so their GPUs cannot be told",
            where=locate(path, odd["row_no"][0]),
            remedy="Record with index or uuid among the columns, or say --gpus-per-sweep N",
        )
