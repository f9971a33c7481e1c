"""Answers of providers in JSON, by what they hold: read, or named for what they are instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput
from flows.sources.grid.eia_answers import read_eia
from flows.sources.grid.entsoe_xml import ROWS
from flows.sources.grid.fuels import ELECTRICITY_MAPS_FUELS
from flows.sources.grid.generation import build_mix, parse_megawatts
from flows.sources.grid.series import (
    GRAMS_PER_KWH,
    GridData,
    Limits,
    build_grid_data,
    build_intensities,
)
from flows.sources.grid.tables import Options, as_text

_GRANULARITY = {
    "5_minutes": 5,
    "5minutes": 5,
    "15_minutes": 15,
    "15minutes": 15,
    "30_minutes": 30,
    "hourly": 60,
    "daily": 1440,
}
_NOT_WANTED = {
    "renewablePercentage": "a share of renewable energy",
    "fossilFreePercentage": "a share of fossil-free energy",
    "price": "prices",
    "import": "flows between zones",
    "level": "a level of intensity without a number",
}


def list_items(answer: Any, *keys: str) -> list[dict[str, Any]]:
    """The objects in the first list of these names that an answer has."""
    if not isinstance(answer, dict):
        return []
    found: list[Any] = next((answer[key] for key in keys if isinstance(answer.get(key), list)), [])
    return [item for item in found if isinstance(item, dict)]


def read_answer(answer: Any, path: Path, options: Options, limits: Limits) -> GridData:
    """Read an answer that somebody saved.

    Raises:
        BadInput: it holds no intensities and no generation, or too much of it cannot be understood.
    """
    if isinstance(answer, dict) and "response" in answer:
        return read_eia(answer, path, options, limits)
    if isinstance(answer, list):  # Hours, without what held them.
        answer = {"data": answer}
    if isinstance(answer, dict):
        mix = _list_breakdowns(answer)
        if mix:
            return _read_breakdowns(mix, answer, path, options, limits)
        if has_hours(answer):
            return _read_electricity_maps(answer, path, options, limits)
        if any("intensity" in item for item in _list_half_hours(answer)):
            return _read_uk(answer, path, options, limits)
        if any("point_time" in item for item in list_items(answer, "data")):
            return _read_watttime(answer, path, options, limits)
    raise _name_other(answer, path)


def _name_other(answer: Any, path: Path) -> BadInput:
    remedy = "Ask for carbon intensities, or for generation by fuel"
    status = error = ""
    if isinstance(answer, dict):
        status = str(answer.get("status") or "")
        error = str(answer.get("error") or answer.get("message") or "")[:120]
        items = list_items(answer, "data", "history", "forecast") or [answer]
        if "forecast" in answer:
            return BadInput("a forecast, not what was measured", where=str(path), remedy=remedy)
        half_hours = _list_half_hours(answer)
        if any("generationmix" in item for item in half_hours):
            return BadInput(
                "a generation mix in percent, which has no generation to weigh",
                where=str(path),
                remedy="Ask for intensities (/intensity)",
            )
        for key, what in _NOT_WANTED.items():
            if any(key in item for item in items):
                return BadInput(f"{what}, not intensities", where=str(path), remedy=remedy)
    said = f" (status {status})" if status else f": {error}" if error else ""
    return BadInput(f"the answer holds no intensities{said}", where=str(path), remedy=remedy)


def list_hours(answer: Any) -> list[dict[str, Any]]:
    """The hours in an answer of Electricity Maps' carbon intensities, those without a value too."""
    if not isinstance(answer, dict):
        return []
    if "carbonIntensity" in answer:
        return [answer]
    return [h for h in list_items(answer, "history", "data") if "carbonIntensity" in h]


def has_hours(answer: Any) -> bool:
    """Whether an answer has an hour with a value; a refusal with HTTP 200 has none."""
    return any(hour["carbonIntensity"] is not None for hour in list_hours(answer))


def find_minutes(answer: Mapping[str, Any]) -> int | None:
    """How long the intervals of an answer last, where it says so."""
    said = str(answer.get("temporalGranularity") or "").lower()
    return _GRANULARITY.get(said)


def _read_electricity_maps(
    answer: dict[str, Any], path: Path, options: Options, limits: Limits
) -> GridData:
    hours = list_hours(answer)
    frame = pl.DataFrame(
        {
            "row_no": range(1, len(hours) + 1),
            "datetime": [as_text(hour.get("datetime")) for hour in hours],
            "zone": [as_text(hour.get("zone") or answer.get("zone")) for hour in hours],
            "value": [as_text(hour.get("carbonIntensity")) for hour in hours],
            "kind": [str(hour.get("emissionFactorType") or "lifecycle") for hour in hours],
            "estimated": [bool(hour.get("isEstimated")) for hour in hours],
        },
        schema_overrides={"datetime": pl.String, "zone": pl.String, "value": pl.String},
    )
    faults = limits.collect(path)
    frame = faults.parse_times(frame, "datetime", "UTC", to="valid_from", by="zone")
    frame = faults.parse_numbers(frame, "value", to="_value", field="carbonIntensity")
    if not options.zone:
        frame = faults.drop(
            frame, pl.col("zone").is_null(), "no zone", remedy="Name it with --zone"
        )
    minutes = find_minutes(answer)
    tables = [
        build_intensities(
            part,
            "_value",
            zone=options.zone,
            zone_column="zone",
            signal=options.signal
            or ("average_direct" if kind == "direct" else "average_lifecycle"),
            source=options.provider or "Electricity Maps API",
            estimated="estimated",
            length=pl.duration(minutes=minutes) if minutes else None,
        )
        for (kind,), part in frame.partition_by("kind", as_dict=True, maintain_order=True).items()
    ]
    rows = pl.concat(tables) if tables else None
    return build_grid_data(
        "electricity-maps-json",
        rows if rows is not None else _no_intensities(),
        faults,
        len(hours),
        unit="g/kWh",
        limits=limits,
    )


def _no_intensities() -> pl.DataFrame:
    frame = pl.DataFrame(
        schema={"row_no": pl.Int64, "valid_from": ROWS["valid_from"], "value": pl.Float64}
    )
    return build_intensities(frame, "value", zone="", signal="", source="")


_BREAKDOWNS = ("powerProductionBreakdown", "mix", "production")


def _list_breakdowns(answer: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Items of an answer with a breakdown of production by mode, and the breakdowns."""
    items = [answer] if any(key in answer for key in _BREAKDOWNS) else []
    items = items or list_items(answer, "history", "data")
    return [
        (item, breakdown)
        for item in items
        if isinstance(breakdown := next((item[k] for k in _BREAKDOWNS if k in item), None), dict)
    ]


def _read_breakdowns(
    items: list[tuple[dict[str, Any], dict[str, Any]]],
    answer: dict[str, Any],
    path: Path,
    options: Options,
    limits: Limits,
) -> GridData:
    """Electricity Maps' power breakdowns (MW by mode of production), and its electricity mixes."""
    unit = str(answer.get("unit") or "MW")
    if unit != "MW":
        raise BadInput(f"a breakdown in {unit}, not in MW", where=str(path), remedy="Ask for power")
    faults = limits.collect(path)
    places = {}
    values: list[tuple[int, str, str | None]] = []
    for number, (item, breakdown) in enumerate(items, 1):
        places[number] = (
            number,
            as_text(item.get("datetime")),
            as_text(item.get("zone") or answer.get("zone")),
            bool(item.get("isEstimated")),
        )
        for mode, value in breakdown.items():
            if mode in ELECTRICITY_MAPS_FUELS and not isinstance(value, dict):
                values.append((number, mode, as_text(value)))
            elif mode not in ELECTRICITY_MAPS_FUELS and mode != "flows" and value is not None:
                faults.add(number, f"unknown mode of production {mode!r}", mode, value)
    hours = pl.DataFrame(
        list(places.values()),
        schema={
            "row_no": pl.Int64,
            "datetime": pl.String,
            "zone": pl.String,
            "is_estimated": pl.Boolean,
        },
        orient="row",
    )
    hours = faults.parse_times(hours, "datetime", "UTC", to="valid_from", by="zone")
    minutes = find_minutes(answer) or 60
    frame = pl.DataFrame(
        values, schema={"row_no": pl.Int64, "type": pl.String, "value": pl.String}, orient="row"
    )
    frame = parse_megawatts(faults, frame, "value", to="megawatts", field="breakdown")
    zone = pl.lit(options.zone) if options.zone else pl.col("zone")
    rows = frame.join(
        hours, on="row_no", how="inner", validate="m:1", maintain_order="left"
    ).select(
        zone=zone.fill_null(""),
        valid_from="valid_from",
        valid_to=pl.col("valid_from") + pl.duration(minutes=minutes),
        fuel=pl.col("type").replace_strict(ELECTRICITY_MAPS_FUELS, return_dtype=pl.String),
        type="type",
        kilowatts=pl.col("megawatts") * 1000,
        source=pl.lit(options.provider or "Electricity Maps API"),
        is_estimated="is_estimated",
        row_no="row_no",
    )
    faults.skip("on rows that were set aside", frame.height - rows.height)
    return build_mix("electricity-maps-mix", rows, faults, len(items), limits=limits, unit="MW")


def _list_half_hours(answer: Any) -> list[dict[str, Any]]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if (
        isinstance(data, list)
        and len(data) == 1
        and isinstance(data[0], dict)
        and "data" in data[0]
    ):
        data = data[0]
    return list_items(data if isinstance(data, dict) else answer, "data")


def list_uk_values(half_hours: Iterable[Mapping[str, Any]]) -> list[tuple[Any, Any, bool]]:
    """Start, value and whether it is a forecast, of half hours of the UK Carbon Intensity API.

    A half hour without a measured value keeps its forecast, marked as estimated.
    """
    rows = []
    for item in half_hours:
        intensity = item.get("intensity")
        intensity = intensity if isinstance(intensity, dict) else {}
        actual, forecast = intensity.get("actual"), intensity.get("forecast")
        rows.append((item.get("from"), forecast if actual is None else actual, actual is None))
    return rows


def _read_uk(answer: dict[str, Any], path: Path, options: Options, limits: Limits) -> GridData:
    return read_values(
        "uk-carbon-intensity",
        list_uk_values(_list_half_hours(answer)),
        path,
        limits,
        zone=options.zone or "GB",
        signal=options.signal or "average_direct",
        source=options.provider or "UK Carbon Intensity API",
        minutes=30,
    )


def _read_watttime(
    answer: dict[str, Any], path: Path, options: Options, limits: Limits
) -> GridData:
    meta = answer.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if "generated_at" in meta or "generated_at" in answer:
        raise BadInput(
            "a forecast, not what was measured", where=str(path), remedy="Ask for /historical"
        )
    refuse_other_signal(meta, path)
    return read_values(
        "watttime",
        [
            (item.get("point_time"), item.get("value"), bool(item.get("imputed", False)))
            for item in list_items(answer, "data")
        ],
        path,
        limits,
        zone=options.zone or str(meta.get("region") or ""),
        signal="marginal",
        source=options.provider or "WattTime v3 co2_moer",
        minutes=max(1, int(meta.get("data_point_period_seconds") or 300) // 60),
        unit="lb_per_mwh",
    )


def refuse_other_signal(meta: Mapping[str, Any], path: Path) -> None:
    """Refuse answers of WattTime that are no marginal emissions.

    Raises:
        BadInput: another signal or unit.
    """
    if meta.get("units") != "lbs_co2_per_mwh" or meta.get("signal_type") != "co2_moer":
        raise BadInput(
            f"not co2_moer in lbs_co2_per_mwh: {meta.get('signal_type')!r}, {meta.get('units')!r}",
            where=str(path),
        )


def read_values(
    layout: str,
    rows: Sequence[tuple[Any, Any, bool]],
    path: Path,
    limits: Limits,
    *,
    zone: str,
    signal: str,
    source: str,
    minutes: int,
    unit: str = "g",
) -> GridData:
    """A series from what an answer lists.

    Args:
        layout: The name of the answer's form.
        rows: Start, value, and whether the provider estimated it.
        path: The file of the answer, for messages.
        limits: What is believed.
        zone: Grid zone.
        signal: What kind of intensity the values are.
        source: Who says so.
        minutes: How long each interval lasts.
        unit: Unit of the values, one of `GRAMS_PER_KWH`.

    Raises:
        BadInput: too many of them cannot be understood, named by their place in the answer.
    """
    faults = limits.collect(path)
    frame = pl.DataFrame(
        [
            (n, as_text(start), as_text(value), flag)
            for n, (start, value, flag) in enumerate(rows, 1)
        ],
        schema={
            "row_no": pl.Int64,
            "datetime": pl.String,
            "intensity": pl.String,
            "flag": pl.Boolean,
        },
        orient="row",
    )
    frame = faults.parse_times(frame, "datetime", "UTC", to="valid_from")
    frame = faults.parse_numbers(frame, "intensity", to="_value")
    table = build_intensities(
        frame,
        "_value",
        zone=zone,
        signal=signal,
        source=source,
        grams=GRAMS_PER_KWH[unit],
        estimated="flag",
        length=pl.duration(minutes=minutes),
    )
    name = {"g": "g/kWh", "kg": "kg/kWh", "lb_per_mwh": "lb/MWh"}[unit]
    return build_grid_data(layout, table, faults, len(rows), unit=name, limits=limits)
