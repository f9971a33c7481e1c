"""Grid data files: carbon-intensity series and generation mixes, in the layouts that exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput, UsageError, where
from flows.files import plain_text
from flows.settings import GridSource
from flows.sources.grid import generation
from flows.times import convert_to_utc
from transforms.constants import FILE_FEED, SIGNALS

GRAMS_PER_KWH = {"g": 1.0, "kg": 1000.0, "lb_per_mwh": 0.45359237}
"""What one unit of intensity is in g/kWh (1 lb = 453.59237 g)."""

_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")


@dataclass(frozen=True)
class Options:
    """What the file itself does not say."""

    zone: str = ""
    signal: str = ""
    unit: str = ""
    tz: str = ""
    provider: str = ""


@dataclass
class GridData:
    """What a file held: intensities, or a generation mix; `row_no` is the row in the file."""

    layout: str
    intensity: pl.DataFrame | None = None
    mix: pl.DataFrame | None = None
    rows_read: int = 0
    duplicates: int = 0
    feed: str = FILE_FEED
    notes: tuple[str, ...] = ()


_REMEDY = "Mend the file, or describe it under [grid_sources.NAME] and pass --source NAME"


def read(
    path: Path, options: Options, layout: str, scratch: Path, source: GridSource | None = None
) -> GridData:
    """Read a file of grid data.

    Raises:
        BadInput: unknown layout, or a value that can't be understood, with row and column.
        UsageError: zone or time zone is not in the file and was not given.
    """
    if options.signal and options.signal not in SIGNALS:
        raise UsageError(
            f"unknown signal {options.signal!r}", remedy=f"One of {', '.join(SIGNALS)}"
        )
    if options.unit and options.unit not in {*GRAMS_PER_KWH, "MW", "kW"}:
        raise UsageError(
            f"unknown unit {options.unit!r}", remedy=f"One of {', '.join(GRAMS_PER_KWH)}, MW, kW"
        )
    name = path.name.removesuffix(".gz")
    if name.endswith(".xml"):
        with plain_text(path, scratch) as plain:
            mix = generation.entsoe_xml(plain, path, options.zone, options.provider)
        return finish("entsoe-xml", mix, ["zone", "fuel"], mix.height)
    if name.endswith(".json"):
        answer = _json(path, scratch)
        if isinstance(answer, dict) and "format" in answer:
            from flows.sources.grid.providers.base import read_kept

            return read_kept(answer, path)
        if isinstance(answer, dict) and "response" in answer:
            mix = generation.eia_json(answer, path, options.zone, options.provider)
            return finish("eia930-json", mix, ["zone", "fuel"], mix.height)
        return _electricity_maps_json(answer, path)
    frame = _table(path, scratch)
    if source is not None:
        return _mapped(frame, source, options, path)
    detected = next((known for known, fits, _ in _LAYOUTS if fits(frame.columns)), "")
    wanted = detected if layout == "auto" else layout
    reader = next((read for known, _, read in _LAYOUTS if known == wanted), None)
    if reader is None:
        known = ", ".join(entry[0] for entry in _LAYOUTS)
        raise BadInput(
            f"no known layout of grid data has the columns {', '.join(frame.columns[1:7])}",
            where=str(path),
            remedy=f"Layouts: {known}. {_REMEDY}",
        )
    return reader(frame, options, path)


def _table(path: Path, scratch: Path) -> pl.DataFrame:
    """The file as strings, with `row_no` counting lines from 1."""
    if path.suffix == ".parquet":
        try:
            frame = pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadInput(f"not a Parquet file: {error}", where=str(path)) from None
        return frame.with_row_index("row_no", 1)
    with plain_text(path, scratch) as plain:
        with plain.open(encoding="utf-8-sig") as file:
            head = file.readline()
        for other in (";", "\t"):
            if other in head and "," not in head:
                raise BadInput(
                    f"fields are separated by {other!r}",
                    where=where(path, 1),
                    remedy="Convert the file to commas",
                )
        try:
            frame = pl.read_csv(plain, infer_schema=False, glob=False)
        except pl.exceptions.PolarsError as error:
            raise BadInput(
                f"not a table: {str(error).splitlines()[0]}", where=str(path), remedy=_REMEDY
            ) from None
    if frame.height == 0:
        raise BadInput("there is a header but no row", where=str(path), remedy="Fetch it again")
    named = frame.rename({c: c.strip().lstrip("\ufeff") for c in frame.columns})
    return named.with_row_index("row_no", 2)


def _number(frame: pl.DataFrame, column: str, path: Path) -> pl.Series:
    text = frame[column].cast(pl.String).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    bad = number.is_null() & text.is_not_null() & (text != "")
    bad = bad | ~number.is_finite().fill_null(True)
    if bad.any():
        first = int(bad.arg_max() or 0)
        raise BadInput(
            "not a usable number",
            where=where(path, frame["row_no"][first], column, text[first]),
            remedy=_REMEDY,
        )
    return number


def _times(frame: pl.DataFrame, column: str, tz: str, path: Path) -> pl.Series:
    raw = frame[column]
    if isinstance(raw.dtype, pl.Datetime):
        us = raw.dt.cast_time_unit("us")
        if raw.dtype.time_zone:
            return us.dt.convert_time_zone("UTC")
        return convert_to_utc(us, tz, path, frame["row_no"])
    text = raw.str.strip_chars().str.replace(r"Z$", "+00:00")
    aware = text.str.contains(r"[+-]\d{2}:?\d{2}$")
    if aware.any():
        plain = text.str.replace("T", " ").str.replace(
            r"(\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)([+-])", "$1 $2"
        )
        parsed = pl.select(
            pl.coalesce(
                plain.str.to_datetime(f"{form} %z", time_unit="us", strict=False)
                for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
            )
        ).to_series()
    else:
        parsed = pl.select(
            pl.coalesce(text.str.to_datetime(f, time_unit="us", strict=False) for f in _FORMATS)
        ).to_series()
    if parsed.null_count():
        first = int(parsed.is_null().arg_max() or 0)
        raise BadInput(
            "not a time",
            where=where(path, frame["row_no"][first], column, raw[first]),
            remedy=_REMEDY,
        )
    if aware.any():
        return parsed.dt.convert_time_zone("UTC")
    return convert_to_utc(parsed, tz, path, frame["row_no"])


def interval_ends(starts: pl.Series) -> pl.Series:
    """End of each interval: its usual step later, or at the next start if that comes sooner.

    The usual step is the median of the steps around it, so a series may change its resolution,
    and a hole does not stretch the interval before it. Takes distinct sorted times.
    """
    if starts.len() < 2:
        return starts.dt.offset_by("1h")
    step = starts.diff().shift(-1).dt.total_microseconds()
    step = step.fill_null(strategy="forward")
    usual = step.cast(pl.Float64).rolling_median(11, min_samples=1, center=True)
    shortest = pl.select(pl.min_horizontal(step, usual.cast(pl.Int64))).to_series()
    return starts + shortest.cast(pl.Duration("us"))


def _series(
    frame: pl.DataFrame,
    starts: pl.Series,
    value: pl.Series,
    zone: pl.Series | str,
    signal: str,
    source: str,
    estimated: pl.Series | None = None,
    minutes: pl.Series | None = None,
) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "zone": zone
            if isinstance(zone, pl.Series)
            else pl.repeat(zone, frame.height, eager=True),
            "valid_from": starts,
            "signal": pl.repeat(signal, frame.height, eager=True),
            "intensity_g_per_kwh": value,
            "source": pl.repeat(source, frame.height, eager=True),
            "is_estimated": estimated
            if estimated is not None
            else pl.repeat(False, frame.height, eager=True),
            "row_no": frame["row_no"].cast(pl.Int64),
        }
    )
    if minutes is not None:
        return table.with_columns(
            valid_to=pl.col("valid_from") + pl.duration(minutes=pl.lit(minutes))
        )
    return _with_ends(table, ["zone", "signal"])


def _with_ends(table: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    parts = []
    for part in table.partition_by(keys, maintain_order=True):
        starts = part["valid_from"].unique().sort()
        ends = pl.DataFrame({"valid_from": starts, "valid_to": interval_ends(starts)})
        parts.append(part.join(ends, on="valid_from", how="left", maintain_order="left"))
    return pl.concat(parts)


def finish(layout: str, table: pl.DataFrame, key: list[str], rows: int) -> GridData:
    values = [c for c in table.columns if c != "row_no"]
    unique = table.unique(values, keep="first", maintain_order=True)
    name = "mix" if "fuel" in key else "intensity"
    data = GridData(layout, rows_read=rows, duplicates=table.height - unique.height)
    setattr(data, name, unique)
    return data


def keyed_times(texts: list[Any], path: Path) -> pl.Series:
    """UTC times from texts with a zone.

    Raises:
        BadInput: one of them is not such a time, named by its place.
    """
    frame = pl.DataFrame({"datetime": [None if t is None else str(t) for t in texts]})
    return _times(frame.cast(pl.String).with_row_index("row_no", 1), "datetime", "UTC", path)


def _need_zone(options: Options, path: Path) -> str:
    if not options.zone:
        raise UsageError(
            "the file does not say which grid zone it is about",
            where=str(path),
            remedy="Name it with --zone, for example --zone DE",
        )
    return options.zone


def _electricity_maps(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    starts = _times(frame, "Datetime (UTC)", "UTC", path)
    zone = options.zone or frame["Zone Id"]
    estimated = frame["Data Estimated"].str.to_lowercase() == "true"
    columns = {
        "average_direct": next((c for c in frame.columns if "direct" in c), ""),
        "average_lifecycle": next(
            (c for c in frame.columns if "LCA" in c or "Life cycle" in c), ""
        ),
    }
    tables = [
        _series(
            frame,
            starts,
            _number(frame, column, path),
            zone,
            signal,
            options.provider or "Electricity Maps yearly file",
            estimated,
        )
        for signal, column in columns.items()
        if column and options.signal in ("", signal)
    ]
    return finish("electricity-maps-csv", pl.concat(tables), ["zone", "signal"], frame.height)


def _simple(
    time: str, value: str, unit: str, signal: str, provider: str, naive: bool
) -> Callable[[pl.DataFrame, Options, Path], GridData]:
    """A reader for two columns: time and intensity."""

    def read_simple(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
        starts = _times(frame, time, options.tz if naive else "UTC", path)
        number = _number(frame, value, path) * GRAMS_PER_KWH[options.unit or unit]
        table = _series(
            frame,
            starts,
            number,
            _need_zone(options, path),
            options.signal or signal,
            options.provider or provider,
        )
        return finish("series", table, ["zone", "signal"], frame.height)

    return read_simple


def _miso(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    table = _series(
        frame,
        _times(frame, "timestamp", "UTC", path),
        _number(frame, "value", path) * GRAMS_PER_KWH[options.unit or "g"],
        options.zone or frame["location"],
        options.signal or "average_lifecycle",
        options.provider or "location/timestamp/duration series",
        minutes=_number(frame, "duration", path).cast(pl.Int64),
    )
    return finish("location-duration", table, ["zone", "signal"], frame.height)


_GENERIC = ("valid_from", "ts", "timestamp", "datetime", "time")
_GENERIC_VALUE = ("intensity_g_per_kwh", "carbon_intensity", "intensity")


def _generic_columns(columns: list[str]) -> tuple[str, str] | None:
    lower = {c.lower().replace(" ", "_"): c for c in columns}
    time = next((lower[c] for c in _GENERIC if c in lower), None)
    value = next((lower[c] for c in _GENERIC_VALUE if c in lower), None)
    return (time, value) if time and value else None


def _generic(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    found = _generic_columns(frame.columns)
    if found is None:
        raise BadInput("no column of times and intensities", where=str(path), remedy=_REMEDY)
    time, value = found
    zone: pl.Series | str
    if options.zone or "zone" not in frame.columns:
        zone = _need_zone(options, path)
    else:
        zone = frame["zone"]
    estimated = None
    if "is_estimated" in frame.columns:
        estimated = frame["is_estimated"].cast(pl.String).str.to_lowercase() == "true"
    table = _series(
        frame,
        _times(frame, time, options.tz, path),
        _number(frame, value, path) * GRAMS_PER_KWH[options.unit or "g"],
        zone,
        options.signal or "average_lifecycle",
        options.provider or path.name,
        estimated,
    )
    if "valid_to" in frame.columns:
        table = table.with_columns(valid_to=_times(frame, "valid_to", options.tz, path))
    return finish("generic", table, ["zone", "signal"], frame.height)


def _mapped(frame: pl.DataFrame, source: GridSource, options: Options, path: Path) -> GridData:
    for column in (source.ts.column, source.intensity.column):
        if column not in frame.columns:
            raise BadInput(
                f"no column {column!r}",
                where=str(path),
                remedy=f"It has {', '.join(frame.columns[1:])}. {_REMEDY}",
            )
    estimated = None
    if source.estimated:
        estimated = frame[source.estimated].cast(pl.String).str.to_lowercase() == "true"
    table = _series(
        frame,
        _times(frame, source.ts.column, options.tz or source.tz, path),
        _number(frame, source.intensity.column, path) * GRAMS_PER_KWH[source.intensity.unit or "g"],
        options.zone or source.zone,
        options.signal or source.signal,
        options.provider or source.source or path.name,
        estimated,
    )
    return finish("mapped", table, ["zone", "signal"], frame.height)


def _entsoe_mix(frame: pl.DataFrame, options: Options, path: Path) -> GridData:
    starts = _times(frame, frame.columns[1], options.tz, path)
    zone = _need_zone(options, path)
    kilo = 1.0 if options.unit == "kW" else 1000.0
    ends = interval_ends(starts.unique().sort())
    spans = pl.DataFrame({"valid_from": starts.unique().sort(), "valid_to": ends})
    parts = []
    for column in frame.columns[2:]:
        fuel = generation.PRODUCTION_TYPES.get(column)
        if fuel is None:
            raise BadInput(
                f"unknown production type {column!r}",
                where=where(path, 1),
                remedy=f"Known: {', '.join(generation.PRODUCTION_TYPES)}",
            )
        power = _number(frame, column, path)
        part = pl.DataFrame(
            {
                "zone": pl.repeat(zone, frame.height, eager=True),
                "valid_from": starts,
                "fuel": pl.repeat(fuel, frame.height, eager=True),
                "generation_kw": (power * kilo).round().cast(pl.Int64),
                "row_no": frame["row_no"].cast(pl.Int64),
            }
        )
        parts.append(part.drop_nulls("generation_kw"))
    keys = ["zone", "valid_from", "fuel", "row_no"]
    table = (
        pl.concat(parts)
        .group_by(keys, maintain_order=True)
        .agg(pl.col("generation_kw").sum())
        .join(spans, on="valid_from", how="left", maintain_order="left")
        .with_columns(
            source=pl.lit(options.provider or "ENTSO-E Transparency Platform"),
            is_estimated=pl.lit(False),
        )
    )
    return finish("entsoe-generation-csv", table, ["zone", "fuel"], frame.height)


def _json(path: Path, scratch: Path) -> Any:
    with plain_text(path, scratch) as plain:
        try:
            return json.loads(plain.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise BadInput(
                f"not JSON: {error.msg}", where=where(path, error.lineno), remedy="Fetch it again"
            ) from None


def electricity_maps_hours(answer: Any) -> list[dict[str, Any]]:
    """The hours in an answer of Electricity Maps' API; those not known yet come without a value.

    Refusals with HTTP 200 have none.
    """
    if not isinstance(answer, dict):
        return []
    found = [answer] if "carbonIntensity" in answer else answer.get("history") or answer.get("data")
    items = found if isinstance(found, list) else []
    return [
        one for one in items if isinstance(one, dict) and one.get("carbonIntensity") is not None
    ]


def _electricity_maps_json(answer: Any, path: Path) -> GridData:
    items = electricity_maps_hours(answer)
    if not items:
        status = answer.get("status", "") if isinstance(answer, dict) else ""
        raise BadInput(
            f"the answer holds no intensities{f' (status {status})' if status else ''}",
            where=str(path),
            remedy="Ask the provider for another zone or time",
        )
    frame = pl.DataFrame(
        {
            "row_no": range(1, len(items) + 1),
            "datetime": [str(item.get("datetime")) for item in items],
            "zone": [str(item.get("zone") or answer.get("zone")) for item in items],
            "value": [item.get("carbonIntensity") for item in items],
            "kind": [item.get("emissionFactorType", "lifecycle") for item in items],
            "estimated": [bool(item.get("isEstimated")) for item in items],
        }
    )
    starts = _times(frame, "datetime", "UTC", path)
    kinds = frame["kind"].unique().to_list()
    signal = "average_direct" if kinds == ["direct"] else "average_lifecycle"
    table = _series(
        frame,
        starts,
        _number(frame, "value", path),
        frame["zone"],
        signal,
        "Electricity Maps API",
        frame["estimated"],
    )
    return finish("electricity-maps-json", table, ["zone", "signal"], frame.height)


_Reader = Callable[[pl.DataFrame, Options, Path], GridData]
_LAYOUTS: list[tuple[str, Callable[[list[str]], bool], _Reader]] = [
    ("electricity-maps-csv", lambda c: "Datetime (UTC)" in c and "Zone Id" in c, _electricity_maps),
    (
        "sgip-moer",
        lambda c: {"time", "moer"} <= set(c),
        _simple("time", "moer", "kg", "marginal", "SGIP / WattTime MOER", naive=False),
    ),
    (
        "location-duration",
        lambda c: {"location", "timestamp", "duration", "value"} <= set(c),
        _miso,
    ),
    (
        "lets-wait-awhile",
        lambda c: {"Time", "Carbon Intensity"} <= set(c),
        _simple(
            "Time",
            "Carbon Intensity",
            "g",
            "average_lifecycle",
            "ENTSO-E mix x IPCC factors",
            naive=True,
        ),
    ),
    (
        "entsoe-generation-csv",
        lambda c: len(set(c) & set(generation.PRODUCTION_TYPES)) >= 2,
        _entsoe_mix,
    ),
    ("generic", lambda c: _generic_columns(c) is not None, _generic),
]
