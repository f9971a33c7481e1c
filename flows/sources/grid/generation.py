"""Generation per fuel as providers answer: ENTSO-E's XML (A75) and EIA-930's JSON (API v2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

import polars as pl

from flows.errors import BadInput, locate

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

_TIME = pl.Datetime("us", "UTC")
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "zone": pl.String,
    "valid_from": _TIME,
    "valid_to": _TIME,
    "fuel": pl.String,
    "generation_kw": pl.Int64,
    "source": pl.String,
    "is_estimated": pl.Boolean,
    "row_no": pl.Int64,
}


def _build_mix(rows: list[tuple[Any, ...]], path: Path) -> pl.DataFrame:
    if not rows:
        raise BadInput(
            "the answer holds no generation",
            where=str(path),
            remedy="Ask the provider for another zone or time",
        )
    # Types that share a fuel (oil and oil shale), and pumping against generation, add up.
    table = _cut_to_shortest(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
    keys = ["zone", "valid_from", "valid_to", "fuel", "source", "is_estimated"]
    return table.group_by(keys, maintain_order=True).agg(
        pl.col("generation_kw").sum(), pl.col("row_no").min()
    )


def _cut_to_shortest(table: pl.DataFrame) -> pl.DataFrame:
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


@dataclass(frozen=True)
class _Element:
    """An element of a document; `place` names it in messages."""

    node: ElementTree.Element
    namespaces: dict[str, str]
    place: str

    def read_text(self, query: str) -> str:
        """The text of an element below this one.

        Raises:
            BadInput: there is none.
        """
        text = self.node.findtext(query, default="", namespaces=self.namespaces).strip()
        if not text:
            raise BadInput(f"no {query.rsplit(':', 1)[-1]}", where=self.place)
        return text

    def find_all(self, tag: str) -> list[_Element]:
        nodes = self.node.findall(tag, self.namespaces)
        return [_Element(node, self.namespaces, self.place) for node in nodes]

    def has(self, tag: str) -> bool:
        return self.node.find(tag, self.namespaces) is not None


def read_entsoe_document(
    plain: Path | TextIO, path: Path, zone: str, provider: str
) -> pl.DataFrame:
    """Read "actual generation per type" of the ENTSO-E Transparency Platform.

    Curve type A03 leaves out repeated values, which hold until the next point or the end of the
    period; in A01 a missing point is a gap. outBiddingZone series (pumping) count as negative.

    Args:
        plain: The document as text.
        path: The file that it came from, for messages.
        zone: Name of the zone; the document's own if empty.
        provider: Who says so; ENTSO-E if empty.

    Returns:
        zone, valid_from, valid_to (UTC), fuel, generation_kw, source, is_estimated, row_no: a row
        for each fuel and interval.

    Raises:
        BadInput: not such a document, or a value that cannot be understood.
    """
    try:
        root = ElementTree.parse(plain).getroot()
    except ElementTree.ParseError as error:
        raise BadInput(
            f"not XML: {error}", where=locate(path, error.position[0]), remedy="Fetch it again"
        ) from None
    name = root.tag.rsplit("}", 1)[-1]
    if name != "GL_MarketDocument":
        reason = next((e.text for e in root.iter() if e.tag.endswith("}text")), None)
        raise BadInput(
            f"a {name}, not generation{f': {reason}' if reason else ''}",
            where=str(path),
            remedy="Ask for documentType A75, processType A16",
        )
    namespaces = {"m": root.tag[1:].split("}")[0]}
    source = provider or "ENTSO-E Transparency Platform"
    rows: list[tuple[Any, ...]] = []
    for number, node in enumerate(root.findall("m:TimeSeries", namespaces), 1):
        series = _Element(node, namespaces, f"{path}, series {number}")
        area, fuel, values = _read_time_series(series)
        rows += [
            (zone or area, start, end, fuel, kilowatts, source, False, number)
            for start, end, kilowatts in values
        ]
    return _build_mix(rows, path)


def _read_time_series(series: _Element) -> tuple[str, str, list[tuple[datetime, datetime, int]]]:
    """Area, fuel, and start, end and kilowatts of each interval."""
    production_type = series.read_text(".//m:psrType")
    if production_type not in PSR_TYPES:
        raise BadInput(f"unknown production type {production_type!r}", where=series.place)
    if series.read_text("m:quantity_Measure_Unit.name") != "MAW":
        raise BadInput("the unit is not MAW (megawatt)", where=series.place)
    pumping = series.has("m:outBiddingZone_Domain.mRID")
    sign = -1 if pumping else 1
    area = series.read_text(f"m:{'out' if pumping else 'in'}BiddingZone_Domain.mRID")
    carries = series.read_text("m:curveType") == "A03"
    values = [
        (start, end, sign * round(megawatts * 1000))
        for period in series.find_all("m:Period")
        for start, end, megawatts in _read_period(period, carries)
    ]
    return area, PSR_TYPES[production_type], values


def _read_period(period: _Element, carries: bool) -> Iterator[tuple[datetime, datetime, float]]:
    """Start, end and megawatts of each interval; `carries`: a value holds until the next one."""
    first, last = (
        _parse_moment(period.read_text(f"m:timeInterval/m:{end}"), period.place)
        for end in ("start", "end")
    )
    step = _parse_resolution(period.read_text("m:resolution"), period.place)
    points = {
        int(point.read_text("m:position")): float(point.read_text("m:quantity"))
        for point in period.find_all("m:Point")
    }
    value: float | None = None
    for position in range(1, (last - first) // step + 1):
        value = points.get(position, value if carries else None)
        if value is not None:
            start = first + (position - 1) * step
            yield start, start + step, value


def _parse_moment(text: str, place: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise BadInput("not a time", where=f"{place}, value {text!r}") from None


def _parse_resolution(text: str, place: str) -> timedelta:
    minutes = re.fullmatch(r"PT(\d+)M", text)
    if minutes is None:
        raise BadInput(f"unknown resolution {text!r}", where=place)
    return timedelta(minutes=int(minutes[1]))


def read_eia_answer(answer: dict[str, Any], path: Path, zone: str, provider: str) -> pl.DataFrame:
    """Read hourly net generation per energy source as the EIA's API v2 answers it.

    A period is named by the hour in which it ends (Form EIA-930 instructions; so does gridstatus).

    Args:
        answer: The answer, parsed.
        path: The file that it came from, for messages.
        zone: Name of the zone; the respondent if empty.
        provider: Who says so; EIA-930 if empty.

    Returns:
        The columns of `read_entsoe_document`.

    Raises:
        BadInput: a value that cannot be understood, with its place in the answer.
    """
    rows: list[tuple[Any, ...]] = []
    for number, item in enumerate(answer.get("response", {}).get("data", []), 1):
        place = f"{path}, item {number}"
        fuel = EIA_FUELS.get(str(item.get("fueltype")))
        if fuel is None:
            raise BadInput(f"unknown energy source {item.get('fueltype')!r}", where=place)
        if item.get("value-units") != "megawatthours":
            raise BadInput(f"unknown unit {item.get('value-units')!r}", where=place)
        if item.get("value") is None:
            continue
        try:
            end = datetime.strptime(str(item.get("period")), "%Y-%m-%dT%H").replace(tzinfo=UTC)
            megawatts = float(item["value"])
        except (TypeError, ValueError):
            raise BadInput(
                "not a usable period or value",
                where=f"{place}, value {item.get('period')!r}, {item.get('value')!r}",
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
    return _build_mix(rows, path)
