"""Any other CSV or Parquet of GPU readings, by the column mapping in `[sources.NAME]`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flows.errors import BadInput, SettingsError, UsageError, locate
from flows.files import open_plain_text, scan_lines, split_fields
from flows.rows import MISSING, RowFaults
from flows.settings import Column, GpuSource
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import (
    STAGED,
    Staged,
    convert_to_milliwatts,
    drop_blanks,
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
    columns = _find_columns(frame, path, source, name)
    source = source.model_copy(
        update={"ts": columns["ts"], "gpu": columns["gpu"].column if source.gpu else ""}
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
    if source.energy and source.energy_kind == "interval":
        readings = _count_up(readings)
    readings = faults.drop(
        readings,
        pl.col("gpu_uuid").is_null(),
        "names no GPU",
        field=source.gpu,
        remedy=_REMEDY,
    )
    faults.check(total)
    _refuse_without_value(readings, columns, path)
    staged.format = f"mapped:{name}"
    return write_staged(readings, staged, unsorted=source.unsorted)


def _find_columns(
    frame: pl.DataFrame, path: Path, source: GpuSource, name: str
) -> dict[str, Column]:
    """What is mapped: quantity -> its column, by the name that the file has."""
    columns = {
        quantity: replace_name(column, frame.columns)
        for quantity, column in _list_columns(source, name).items()
    }
    for column in columns.values():
        if column.column not in frame.columns:
            raise BadInput(
                f"no column {column.column!r}",
                where=str(path),
                remedy=f"It has {', '.join(c for c in frame.columns if c != 'row_no')}. {_REMEDY}",
            )
    return columns


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
            separator = _find_separator(str(lines.head(1).collect()["line"].first() or ""))
        else:
            first = lines.head(1).collect()
            if first.is_empty():
                raise BadInput("the file is empty", where=str(path), remedy="Record again")
            header = first["line"][0]
            separator = _find_separator(header)
            names = [part.strip(" \t\r\"'\ufeff") for part in header.split(separator)]
            repeated = pl.col("line") == header
            staged.faults.skip(
                "repeated headers", lines.select(repeated.sum()).collect().item() - 1
            )
            lines = lines.filter(~repeated)
        table = lines.with_columns(split_fields(len(names), separator)).collect(engine="streaming")
    wrong = table.filter(pl.col("fields") != len(names))
    if wrong.height and wrong["row_no"][-1] == table["row_no"][-1]:
        table = table.head(-1)
        staged.faults.skip("last line, cut while it was written")
    total = table.height
    table = staged.faults.drop_ragged(table, len(names))
    staged.faults.check(total)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"column {twice[0]!r} stands twice", where=str(path), remedy=_REMEDY)
    fields = {name: pl.col(f"f{i}") for i, name in enumerate(names)}
    if separator != ",":
        # Where commas do not separate, they are decimal.
        decimal = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
        fields = {name: field.str.replace(decimal, "$1.$2") for name, field in fields.items()}
    return table.select("row_no", **fields)


def _find_separator(line: str) -> str:
    """What separates the fields of a line: the mark that it has most often."""
    return max((",", ";", "\t", "|"), key=line.count)


def replace_name(column: Column, names: list[str]) -> Column:
    """The column by the name that the file has, which may differ in case and blanks."""
    if column.column in names:
        return column
    key = "".join(column.column.split()).lower()
    found = [name for name in names if "".join(name.split()).lower() == key]
    return column.model_copy(update={"column": found[0]}) if len(found) == 1 else column


def _list_columns(source: GpuSource, name: str) -> dict[str, Column]:
    """What is mapped: quantity -> its column; the power of each GPU as `power 0` and so on."""
    mapped = {
        "ts": source.ts,
        "power": source.power,
        **{f"power else {n}": column for n, column in enumerate(source.power_else)},
        "limit": source.power_limit,
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
    if source.energy and source.energy_kind == "interval" and source.power_by_gpu:
        raise SettingsError(
            "energy of intervals is of one GPU, and power_by_gpu names several",
            where=f"setting sources.{name}",
            remedy="Leave out energy",
        )
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
    "limit": "power_limit_mw",
    "energy": "energy_mj",
    "util": "util_pct",
    "memory": "mem_used_mib",
    "temperature": "temp_c",
    "sm_clock": "sm_clock_mhz",
}
"""Quantity of a mapping -> its column in STAGED."""
_POWERS = ("power", "limit")


def _parse_quantities(
    frame: pl.DataFrame, columns: dict[str, Column], source: GpuSource, faults: RowFaults
) -> pl.DataFrame:
    """The rows and every quantity in its column of STAGED; those not mapped are null.

    Of several columns of power, the first that has a value counts, row by row.
    """
    result = frame
    for quantity, target in _TARGETS.items():
        mapped = [columns[quantity]] if quantity in columns else []
        if quantity == "power":
            mapped += [column for name, column in columns.items() if name.startswith("power else")]
        if not mapped:
            result = result.with_columns(pl.lit(None, STAGED[target]).alias(target))
            continue
        for number, column in enumerate(mapped):
            place = f"_number{number}"
            result = faults.parse_numbers(
                result, column.column, to=place, field=column.column, remedy=_REMEDY
            )
            result = _drop_other_units(result, quantity, column, source, faults)
            # A temperature of -1 is one.
            result = result if quantity == "temperature" else drop_blanks(result, place)
            value = pl.col(place)
            if quantity in _POWERS:
                value = convert_to_milliwatts(value, column.unit or source.power_unit)
            elif quantity == "energy":
                value = value * _find_energy_unit(column)
            result = result.with_columns(value.round().alias(place))
        places = [f"_number{number}" for number in range(len(mapped))]
        result = result.with_columns(pl.coalesce(places).alias(target)).drop(places)
        result = drop_out_of_range(result, target, faults)
        result = result.with_columns(pl.col(target).cast(STAGED[target]))
    return result


_UNITS = {"util": "%", "memory": "mib", "temperature": "c", "sm_clock": "mhz"}
"""The units of quantities that are mapped without one."""


def _drop_other_units(
    frame: pl.DataFrame, quantity: str, column: Column, source: GpuSource, faults: RowFaults
) -> pl.DataFrame:
    """Set aside rows whose value carries another unit than the mapping says: 250000 mW is not 250000 W."""
    text = pl.col(column.column).cast(pl.String).str.to_lowercase()
    unit = text.str.extract(r"^[\s\"']*[+-]?[0-9.]+(?:e[+-]?[0-9]+)?\s*([a-z%/]+)[\s\"']*$", 1)
    usual = source.power_unit if quantity in _POWERS else _UNITS.get(quantity, "mJ")
    expected = (column.unit or usual).lower()
    return faults.drop(
        frame,
        unit != expected,
        f"its unit is not {column.unit or usual}, as the mapping says",
        field=column.column,
        value=column.column,
        remedy=_REMEDY,
    )


def _count_up(readings: pl.DataFrame) -> pl.DataFrame:
    """Energies of intervals as a counter: the first reading of a GPU begins it, and each ends its own interval.

    Where the energy of an interval is not there, the counter begins anew far below, as after a
    driver was loaded anew: nothing is claimed for that interval, and all of the next.
    """
    rise = pl.col("energy_mj")
    block, blocks = pl.col("_block"), pl.col("_block").max().over("gpu_uuid")
    distance = pl.min_horizontal(pl.lit(1 << 40), pl.lit(1 << 60) // (blocks + 1))
    counted = readings.sort("gpu_uuid", "ts", "row_no").with_columns(
        _block=rise.is_null().cum_sum().over("gpu_uuid").cast(pl.Int64)
    )
    first = pl.when(block == 0).then(rise.first().over("gpu_uuid")).otherwise(0)
    return (
        counted.with_columns(
            energy_mj=(blocks - block) * distance
            + rise.fill_null(0).cum_sum().over("gpu_uuid", "_block")
            - first.fill_null(0)
        )
        .drop("_block")
        .sort("row_no")
    )


def _refuse_without_value(readings: pl.DataFrame, columns: dict[str, Column], path: Path) -> None:
    values = ("power_mw", "energy_mj")
    if readings.height and all(readings[name].null_count() == readings.height for name in values):
        names = [
            column.column for name, column in columns.items() if name[:5] in ("power", "energ")
        ]
        raise BadInput(
            "no reading has a power or an energy",
            where=locate(path, column=", ".join(names)),
            remedy=_REMEDY,
        )


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
        text = pl.col(source.gpu).cast(pl.String).str.strip_chars()
        text = pl.when(~text.str.contains(MISSING) & (text != "")).then(text)
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
