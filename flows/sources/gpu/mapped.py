"""Any other CSV or Parquet of GPU readings, by the column mapping in `[sources.NAME]`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flows.errors import BadInput, SettingsError, UsageError, locate
from flows.files import open_plain_text, scan_lines, split_fields
from flows.settings import Column, GpuSource
from flows.sources.gpu.nvidia_smi import MISSING, NUMBER, Options
from flows.sources.gpu.staged import (
    STAGED,
    Staged,
    convert_to_milliwatts,
    refuse_out_of_range,
    refuse_unparsed,
    write_staged,
)
from flows.times import convert_to_utc

_EPOCH = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_ENERGY_MJ = {"mJ": 1.0, "J": 1e3, "kJ": 1e6, "Wh": 3.6e6, "kWh": 3.6e9}
_REMEDY = "Fix the file, or the mapping under [sources.NAME] in wattledger.toml"


def read(path: Path, staged: Staged, name: str, source: GpuSource, options: Options) -> Staged:
    """Read a file by its mapping into a staged file.

    Args:
        path: CSV (also packed with gzip) or Parquet.
        staged: What becomes of it.
        name: The name of the mapping in wattledger.toml.
        source: The mapping: which column is what, in which unit.
        options: Come before what the mapping says.

    Returns:
        `staged`, its file written.

    Raises:
        BadInput: a column is missing or a value cannot be understood.
        SettingsError: the mapping names an unknown unit or no quantity at all.
    """
    frame = _read_table(path, staged, source)
    columns = _list_columns(source, name)
    for column in columns.values():
        if column.column not in frame.columns:
            raise BadInput(
                f"no column {column.column!r}",
                where=str(path),
                remedy=f"It has {', '.join(c for c in frame.columns if c != 'row_no')}. {_REMEDY}",
            )
    if frame.height == 0:
        raise BadInput("there is a header but no reading", where=str(path), remedy="Record again")
    host = options.host or source.host
    if not host and not source.gpu:
        raise UsageError(
            "the file does not say which host it is from",
            where=str(path),
            remedy="Name it with --host or as host under [sources.NAME]",
        )
    frame = frame.with_columns(ts=_parse_times(frame, source, options.tz or source.tz, path))
    if source.power_by_gpu:
        by_gpu = [
            _parse_quantities(
                frame, columns | {"power": columns[f"power {index}"]}, source, path
            ).with_columns(gpu_index=pl.lit(int(index), pl.Int32))
            for index in source.power_by_gpu
        ]
        readings = pl.concat(by_gpu)
    else:
        readings = _parse_quantities(frame, columns, source, path)
    readings = _add_identity(readings, source, host, options.model or source.model)
    staged.format, staged.rows_read = f"mapped:{name}", readings.height
    return write_staged(readings, staged, unsorted=source.unsorted)


def _read_table(path: Path, staged: Staged, source: GpuSource) -> pl.DataFrame:
    """The file as it is, and `row_no`; a last line that was cut is left out and counted."""
    if path.suffix == ".parquet":
        try:
            return pl.read_parquet(path, glob=False).with_row_index("row_no", 1)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadInput(
                f"not a Parquet file: {error}", where=str(path), remedy="Write it again"
            ) from None
    with open_plain_text(path, staged.path.parent) as plain:
        lines = scan_lines(plain).filter(pl.col("line").str.strip_chars() != "")
        if source.columns:
            names = source.columns
        else:
            header = lines.head(1).collect()["line"][0]
            names = [part.strip(" \t\r\"'\ufeff") for part in header.split(",")]
            lines = lines.filter(pl.col("line") != header)
        table = lines.with_columns(split_fields(len(names))).collect(engine="streaming")
    wrong = table.filter(pl.col("fields") != len(names))
    if wrong.height == 1 and wrong["row_no"][0] == table["row_no"][-1]:
        table = table.head(-1)
        staged.rows_skipped += 1
    elif wrong.height:
        raise BadInput(
            f"{wrong['fields'][0]} fields where {len(names)} are expected",
            where=locate(path, wrong["row_no"][0]),
            remedy=_REMEDY,
        )
    return table.select("row_no", **{name: f"f{i}" for i, name in enumerate(names)})


def _list_columns(source: GpuSource, name: str) -> dict[str, Column]:
    """What is mapped: quantity -> its column; the power of each GPU as `power 0` and so on."""
    mapped = {
        "ts": source.ts,
        "power": source.power,
        "energy": source.energy,
        "util": source.util,
        "memory": source.memory,
        "temperature": source.temperature,
        "sm_clock": source.sm_clock,
        "gpu": Column(column=source.gpu) if source.gpu else None,
    }
    columns = {quantity: column for quantity, column in mapped.items() if column}
    for index, column_name in source.power_by_gpu.items():
        columns[f"power {index}"] = Column(column=column_name, unit=source.power_unit)
    if not {"power", "energy"} & set(columns) and not source.power_by_gpu:
        raise SettingsError(
            "neither power nor energy is mapped",
            where=f"setting sources.{name}",
            remedy="Add power, energy or power_by_gpu",
        )
    return columns


def _parse_times(frame: pl.DataFrame, source: GpuSource, tz: str, path: Path) -> pl.Series:
    raw = frame[source.ts.column]
    rows = frame["row_no"]
    if isinstance(raw.dtype, pl.Datetime):
        if raw.dtype.time_zone:
            return raw.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        return convert_to_utc(raw.dt.cast_time_unit("us"), tz, path, rows)
    unit = source.ts.unit
    if unit in _EPOCH:
        number = raw.cast(pl.Float64, strict=False)
        _refuse_first(frame, source.ts.column, number.is_null(), "not a time", path)
        return (number * _EPOCH[unit]).round().cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
    text = raw.cast(pl.String)
    parsed = text.str.to_datetime(source.ts_format or None, time_unit="us", strict=False)
    _refuse_first(frame, source.ts.column, parsed.is_null(), "not a time", path)
    if isinstance(parsed.dtype, pl.Datetime) and parsed.dtype.time_zone:
        return parsed.dt.convert_time_zone("UTC")
    return convert_to_utc(parsed, tz, path, rows)


def _refuse_first(frame: pl.DataFrame, column: str, bad: pl.Series, what: str, path: Path) -> None:
    if bad.any():
        first = int(bad.arg_max() or 0)
        raise BadInput(
            what,
            where=locate(path, frame["row_no"][first], column, frame[column][first]),
            remedy=_REMEDY,
        )


_TARGETS = {
    "power": "power_mw",
    "energy": "energy_mj",
    "util": "util_pct",
    "memory": "mem_used_mib",
    "temperature": "temp_c",
    "sm_clock": "sm_clock_mhz",
}
"""Quantity of a mapping -> its column in STAGED."""


def _parse_quantities(
    frame: pl.DataFrame, columns: dict[str, Column], source: GpuSource, path: Path
) -> pl.DataFrame:
    """The frame and every quantity in its column of STAGED; those not mapped are null."""
    result = frame
    for quantity, target in _TARGETS.items():
        if quantity not in columns:
            result = result.with_columns(pl.lit(None, STAGED[target]).alias(target))
            continue
        column = columns[quantity]
        number = _parse_numbers(frame, column.column, path)
        if quantity == "power":
            unit = column.unit or source.power_unit
            number = pl.select(convert_to_milliwatts(pl.lit(number), unit)).to_series()
        elif quantity == "energy":
            number = number * _find_energy_unit(column)
        checked = frame.select("row_no").with_columns(number.round().alias(target))
        refuse_out_of_range(checked, target, path)
        result = result.with_columns(checked[target].cast(STAGED[target]))
    return result


def _parse_numbers(frame: pl.DataFrame, column: str, path: Path) -> pl.Series:
    """Numbers, with or without a unit behind them; null where a value was not available."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    raw = pl.when(text.str.contains(MISSING) | (text == "")).then(None).otherwise(text)
    number = pl.col("raw").str.to_lowercase().str.extract(NUMBER, 1)
    parsed = frame.with_columns(raw=raw).with_columns(number=number.cast(pl.Float64, strict=False))
    refuse_unparsed(parsed, "raw", "number", column, path, _REMEDY)
    return parsed["number"]


def _find_energy_unit(column: Column) -> float:
    """What one unit of an energy is in mJ."""
    unit = column.unit or "mJ"
    if unit not in _ENERGY_MJ:
        raise SettingsError(
            f"unknown unit {column.unit!r} of energy",
            remedy=f"Use one of {', '.join(_ENERGY_MJ)}",
        )
    return _ENERGY_MJ[unit]


def _add_identity(readings: pl.DataFrame, source: GpuSource, host: str, model: str) -> pl.DataFrame:
    named = readings.with_columns(
        host=pl.lit(host or "unknown"),
        model=pl.lit(model or None, pl.String),
        power_source=pl.lit("unknown"),
    )
    if source.gpu:
        text = pl.col(source.gpu).cast(pl.String)
        index = text.cast(pl.Int32, strict=False)
        return named.with_columns(
            gpu_index=index,
            gpu_uuid=pl.when(index.is_null())
            .then(text)
            .otherwise(pl.format("{}/gpu{}", "host", index)),
        )
    if "gpu_index" not in named.columns:
        named = named.with_columns(gpu_index=pl.lit(0, pl.Int32))
    return named.with_columns(gpu_uuid=pl.format("{}/gpu{}", "host", "gpu_index"))
