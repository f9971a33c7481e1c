"""Layouts of grid data that are known: tables by their columns, and Electricity Maps' JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.settings import GridSource
from flows.sources.grid.generation import PRODUCTION_TYPES
from flows.sources.grid.series import (
    GRAMS_PER_KWH,
    REMEDY,
    GridData,
    build_grid_data,
    build_intensities,
    compute_interval_ends,
    parse_numbers,
    parse_times,
)


@dataclass(frozen=True)
class Options:
    """What the file itself does not say."""

    zone: str = ""
    signal: str = ""
    unit: str = ""
    tz: str = ""
    provider: str = ""


@dataclass(frozen=True)
class Layout:
    """A kind of table: how its columns are recognized, and how it is read."""

    name: str
    fits: Callable[[list[str]], bool]
    read: Callable[[pl.DataFrame, Options, Path], GridData]


def _require_zone(options: Options, path: Path) -> str:
    if not options.zone:
        raise UsageError(
            "the file does not say which grid zone it is about",
            where=str(path),
            remedy="Name it with --zone, for example --zone DE",
        )
    return options.zone


def _parse_flags(flags: pl.Series) -> pl.Series:
    return flags.cast(pl.String).str.to_lowercase() == "true"


def _read_electricity_maps(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    """Electricity Maps' yearly files: an hour a row, a column for each kind of emission factor."""
    starts = parse_times(frame, "Datetime (UTC)", "UTC", path)
    columns = {
        "average_direct": next((c for c in frame.columns if "direct" in c), ""),
        "average_lifecycle": next(
            (c for c in frame.columns if "LCA" in c or "Life cycle" in c), ""
        ),
    }
    tables = [
        build_intensities(
            frame["row_no"],
            starts,
            parse_numbers(frame, column, path),
            zone=options.zone or frame["Zone Id"],
            signal=signal,
            source=options.provider or "Electricity Maps yearly file",
            estimated=_parse_flags(frame["Data Estimated"]),
        )
        for signal, column in columns.items()
        if column and options.signal in ("", signal)
    ]
    return build_grid_data("electricity-maps-csv", pl.concat(tables), frame.height)


def _read_two_columns(
    time: str, value: str, *, unit: str, signal: str, source: str, naive: bool
) -> Callable[[pl.DataFrame, Options, Path], GridData]:
    """A reader for two columns, time and intensity; `naive` times need the zone of their clock."""

    def read(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
        table = build_intensities(
            frame["row_no"],
            parse_times(frame, time, options.tz if naive else "UTC", path),
            parse_numbers(frame, value, path) * GRAMS_PER_KWH[options.unit or unit],
            zone=_require_zone(options, path),
            signal=options.signal or signal,
            source=options.provider or source,
        )
        return build_grid_data("series", table, frame.height)

    return read


def _read_location_duration(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    """Rows of location, timestamp, duration in minutes and value."""
    table = build_intensities(
        frame["row_no"],
        parse_times(frame, "timestamp", "UTC", path),
        parse_numbers(frame, "value", path) * GRAMS_PER_KWH[options.unit or "g"],
        zone=options.zone or frame["location"],
        signal=options.signal or "average_lifecycle",
        source=options.provider or "location/timestamp/duration series",
        minutes=parse_numbers(frame, "duration", path).cast(pl.Int64),
    )
    return build_grid_data("location-duration", table, frame.height)


_GENERIC_TIMES = ("valid_from", "ts", "timestamp", "datetime", "time")
_GENERIC_VALUES = ("intensity_g_per_kwh", "carbon_intensity", "intensity")


def _find_generic_columns(columns: list[str]) -> tuple[str, str] | None:
    lower = {c.lower().replace(" ", "_"): c for c in columns}
    time = next((lower[c] for c in _GENERIC_TIMES if c in lower), None)
    value = next((lower[c] for c in _GENERIC_VALUES if c in lower), None)
    return (time, value) if time and value else None


def _read_generic(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    """Columns with the usual names, zone and estimates where there are any."""
    columns = _find_generic_columns(frame.columns)
    if columns is None:
        raise BadInput("no column of times and intensities", where=str(path), remedy=REMEDY)
    time, value = columns
    zone: pl.Series | str
    if options.zone or "zone" not in frame.columns:
        zone = _require_zone(options, path)
    else:
        zone = frame["zone"]
    estimated = None
    if "is_estimated" in frame.columns:
        estimated = _parse_flags(frame["is_estimated"])
    table = build_intensities(
        frame["row_no"],
        parse_times(frame, time, options.tz, path),
        parse_numbers(frame, value, path) * GRAMS_PER_KWH[options.unit or "g"],
        zone=zone,
        signal=options.signal or "average_lifecycle",
        source=options.provider or path.name,
        estimated=estimated,
    )
    if "valid_to" in frame.columns:
        table = table.with_columns(valid_to=parse_times(frame, "valid_to", options.tz, path))
    return build_grid_data("generic", table, frame.height)


def _read_entsoe_mix(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    """ENTSO-E's table of generation: times in the first column, then a production type each."""
    starts = parse_times(frame, frame.columns[1], options.tz, path)
    zone = _require_zone(options, path)
    kilowatts = 1.0 if options.unit == "kW" else 1000.0
    distinct = starts.unique().sort()
    intervals = pl.DataFrame({"valid_from": distinct, "valid_to": compute_interval_ends(distinct)})
    fuels = [
        pl.DataFrame(
            {
                "zone": pl.repeat(zone, frame.height, eager=True),
                "valid_from": starts,
                "fuel": pl.repeat(_find_fuel(column, path), frame.height, eager=True),
                "generation_kw": (parse_numbers(frame, column, path) * kilowatts)
                .round()
                .cast(pl.Int64),
                "row_no": frame["row_no"].cast(pl.Int64),
            }
        ).drop_nulls("generation_kw")
        for column in frame.columns[2:]
    ]
    table = (
        pl.concat(fuels)
        # Production types that share a fuel add up.
        .group_by("zone", "valid_from", "fuel", "row_no", maintain_order=True)
        .agg(pl.col("generation_kw").sum())
        .join(intervals, on="valid_from", how="left", validate="m:1", maintain_order="left")
        .with_columns(
            source=pl.lit(options.provider or "ENTSO-E Transparency Platform"),
            is_estimated=pl.lit(False),
        )
    )
    return build_grid_data("entsoe-generation-csv", table, frame.height)


def _find_fuel(production_type: str, path: Path) -> str:
    fuel = PRODUCTION_TYPES.get(production_type)
    if fuel is None:
        raise BadInput(
            f"unknown production type {production_type!r}",
            where=locate(path, 1),
            remedy=f"Known: {', '.join(PRODUCTION_TYPES)}",
        )
    return fuel


LAYOUTS = (
    Layout(
        "electricity-maps-csv",
        lambda columns: "Datetime (UTC)" in columns and "Zone Id" in columns,
        _read_electricity_maps,
    ),
    Layout(
        "sgip-moer",
        lambda columns: {"time", "moer"} <= set(columns),
        _read_two_columns(
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
        lambda columns: {"location", "timestamp", "duration", "value"} <= set(columns),
        _read_location_duration,
    ),
    Layout(
        "lets-wait-awhile",
        lambda columns: {"Time", "Carbon Intensity"} <= set(columns),
        _read_two_columns(
            "Time",
            "Carbon Intensity",
            unit="g",
            signal="average_lifecycle",
            source="ENTSO-E mix x IPCC factors",
            naive=True,
        ),
    ),
    Layout(
        "entsoe-generation-csv",
        lambda columns: len(set(columns) & set(PRODUCTION_TYPES)) >= 2,
        _read_entsoe_mix,
    ),
    Layout(
        "generic",
        lambda columns: _find_generic_columns(columns) is not None,
        _read_generic,
    ),
)
"""The layouts of tables; of several that fit, the first one counts."""


def read_described(
    frame: pl.DataFrame, source: GridSource, options: Options, path: Path
) -> GridData:
    """Read a table whose columns are described in [grid_sources].

    Args:
        frame: The file as strings, and `row_no`.
        source: Which column is what.
        options: Come before the description.
        path: The file, for the message.

    Raises:
        BadInput: a column is missing, or a value cannot be understood.
    """
    for column in (source.ts.column, source.intensity.column):
        if column not in frame.columns:
            raise BadInput(
                f"no column {column!r}",
                where=str(path),
                remedy=f"It has {', '.join(frame.columns[1:])}. {REMEDY}",
            )
    gram = GRAMS_PER_KWH[source.intensity.unit or "g"]
    table = build_intensities(
        frame["row_no"],
        parse_times(frame, source.ts.column, options.tz or source.tz, path),
        parse_numbers(frame, source.intensity.column, path) * gram,
        zone=options.zone or source.zone,
        signal=options.signal or source.signal,
        source=options.provider or source.source or path.name,
        estimated=_parse_flags(frame[source.estimated]) if source.estimated else None,
    )
    return build_grid_data("mapped", table, frame.height)


def find_electricity_maps_hours(answer: Any) -> list[dict[str, Any]]:
    """The hours in an answer of Electricity Maps' API that have a value.

    An hour that is not known yet has none, and neither has a refusal with HTTP 200.
    """
    if not isinstance(answer, dict):
        return []
    hours = [answer] if "carbonIntensity" in answer else answer.get("history") or answer.get("data")
    return [
        hour
        for hour in (hours if isinstance(hours, list) else [])
        if isinstance(hour, dict) and hour.get("carbonIntensity") is not None
    ]


def read_electricity_maps_answer(answer: Any, path: Path) -> GridData:
    """Read an answer of Electricity Maps' API that somebody saved.

    Raises:
        BadInput: it holds no intensities, or a value cannot be understood.
    """
    hours = find_electricity_maps_hours(answer)
    if not hours:
        status = answer.get("status", "") if isinstance(answer, dict) else ""
        raise BadInput(
            f"the answer holds no intensities{f' (status {status})' if status else ''}",
            where=str(path),
            remedy="Ask the provider for another zone or time",
        )
    frame = pl.DataFrame(
        {
            "row_no": range(1, len(hours) + 1),
            "datetime": [str(hour.get("datetime")) for hour in hours],
            "zone": [str(hour.get("zone") or answer.get("zone")) for hour in hours],
            "value": [hour.get("carbonIntensity") for hour in hours],
            "kind": [hour.get("emissionFactorType", "lifecycle") for hour in hours],
            "estimated": [bool(hour.get("isEstimated")) for hour in hours],
        }
    )
    direct = frame["kind"].unique().to_list() == ["direct"]
    table = build_intensities(
        frame["row_no"],
        parse_times(frame, "datetime", "UTC", path),
        parse_numbers(frame, "value", path),
        zone=frame["zone"],
        signal="average_direct" if direct else "average_lifecycle",
        source="Electricity Maps API",
        estimated=frame["estimated"],
    )
    return build_grid_data("electricity-maps-json", table, frame.height)
