"""Logs of nvidia-smi as people really have them: CSV of --query-gpu here, `dmon` and XML by their own modules.

With or without units, headers repeated or changed, values not available, columns in any order, lines
cut or joined, messages in between; and logs that name no GPU at all, where the devices come in
order, sweep by sweep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.files import open_plain_text, scan_lines, split_fields
from flows.rows import MISSING, RowFaults
from flows.sources.gpu import smi_dmon, smi_xml
from flows.sources.gpu.recognise import MESSAGE, explain_unknown
from flows.sources.gpu.smi_dmon import is_dmon, read_dmon
from flows.sources.gpu.smi_xml import is_xml, read_xml
from flows.sources.gpu.staged import (
    STAGED,
    Staged,
    drop_blanks,
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
_LIMITS = ["enforced.power.limit", "power.limit", "power.default_limit", "power.max_limit"]
"""The limit in force first; the largest that could be set last."""

_ALIASES = {
    "timestamp": ["timestamp"],
    "gpu_uuid": ["uuid", "gpu_uuid"],
    "gpu_index": ["index", "gpu_index"],
    "bus": ["pci.bus_id", "gpu_bus_id"],
    "model": ["name", "gpu_name"],
    **{power: [power] for power in _POWER},
    **{limit: [limit] for limit in _LIMITS},
    "energy_mj": ["total_energy_consumption", "energy.total"],
    "util_pct": ["utilization.gpu", "utilization.gpu_pct"],
    "mem_used_mib": ["memory.used"],
    "temp_c": ["temperature.gpu"],
    "sm_clock_mhz": ["clocks.current.sm", "clocks.sm"],
}
_NUMBERS = ["energy_mj", "util_pct", "mem_used_mib", "temp_c", "sm_clock_mhz"]
_UNITS = {
    "power": {"": 1000.0, "w": 1000.0, "mw": 1.0, "kw": 1e6},
    "energy_mj": {"": 1.0, "mj": 1.0, "j": 1e3, "kj": 1e6, "wh": 3.6e6, "kwh": 3.6e9},
    "util_pct": {"": 1.0, "%": 1.0},
    "mem_used_mib": {"": 1.0, "mib": 1.0, "mb": 1.0, "gib": 1024.0, "kib": 1 / 1024},
    "temp_c": {"": 1.0, "c": 1.0, "\N{DEGREE SIGN}c": 1.0},
    "sm_clock_mhz": {"": 1.0, "mhz": 1.0, "ghz": 1000.0},
}
"""Quantity -> unit -> what one is, in the unit of STAGED (power: milliwatts)."""
_UNIT = r"[\[(]\s*(.*?)\s*[\])]\s*$"
_FIRST_LINES, _MOST_LAYOUTS = 1000, 50
"""Lines before which a header must come, and how many different headers a log may have."""

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


@dataclass(frozen=True)
class _Layout:
    """A header: what stands in which field."""

    names: list[str]
    """As the file has them."""
    columns: dict[str, int]
    """What is read -> its field."""
    units: dict[str, str]
    """What is read -> the unit that the header gives."""
    separator: str


def read(path: Path, staged: Staged, options: Options) -> Staged:
    """Read a log into a staged file.

    Args:
        path: The log, as text in UTF-8 or UTF-16, or packed with gzip: CSV of --query-gpu, `dmon`, or XML of -q -x.
        staged: What becomes of it.
        options: What the log itself does not say.

    Returns:
        `staged`, its file written.

    Raises:
        BadInput: anything that keeps a value from being understood, with row and column.
        UsageError: the log names no host and none was given.
    """
    faults = staged.faults
    units: dict[str, str] = {}
    with open_plain_text(path, staged.path.parent) as plain:
        first = _first_line(plain)
        if is_xml(first):
            staged.format = smi_xml.FORMAT
            frame, columns = read_xml(plain, path, faults)
        elif is_dmon(first):
            staged.format = smi_dmon.FORMAT
            frame, columns = read_dmon(plain, path, faults)
        else:
            staged.format = FORMAT
            frame, columns, units = _read_csv(plain, path, faults)
    total = frame.height + faults.count
    faults.check(total)
    if "place" not in frame.columns:
        frame = frame.with_columns(header=pl.lit(0), place=pl.int_range(pl.len()))
    by = next((name for name in ("gpu_uuid", "gpu_index", "bus") if name in columns), "")
    frame = faults.parse_times(frame, "timestamp", options.tz, by=by)
    readings = _parse_values(frame, columns, units, path, faults)
    faults.check(total)
    readings = _add_identity(readings, columns, path, options, faults)
    faults.check(total)
    return write_staged(readings, staged)


def _read_csv(
    plain: Path, path: Path, faults: RowFaults
) -> tuple[pl.DataFrame, dict[str, str], dict[str, str]]:
    """The rows of a CSV log: row_no, header, place and what was recorded as texts; the names of its columns; units."""
    is_header = r"(?:^|[,;\t|])[\s\"']*timestamp"
    lines = (
        scan_lines(plain)
        .filter(pl.col("line").str.strip_chars() != "")
        .with_columns(is_header=pl.col("line").str.to_lowercase().str.contains(is_header))
        .collect(engine="streaming")
    )
    texts = lines.filter("is_header")["line"].unique(maintain_order=True)
    layouts = {text: _parse_header(text) for text in texts.head(_MOST_LAYOUTS)}
    first = next((text for text, layout in layouts.items() if _is_usable(layout)), None)
    if first is None or lines.head(_FIRST_LINES).filter(line=first).is_empty():
        layout = layouts.get(texts[0]) if len(texts) else None
        missing = "power.draw" if layout and "timestamp" in layout.columns else "timestamp"
        raise explain_unknown(path, lines["line"][0], layout.names if layout else [], missing)
    order = {text: number for number, text in enumerate(layouts)}
    rows = lines.with_columns(
        layout=pl.when("is_header").then(
            pl.col("line").replace_strict(order, default=-1, return_dtype=pl.Int32)
        ),
        header=pl.col("is_header").cum_sum(),
    ).with_columns(pl.col("layout").forward_fill())
    faults.skip("repeated headers", int(rows["is_header"].sum()) - 1)
    rows = rows.filter(~pl.col("is_header"))
    is_message = pl.col("line").str.contains(MESSAGE)
    faults.skip("messages between readings", rows.filter(is_message).height)
    # A row that is set aside keeps its place in the sweep.
    rows = rows.filter(~is_message).with_columns(place=pl.int_range(pl.len()).over("header"))
    rows = faults.drop(
        rows, pl.col("layout").is_null(), "before the header", value="line", remedy="Remove it"
    )
    if rows.is_empty():
        faults.check(faults.count)
        raise BadInput("there is a header but no reading", where=str(path), remedy="Record again")
    total, ended = rows.height + faults.count, _ends_with_newline(plain)
    parts: list[pl.DataFrame] = []
    columns: dict[str, str] = {}
    units: dict[str, str] = {}
    for number, layout in enumerate(layouts.values()):
        part = rows.filter(layout=number)
        if part.is_empty():
            continue
        if not _is_usable(layout):
            part = faults.drop(
                part, pl.lit(True), "under a header without timestamp or power", value="line"
            )
            continue
        parts.append(_split_rows(part, layout, faults, rows["row_no"][-1], ended=ended))
        columns |= {ours: layout.names[at] for ours, at in layout.columns.items()}
        units = {**layout.units, **units}
    _refuse_unknown_layout(rows, faults)
    faults.check(total)
    frame = pl.concat(parts, how="diagonal").sort("row_no")
    _refuse_other_units(layouts.values(), columns, units, path)
    return frame, columns, units


def _refuse_other_units(
    layouts: Iterable[_Layout], columns: dict[str, str], units: dict[str, str], path: Path
) -> None:
    for layout in layouts:
        for ours, unit in units.items():
            if layout.units.get(ours, unit) != unit:
                raise BadInput(
                    f"column {columns[ours]!r} has another unit under a later header",
                    where=str(path),
                    remedy="Split the file there",
                )


def _refuse_unknown_layout(rows: pl.DataFrame, faults: RowFaults) -> None:
    faults.drop(rows, pl.col("layout") == -1, "under one of far too many headers", value="line")


def _split_rows(
    rows: pl.DataFrame, layout: _Layout, faults: RowFaults, last_row: int, *, ended: bool
) -> pl.DataFrame:
    """The fields of the rows under one header, as texts by what they are."""
    width = len(layout.names)
    rows = rows.with_columns(split_fields(width, layout.separator))
    if rows["row_no"][-1] == last_row:
        rows, cut = _drop_cut_line(rows, width, ended)
        faults.skip("last line, cut while it was written", cut)
    rows = faults.drop_ragged(rows, width)
    texts = {ours: pl.col(f"f{at}") for ours, at in layout.columns.items()}
    if layout.separator != ",":
        # Where commas do not separate, they are decimal.
        texts |= {
            ours: text.str.replace(r"^([^,.]*),([^,.]*)$", "$1.$2")
            for ours, text in texts.items()
            if ours not in ("timestamp", "gpu_uuid", "bus", "model")
        }
    return rows.select("row_no", "header", "place", **texts)


def _parse_header(line: str) -> _Layout:
    counts = {mark: line.count(mark) for mark in (",", ";", "\t", "|")}
    separator = max(counts, key=lambda mark: counts[mark])
    names = [part.strip(" \t\r\n\"'\ufeff") for part in line.split(separator)]
    bare = [_squeeze(re.sub(_UNIT, "", name)) for name in names]
    columns = {}
    for ours, theirs in _ALIASES.items():
        at = next((bare.index(key) for name in theirs if (key := _squeeze(name)) in bare), None)
        if at is not None:
            columns[ours] = at
    units = {
        ours: match[1].lower()
        for ours, at in columns.items()
        if (match := re.search(_UNIT, names[at]))
    }
    names = [re.sub(_UNIT, "", name).strip().lower() for name in names]
    return _Layout(names, columns, units, separator)


def _squeeze(name: str) -> str:
    """A name without what people and programs change in it: case, blanks, dots, dashes."""
    return re.sub(r"[\s._-]+", "", name.lower())


def _is_usable(layout: _Layout) -> bool:
    keys = [_squeeze(name) for name in layout.names]
    has_twice = any(keys.count(keys[at]) > 1 for at in layout.columns.values())
    has_value = any(name in layout.columns for name in (*_POWER, "energy_mj"))
    return "timestamp" in layout.columns and has_value and not has_twice


def _first_line(plain: Path) -> str:
    with plain.open(encoding="utf-8-sig") as file:
        lines = (line for line in iter(lambda: file.readline(1 << 20), "") if line.strip())
        first = next(lines, "")
        # What the shell says before the first reading tells nothing of what follows.
        kept = (
            line
            for line in islice(chain([first], lines), _FIRST_LINES)
            if not re.match(MESSAGE, line)
        )
        return next(kept, first).strip()


def _ends_with_newline(plain: Path) -> bool:
    with plain.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


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
    frame: pl.DataFrame,
    columns: dict[str, str],
    units: dict[str, str],
    path: Path,
    faults: RowFaults,
) -> pl.DataFrame:
    """Parse numbers; values that the driver did not have are null, and the best power of each row counts."""
    powers = [name for name in _POWER if name in columns]
    limits = [name for name in _LIMITS if name in columns]
    text = [name for name in ("gpu_uuid", "gpu_index", "bus", "model") if name in columns]
    result = frame.with_columns(
        pl.when(pl.col(name).str.contains(MISSING) | (pl.col(name) == ""))
        .then(None)
        .otherwise(pl.col(name))
        .alias(name)
        for name in text
    )
    for name in [*powers, *limits, *(name for name in _NUMBERS if name in columns)]:
        result = _parse_quantity(result, name, columns[name], units.get(name, ""), faults)
    known = [pl.col(name).is_not_null() for name in powers]
    result = result.with_columns(
        power_mw=pl.coalesce(*powers, pl.lit(None, pl.Float64)),
        # A limit of 0 or so is none.
        power_limit_mw=pl.coalesce(
            *(pl.when(pl.col(name) >= 1000).then(pl.col(name)) for name in limits),
            pl.lit(None, pl.Float64),
        ),
        power_source=pl.coalesce(
            *(
                pl.when(is_known).then(pl.lit(_POWER[name]))
                for name, is_known in zip(powers, known, strict=True)
            ),
            pl.lit("unknown"),
        ),
        **{name: pl.lit(None, pl.Float64) for name in _NUMBERS if name not in columns},
    )
    for name in ("power_mw", *_NUMBERS):
        result = drop_out_of_range(result, name, faults)
    no_power = result.height > 0 and result["power_mw"].null_count() == result.height
    if no_power and result["energy_mj"].null_count() == result.height:
        name = powers[0] if powers else "energy_mj"
        raise BadInput(
            "no reading has a power",
            where=locate(path, column=columns[name], value=frame[name][0]),
            remedy="This GPU or driver does not report power, so there is nothing to account",
        )
    numbers = ("power_mw", "power_limit_mw", *_NUMBERS)
    return result.with_columns(pl.col(name).cast(STAGED[name], strict=False) for name in numbers)


def _parse_quantity(
    frame: pl.DataFrame, name: str, field: str, header_unit: str, faults: RowFaults
) -> pl.DataFrame:
    """Parse a column of texts in the unit that stands behind each value, or in the header, or else the usual one."""
    known = _UNITS["power" if "power" in name else name]
    unit = pl.col(name).str.to_lowercase().str.extract(r"^[+\-0-9.eE]+\s*([^0-9\s]+)\s*$", 1)
    frame = frame.with_columns(_text=pl.col(name), _unit=pl.coalesce(unit, pl.lit(header_unit)))
    remedy = "Remove or fix the line; [N/A] stands for a value that was not available"
    parsed = faults.parse_numbers(frame, "_text", to=name, field=field, remedy=remedy)
    # A word for a missing value has no unit.
    unknown = pl.col(name).is_not_null() & ~pl.col("_unit").is_in(list(known))
    parsed = faults.drop(parsed, unknown, f"not a unit of {field}", field=field, value="_text")
    parsed = drop_blanks(parsed, name)
    factor = pl.col("_unit").replace_strict(known, default=None, return_dtype=pl.Float64)
    return parsed.with_columns((pl.col(name) * factor).round().alias(name)).drop("_text", "_unit")


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
