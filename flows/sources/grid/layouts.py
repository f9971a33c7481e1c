"""Layouts of tables of intensities that are known by their columns, and tables that settings describe."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from flows.errors import BadInput, locate
from flows.settings import GridSource
from flows.sources.grid.mixes import (
    has_entsoe_export,
    has_production_types,
    has_smard_types,
    read_entsoe_export,
    read_entsoe_mix,
    read_smard,
)
from flows.sources.grid.series import (
    GRAMS_PER_KWH,
    UNIT_NAMES,
    GridData,
    build_grid_data,
    build_intensities,
)
from flows.sources.grid.tables import REMEDY, Options, Table

__all__ = ["LAYOUTS", "Layout", "Options", "read_described", "refuse_unknown"]


@dataclass(frozen=True)
class Layout:
    """A kind of table: how its columns are recognized, and how it is read."""

    name: str
    fits: Callable[[Table], bool]
    read: Callable[[Table], GridData]


_INTENSITY_UNIT = re.compile(r"(g|kg|t|lbs?)(?:co2)?(?:eq?)?(?:/|per)([km])wh")
_GRAMS = {"g": 1.0, "kg": 1000.0, "t": 1e6, "lb": 453.59237, "lbs": 453.59237}
_SIGNED = r"(?i)^\s*(true|yes|1)\s*$"


def _find_grams(table: Table, column: str, default: str) -> tuple[float, str]:
    """What one unit of a column is in g/kWh, and the unit's name: as given, as its header says, or the default.

    Raises:
        BadInput: the header names a unit that is none of an intensity.
    """
    if table.options.unit:
        return GRAMS_PER_KWH[table.options.unit], UNIT_NAMES[table.options.unit]
    unit = table.find_unit(column)
    if match := _INTENSITY_UNIT.fullmatch(unit):
        grams = _GRAMS[match[1]] / (1000 if match[2] == "m" else 1)
        return grams, f"{match[1]}/{match[2]}Wh".replace("mWh", "MWh")
    if "/" in unit or unit in ("%", "mw", "mwh"):
        raise BadInput(
            f"the unit {unit!r} is none of an intensity",
            where=locate(table.path, 1, column),
            remedy=f"Say which it is with --unit: {', '.join(GRAMS_PER_KWH)}",
        )
    return GRAMS_PER_KWH[default], UNIT_NAMES[default]


def _parse_flags(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    flag = pl.col(column).cast(pl.String).str.contains(_SIGNED) if column else pl.lit(False)
    return frame.with_columns(_estimated=flag.fill_null(False))


def _read_electricity_maps(table: Table) -> GridData:
    """Electricity Maps' yearly files: an hour a row, a column for each kind of emission factor."""
    options = table.options
    zone = "" if options.zone else table.find("zone_id")
    frame = table.faults.parse_times(
        table.frame, table.find("datetime_utc"), "UTC", to="valid_from", by=zone
    )
    frame = _parse_flags(frame, table.find("data_estimated"))
    columns = {
        "average_direct": _find_em_column(table, "direct"),
        "average_lifecycle": _find_em_column(table, "lca", "life_cycle", "lifecycle"),
    }
    wanted = {
        signal: column
        for signal, column in columns.items()
        if column and options.signal in ("", signal)
    }
    for signal, column in wanted.items():
        frame = table.faults.parse_numbers(frame, column, to=signal, field=column, remedy=REMEDY)
    if not wanted:
        raise BadInput(
            "no column of carbon intensities", where=locate(table.path, 1), remedy=REMEDY
        )
    # Files of a day, a month or a year have rows of that length, and so have their averages.
    tables = [
        build_intensities(
            frame,
            signal,
            zone=options.zone,
            zone_column=zone,
            signal=signal,
            source=options.provider or "Electricity Maps yearly file",
            estimated="_estimated",
        )
        for signal in wanted
    ]
    return _build(table, "electricity-maps-csv", pl.concat(tables), "g/kWh")


def _find_em_column(table: Table, *kinds: str) -> str:
    names = (n for n in table.names if n.startswith("carbon_intensity") and n.endswith(kinds))
    return table.find(next(names, ""))


def _build(table: Table, layout: str, rows: pl.DataFrame, unit: str) -> GridData:
    return build_grid_data(layout, rows, table.faults, table.rows, unit=unit, limits=table.limits)


def _read_two_columns(
    layout: str, time: str, value: str, *, unit: str, signal: str, source: str, naive: bool
) -> Callable[[Table], GridData]:
    """A reader for two columns, time and intensity; `naive` times need the zone of their clock."""

    def read(table: Table) -> GridData:
        options, column = table.options, table.find(value)
        grams, name = _find_grams(table, column, unit)
        zone = table.require_zone()
        frame = table.faults.parse_times(
            table.frame, table.find(time), options.tz if naive else "UTC", to="valid_from"
        )
        frame = table.faults.parse_numbers(frame, column, to="_value", field=column, remedy=REMEDY)
        rows = build_intensities(
            frame,
            "_value",
            zone=zone,
            signal=options.signal or signal,
            source=options.provider or source,
            grams=grams,
        )
        return _build(table, layout, rows, name)

    return read


def _read_location_duration(table: Table) -> GridData:
    """Rows of location, timestamp, duration in minutes and value."""
    options, faults = table.options, table.faults
    zone, value, duration = (table.find(n) for n in ("location", "value", "duration"))
    grams, name = _find_grams(table, value, "g")
    frame = faults.parse_times(
        table.frame, table.find("timestamp"), "UTC", to="valid_from", by=zone
    )
    frame = faults.parse_numbers(frame, value, to="_value", field=value, remedy=REMEDY)
    frame = faults.parse_numbers(frame, duration, to="_minutes", field=duration, remedy=REMEDY)
    frame = faults.drop(
        frame,
        ~pl.col("_minutes").is_between(1, 31 * 24 * 60).fill_null(False),
        "a duration that is none of an interval (in minutes)",
        field=duration,
        value=duration,
        remedy=REMEDY,
    )
    rows = build_intensities(
        frame,
        "_value",
        zone=options.zone,
        zone_column=zone,
        signal=options.signal or "average_lifecycle",
        source=options.provider or "location/timestamp/duration series",
        grams=grams,
        length=pl.duration(seconds=(pl.col("_minutes") * 60).round().cast(pl.Int64)),
    )
    return _build(table, "location-duration", rows, name)


_GENERIC_TIMES = (
    "valid_from",
    "ts",
    "timestamp",
    "datetime",
    "datetime_utc",
    "timestamp_utc",
    "time_utc",
    "time",
    "date_time",
)
_GENERIC_VALUES = (
    "intensity_g_per_kwh",
    "carbon_intensity_g_per_kwh",
    "carbon_intensity",
    "carbonintensity",
    "intensity",
)


def _read_generic(table: Table) -> GridData:
    """Columns with the usual names, zone and estimates where there are any."""
    options, faults = table.options, table.faults
    time, value = table.find(*_GENERIC_TIMES), table.find(*_GENERIC_VALUES)
    if not time or not value:
        raise BadInput("no column of times and intensities", where=str(table.path), remedy=REMEDY)
    grams, name = _find_grams(table, value, "g")
    zone = "" if options.zone else table.find("zone", "zone_id")
    if not zone:
        table.require_zone()
    # NESO's history of the British mix has an intensity too: what power stations emit.
    is_neso = table.has("wind_emb", "generation")
    signal = options.signal or ("average_direct" if is_neso else "average_lifecycle")
    tz = options.tz or ("UTC" if "utc" in time.lower() or is_neso else "")
    frame = faults.parse_times(table.frame, time, tz, to="_from", by=zone)
    frame = faults.parse_numbers(frame, value, to="_value", field=value, remedy=REMEDY)
    if end := table.find("valid_to"):
        frame = faults.parse_times(frame, end, tz, to="_to", by=zone).rename({"_to": "_end"})
        frame = frame.drop("valid_to", strict=False).rename({"_end": "valid_to"})
    frame = frame.drop("valid_from", strict=False).rename({"_from": "valid_from"})
    frame = _parse_flags(frame, table.find("is_estimated", "estimated"))
    rows = build_intensities(
        frame,
        "_value",
        zone=options.zone,
        zone_column=zone,
        signal=signal,
        source=options.provider or table.path.name,
        grams=grams,
        estimated="_estimated",
    )
    return _build(table, "generic", rows, name)


LAYOUTS = (
    Layout(
        "electricity-maps-csv",
        lambda table: table.has("datetime_utc", "zone_id"),
        _read_electricity_maps,
    ),
    Layout(
        "sgip-moer",
        lambda table: table.has("time", "moer"),
        _read_two_columns(
            "sgip-moer",
            "time",
            "moer",
            unit="kg",
            signal="marginal",
            source="SGIP / WattTime MOER",
            naive=False,
        ),
    ),
    Layout(
        "location-duration",
        lambda table: table.has("location", "timestamp", "duration", "value"),
        _read_location_duration,
    ),
    Layout("entsoe-export", has_entsoe_export, read_entsoe_export),
    Layout("smard", has_smard_types, read_smard),
    Layout("entsoe-generation-csv", has_production_types, read_entsoe_mix),
    Layout(
        "lets-wait-awhile",
        lambda table: {"Time", "Carbon Intensity"} <= set(table.frame.columns),
        _read_two_columns(
            "lets-wait-awhile",
            "time",
            "carbon_intensity",
            unit="g",
            signal="average_lifecycle",
            source="ENTSO-E mix x IPCC factors",
            naive=True,
        ),
    ),
    Layout(
        "generic",
        lambda table: bool(table.find(*_GENERIC_TIMES) and table.find(*_GENERIC_VALUES)),
        _read_generic,
    ),
)
"""The layouts of tables; of several that fit, the first one counts."""

_UNWANTED = (
    ("price", "prices"),
    ("total_load", "a load"),
    ("stromverbrauch", "a load"),
    ("netzlast", "a load"),
    ("demand", "a demand"),
    ("installed", "installed capacities"),
    ("forecast", "a forecast"),
    ("prognos", "a forecast"),
    ("day_ahead", "a forecast"),
    ("scheduled", "schedules of commercial exchanges"),
    ("physical_flow", "flows between zones"),
    ("power_draw", "a log of GPUs (`wattledger ingest gpu`)"),
    ("emissions_rate", "codecarbon's emissions (`wattledger ingest runs`)"),
)


def refuse_unknown(table: Table) -> BadInput:
    """Why a table cannot be read: what it is instead, where its columns tell."""
    for word, what in _UNWANTED:
        if found := next((real for name, real in table.names.items() if word in name), ""):
            return BadInput(
                f"this is {what}, not generation by fuel or an intensity",
                where=locate(table.path, 1, found),
                remedy="Export the actual generation per production type, or an intensity",
            )
    return BadInput(
        f"no known layout of grid data has the columns {', '.join(table.frame.columns[1:7])}",
        where=str(table.path),
        remedy=f"Layouts: {', '.join(known.name for known in LAYOUTS)}. {REMEDY}",
    )


def read_described(table: Table, source: GridSource) -> GridData:
    """Read a table whose columns are described in [grid_sources]; options come before the description.

    Raises:
        BadInput: a column is missing, or too many values cannot be understood.
    """
    options, faults, path = table.options, table.faults, table.path
    for column in (source.ts.column, source.intensity.column, source.estimated):
        if column and column not in table.frame.columns:
            raise BadInput(
                f"no column {column!r}",
                where=str(path),
                remedy=f"It has {', '.join(table.frame.columns[1:])}. {REMEDY}",
            )
    unit = options.unit or source.intensity.unit or "g"
    frame = faults.parse_times(
        table.frame, source.ts.column, options.tz or source.tz, to="_from", field=source.ts.column
    )
    frame = faults.parse_numbers(
        frame, source.intensity.column, to="_value", field=source.intensity.column, remedy=REMEDY
    )
    frame = frame.drop("valid_from", "valid_to", strict=False).rename({"_from": "valid_from"})
    frame = _parse_flags(frame, source.estimated)
    rows = build_intensities(
        frame,
        "_value",
        zone=options.zone or source.zone,
        signal=options.signal or source.signal,
        source=options.provider or source.source or path.name,
        grams=GRAMS_PER_KWH[unit],
        estimated="_estimated",
    )
    return _build(table, "mapped", rows, UNIT_NAMES[unit])
