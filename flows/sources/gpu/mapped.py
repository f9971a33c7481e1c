"""Any other CSV or Parquet of GPU readings, by the column mapping in `[sources.NAME]`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flows.errors import BadInput, SettingsError, UsageError
from flows.files import open_plain_text, scan_lines, split_fields
from flows.rows import RowFaults
from flows.settings import Column, GpuSource
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import (
    STAGED,
    Staged,
    convert_to_milliwatts,
    drop_out_of_range,
    write_staged,
)

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
    faults, total = staged.faults, frame.height + staged.faults.count
    frame = _parse_times(frame, source, options.tz or source.tz, faults)
    if source.power_by_gpu:
        by_gpu = [
            _parse_quantities(
                frame, columns | {"power": columns[f"power {index}"]}, source, faults
            ).with_columns(gpu_index=pl.lit(int(index), pl.Int32))
            for index in source.power_by_gpu
        ]
        readings = pl.concat(by_gpu)
        # A row that is bad for one GPU is not believed for the others.
        readings = readings.join(faults.rows.select("row_no"), on="row_no", how="anti")
    else:
        readings = _parse_quantities(frame, columns, source, faults)
    faults.check(total)
    readings = _add_identity(readings, source, host, options.model or source.model)
    staged.format = f"mapped:{name}"
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
    if wrong.height and wrong["row_no"][-1] == table["row_no"][-1]:
        table = table.head(-1)
        staged.faults.skip("last line, cut while it was written")
    total = table.height
    table = staged.faults.drop_ragged(table, len(names))
    staged.faults.check(total)
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


def _parse_times(
    frame: pl.DataFrame, source: GpuSource, tz: str, faults: RowFaults
) -> pl.DataFrame:
    """The rows whose time is known, with `ts` in UTC."""
    column, by = source.ts.column, source.gpu
    if source.ts.unit in _EPOCH:
        numbers = faults.parse_numbers(frame, column, to="_epoch", remedy=_REMEDY)
        microseconds = pl.col("_epoch") * _EPOCH[source.ts.unit]
        frame = numbers.with_columns(
            _time=microseconds.round().cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC"))
        ).drop("_epoch")
        return faults.parse_times(frame, "_time", tz, by=by, field=column).drop("_time")
    if source.ts_format:
        text = frame[column].cast(pl.String)
        parsed = text.str.to_datetime(source.ts_format, time_unit="us", strict=False)
        frame = frame.with_columns(parsed.alias("_time"))
        return faults.parse_times(frame, "_time", tz, by=by, field=column).drop("_time")
    return faults.parse_times(frame, column, tz, by=by)


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
    frame: pl.DataFrame, columns: dict[str, Column], source: GpuSource, faults: RowFaults
) -> pl.DataFrame:
    """The rows and every quantity in its column of STAGED; those not mapped are null."""
    result = frame
    for quantity, target in _TARGETS.items():
        if quantity not in columns:
            result = result.with_columns(pl.lit(None, STAGED[target]).alias(target))
            continue
        column = columns[quantity]
        result = faults.parse_numbers(result, column.column, to="_number", remedy=_REMEDY)
        number = pl.col("_number")
        if quantity == "power":
            number = convert_to_milliwatts(number, column.unit or source.power_unit)
        elif quantity == "energy":
            number = number * _find_energy_unit(column)
        result = result.with_columns(number.round().alias(target)).drop("_number")
        result = drop_out_of_range(result, target, faults)
        result = result.with_columns(pl.col(target).cast(STAGED[target]))
    return result


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
