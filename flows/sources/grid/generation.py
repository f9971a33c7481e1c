"""Generation per fuel as providers answer: ENTSO-E's XML (A75) and EIA-930's JSON (API v2).

Both give a frame of zone, valid_from, valid_to, fuel, generation_kw, source, is_estimated, row_no.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

import polars as pl

from flows.errors import BadInput, where

PRODUCTION_TYPES = {
    "Biomass": "biomass",
    "Fossil Brown coal/Lignite": "lignite",
    "Fossil Coal-derived gas": "gas",
    "Fossil Gas": "gas",
    "Fossil Hard coal": "coal",
    "Fossil Oil": "oil",
    "Fossil Oil shale": "oil",
    "Fossil Peat": "lignite",
    "Geothermal": "geothermal",
    "Hydro Pumped Storage": "storage",
    "Hydro Run-of-river and poundage": "hydro_run_of_river",
    "Hydro Water Reservoir": "hydro_reservoir",
    "Nuclear": "nuclear",
    "Other": "other",
    "Other renewable": "other_renewable",
    "Solar": "solar",
    "Waste": "waste",
    "Wind Offshore": "wind_offshore",
    "Wind Onshore": "wind_onshore",
}
"""ENTSO-E production types by name -> fuels of the factor table. Storage has no factor."""

PSR_TYPES = {
    "B01": "biomass",
    "B02": "lignite",
    "B03": "gas",  # coal-derived gas
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "oil",  # oil shale
    "B08": "lignite",  # peat
    "B09": "geothermal",
    "B10": "storage",
    "B11": "hydro_run_of_river",
    "B12": "hydro_reservoir",
    "B13": "other_renewable",  # marine
    "B14": "nuclear",
    "B15": "other_renewable",
    "B16": "solar",
    "B17": "waste",
    "B18": "wind_offshore",
    "B19": "wind_onshore",
    "B20": "other",
    "B25": "storage",
}
"""ENTSO-E code list, production types -> fuels of the factor table."""

EIA_FUELS = {
    "BAT": "storage",
    "COL": "coal",
    "GEO": "geothermal",
    "NG": "gas",
    "NUC": "nuclear",
    "OES": "storage",
    "OIL": "oil",
    "OTH": "other",
    "PS": "storage",
    "SNB": "solar",
    "SUN": "solar",
    "UES": "storage",
    "UNK": "other",
    "WAT": "hydro_reservoir",
    "WIN": "wind_onshore",
    "WNB": "wind_onshore",
    "WND": "wind_onshore",
}
"""EIA-930 energy sources -> fuels of the factor table."""

_TIMES = pl.Datetime("us", "UTC")
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "zone": pl.String,
    "valid_from": _TIMES,
    "valid_to": _TIMES,
    "fuel": pl.String,
    "generation_kw": pl.Int64,
    "source": pl.String,
    "is_estimated": pl.Boolean,
    "row_no": pl.Int64,
}


def _frame(rows: list[tuple[Any, ...]], path: Path) -> pl.DataFrame:
    if not rows:
        raise BadInput(
            "the answer holds no generation",
            where=str(path),
            remedy="Ask the provider for another zone or time",
        )
    # Types that share a fuel (oil and oil shale), and pumping against generation, add up.
    table = _one_resolution(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
    keys = ["zone", "valid_from", "valid_to", "fuel", "source", "is_estimated"]
    return table.group_by(keys, maintain_order=True).agg(
        pl.col("generation_kw").sum(), pl.col("row_no").min()
    )


def _one_resolution(table: pl.DataFrame) -> pl.DataFrame:
    """Cut longer intervals into the shortest of their zone: power is the same in every part."""
    length = pl.col("valid_to") - pl.col("valid_from")
    shortest = length.min().over("zone")
    parts = (length / shortest).floor().cast(pl.Int64)
    return (
        table.with_columns(shortest=shortest, part=pl.int_ranges(parts))
        .explode("part")
        .with_columns(valid_from=pl.col("valid_from") + pl.col("shortest") * pl.col("part"))
        .with_columns(valid_to=pl.col("valid_from") + pl.col("shortest"))
        .drop("shortest", "part")
    )


def entsoe_xml(plain: Path | TextIO, path: Path, zone: str, provider: str) -> pl.DataFrame:
    """Read "actual generation per type" of the ENTSO-E Transparency Platform.

    Curve type A03 leaves out repeated values, which hold until the next point or the end of the
    period; in A01 a missing point is a gap. outBiddingZone series (pumping) count as negative.

    Raises:
        BadInput: not such a document, or a value that can't be understood.
    """
    try:
        root = ElementTree.parse(plain).getroot()
    except ElementTree.ParseError as error:
        raise BadInput(
            f"not XML: {error}", where=where(path, error.position[0]), remedy="Fetch it again"
        ) from None
    name = root.tag.rsplit("}", 1)[-1]
    if name != "GL_MarketDocument":
        reason = next((e.text for e in root.iter() if e.tag.endswith("}text")), None)
        raise BadInput(
            f"a {name}, not generation{f': {reason}' if reason else ''}",
            where=str(path),
            remedy="Ask for documentType A75, processType A16",
        )
    space = {"m": root.tag[1:].split("}")[0]}
    rows: list[tuple[Any, ...]] = []
    for number, series in enumerate(root.findall("m:TimeSeries", space), 1):
        at = f"{path}, series {number}"

        def text(query: str, node: ElementTree.Element = series, place: str = at) -> str:
            found = node.findtext(query, default="", namespaces=space).strip()
            if not found:
                raise BadInput(f"no {query.rsplit(':', 1)[-1]}", where=place)
            return found

        kind = text(".//m:psrType")
        if kind not in PSR_TYPES:
            raise BadInput(f"unknown production type {kind!r}", where=at)
        if text("m:quantity_Measure_Unit.name") != "MAW":
            raise BadInput("the unit is not MAW (megawatt)", where=at)
        pumping = series.find("m:outBiddingZone_Domain.mRID", space)
        sign = 1 if pumping is None else -1
        area = text(f"m:{'in' if pumping is None else 'out'}BiddingZone_Domain.mRID")
        carried = text("m:curveType") == "A03"
        for period in series.findall("m:Period", space):
            first, last = (
                _moment(text(f"m:timeInterval/m:{end}", period), at) for end in ("start", "end")
            )
            step = _resolution(text("m:resolution", period), at)
            count = (last - first) // step
            points = {
                int(text("m:position", p)): float(text("m:quantity", p))
                for p in period.findall("m:Point", space)
            }
            value: float | None = None
            for position in range(1, count + 1):
                value = points.get(position, value if carried else None)
                if value is not None:
                    start = first + (position - 1) * step
                    rows.append(
                        (
                            zone or area,
                            start,
                            start + step,
                            PSR_TYPES[kind],
                            sign * round(value * 1000),
                            provider or "ENTSO-E Transparency Platform",
                            False,
                            number,
                        )
                    )
    return _frame(rows, path)


def _moment(text: str, at: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise BadInput("not a time", where=f"{at}, value {text!r}") from None


def _resolution(text: str, at: str) -> timedelta:
    minutes = re.fullmatch(r"PT(\d+)M", text)
    if minutes is None:
        raise BadInput(f"unknown resolution {text!r}", where=at)
    return timedelta(minutes=int(minutes[1]))


def eia_json(answer: dict[str, Any], path: Path, zone: str, provider: str) -> pl.DataFrame:
    """Read hourly net generation per energy source as the EIA's API v2 answers it.

    A period is named by the hour in which it ends (Form EIA-930 instructions; so does gridstatus).

    Raises:
        BadInput: a value that can't be understood, with its place in the answer.
    """
    rows: list[tuple[Any, ...]] = []
    for number, item in enumerate(answer.get("response", {}).get("data", []), 1):
        at = f"{path}, item {number}"
        fuel = EIA_FUELS.get(str(item.get("fueltype")))
        if fuel is None:
            raise BadInput(f"unknown energy source {item.get('fueltype')!r}", where=at)
        if item.get("value-units") != "megawatthours":
            raise BadInput(f"unknown unit {item.get('value-units')!r}", where=at)
        if item.get("value") is None:
            continue
        try:
            end = datetime.strptime(str(item.get("period")), "%Y-%m-%dT%H").replace(tzinfo=UTC)
            megawatts = float(item["value"])
        except (TypeError, ValueError):
            raise BadInput(
                "not a usable period or value",
                where=f"{at}, value {item.get('period')!r}, {item.get('value')!r}",
            ) from None
        rows.append(
            (
                zone or str(item.get("respondent")),
                end - timedelta(hours=1),
                end,
                fuel,
                round(megawatts * 1000),
                provider or "EIA-930",
                False,
                number,
            )
        )
    return _frame(rows, path)
