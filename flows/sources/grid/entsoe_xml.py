"""ENTSO-E's documents of generation by production type (A75)."""

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
from flows.rows import RowFaults
from flows.sources.grid.fuels import PSR_TYPES
from flows.times import EARLIEST, FUTURE, UNBELIEVABLE

ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "zone": pl.String,
    "valid_from": pl.Datetime("us", "UTC"),
    "valid_to": pl.Datetime("us", "UTC"),
    "fuel": pl.String,
    "type": pl.String,
    "kilowatts": pl.Float64,
    "source": pl.String,
    "is_estimated": pl.Boolean,
    "row_no": pl.Int64,
}
"""Columns of the rows that documents give."""

_MOST = 3_000_000
"""Intervals that a document may come to."""
_SPAN = timedelta(days=400)
"""The longest period: the platform answers for a year at most."""
_DOCUMENTS = {
    "A65": "a load",
    "A44": "day-ahead prices",
    "A68": "installed capacities",
    "A69": "a forecast of wind and sun",
    "A70": "a forecast of margins",
    "A71": "a forecast of generation",
    "A72": "reservoir levels",
    "A73": "generation of single plants",
    "A74": "generation of wind and sun alone",
    "A80": "outages of generation",
    "A11": "flows between zones",
    "A09": "schedules between zones",
}
"""Types of documents that are no generation by type."""
_FORECASTS = {"A01": "a day-ahead forecast", "A33": "a year", "A40": "an intraday forecast"}
"""Types of processes that realise nothing."""


@dataclass(frozen=True)
class _Element:
    """An element of a document; `place` names it in messages."""

    node: ElementTree.Element
    namespaces: dict[str, str]
    place: str

    def find_text(self, query: str) -> str:
        """The text of an element below this one; empty where there is none."""
        return self.node.findtext(query, default="", namespaces=self.namespaces).strip()

    def read_text(self, query: str) -> str:
        """The text of an element below this one.

        Raises:
            BadInput: there is none.
        """
        text = self.find_text(query)
        if not text:
            raise BadInput(f"no {query.rsplit(':', 1)[-1]}", where=self.place)
        return text

    def find_all(self, tag: str) -> list[_Element]:
        nodes = self.node.findall(tag, self.namespaces)
        return [_Element(node, self.namespaces, self.place) for node in nodes]

    def has(self, tag: str) -> bool:
        return self.node.find(tag, self.namespaces) is not None


@dataclass
class _Reading:
    """A document while it is read: its points are counted, and bad ones set aside by their number."""

    path: Path
    faults: RowFaults
    points: int = 0
    values: int = 0

    def refuse(self, number: int, reason: str, field: str, value: object) -> None:
        self.faults.add(number, reason, field, value, "Fetch it again")

    def count(self, intervals: int) -> None:
        self.values += intervals
        if self.values > _MOST:
            raise BadInput(
                f"the document comes to more than {_MOST:,} intervals",
                where=str(self.path),
                remedy="Ask for a shorter time",
            )


def read_entsoe_document(
    plain: Path | TextIO,
    path: Path,
    zone: str,
    provider: str,
    faults: RowFaults,
    points_before: int = 0,
) -> tuple[pl.DataFrame, int]:
    """Read "actual generation per type" of the ENTSO-E Transparency Platform.

    Curve type A03 leaves out repeated values, which hold until the next point or the end of the
    period; in A01 a missing point is a gap. outBiddingZone series (pumping) count as negative.

    Args:
        plain: The document as text.
        path: The file that it came from, for messages.
        zone: Name of the zone; the document's own if empty.
        provider: Who says so; ENTSO-E if empty.
        faults: Collects the bad points, by their number in the document.
        points_before: Points of the documents before this one, where an answer has several.

    Returns:
        `ROWS`: a row for each production type and interval; and the number of points.

    Raises:
        BadInput: not such a document.
    """
    root = _parse(plain, path)
    name = root.tag.rsplit("}", 1)[-1]
    namespaces = {"m": root.tag[1:].split("}")[0]} if "}" in root.tag else {"m": ""}
    document = _Element(root, namespaces, str(path))
    _refuse_others(document, name)
    source = provider or "ENTSO-E Transparency Platform"
    reading = _Reading(path, faults, points_before)
    rows: list[tuple[Any, ...]] = []
    for number, series in enumerate(document.find_all("m:TimeSeries"), 1):
        named = _Element(series.node, namespaces, f"{path}, series {number}")
        area, kind, values = _read_time_series(named, reading)
        rows += [
            (
                zone or area,
                start,
                end,
                PSR_TYPES[kind.strip("-")],
                kind,
                kilowatts,
                source,
                False,
                point,
            )
            for start, end, kilowatts, point in values
        ]
    return pl.DataFrame(rows, schema=ROWS, orient="row"), reading.points - points_before


def _parse(plain: Path | TextIO, path: Path) -> ElementTree.Element:
    text = plain.read_text("utf-8") if isinstance(plain, Path) else plain.read()
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInput(
            "the document declares entities",
            where=str(path),
            remedy="No answer does; fetch it again",
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadInput(
            f"not XML: {error}", where=locate(path, error.position[0]), remedy="Fetch it again"
        ) from None


def _refuse_others(document: _Element, name: str) -> None:
    """Refuse what is no actual generation by type, by its name."""
    remedy = "Ask for documentType A75, processType A16"
    if name != "GL_MarketDocument":
        texts = (node.text for node in document.node.iter() if node.tag.endswith("}text"))
        reason = next((text.strip() for text in texts if text), "")
        kind = _DOCUMENTS.get(document.find_text("m:type"), "")
        what = f"a {name}" + (f" ({kind})" if kind else "")
        raise BadInput(
            f"{what}, not generation{f': {reason}' if reason else ''}",
            where=document.place,
            remedy=remedy,
        )
    kind = document.find_text("m:type") or "A75"
    if kind != "A75":
        raise BadInput(
            f"the document is {_DOCUMENTS.get(kind, 'of another kind')} ({kind}), not generation by type",
            where=document.place,
            remedy=remedy,
        )
    process = document.find_text("m:process.processType") or "A16"
    if process != "A16":
        raise BadInput(
            f"the document is {_FORECASTS.get(process, 'of another process')} ({process}), "
            "not what was generated",
            where=document.place,
            remedy=remedy,
        )


Value = tuple[datetime, datetime, float | None, int]
"""Start, end, kilowatts and number of the point of an interval."""


def _read_time_series(series: _Element, reading: _Reading) -> tuple[str, str, list[Value]]:
    """Area, production type (with - where it takes from the grid), and the values of a series.

    A series whose head cannot be understood has all its points set aside.
    """
    kind = series.find_text(".//m:psrType")
    pumping = series.has("m:outBiddingZone_Domain.mRID")
    area = series.find_text(f"m:{'out' if pumping else 'in'}BiddingZone_Domain.mRID")
    unit = series.find_text("m:quantity_Measure_Unit.name")
    fault = ("", "", "")
    if not kind:
        raise BadInput("no psrType", where=series.place)
    if kind not in PSR_TYPES:
        fault = (f"unknown production type {kind!r}", "psrType", kind)
    elif unit != "MAW":
        fault = ("the unit is not MAW (megawatt)", "quantity_Measure_Unit.name", unit)
    elif not area:
        fault = ("no BiddingZone_Domain.mRID", "mRID", "")
    values: list[Value] = []
    carries = series.find_text("m:curveType") == "A03"
    for period in series.find_all("m:Period"):
        points = period.find_all("m:Point")
        first = reading.points + 1
        reading.points += len(points)
        if not fault[0]:
            values += _read_period(period, points, first, carries, reading)
            continue
        for number in range(first, first + len(points)):
            reading.refuse(number, *fault)
    if fault[0]:
        return area, "B20", []
    sign = -1.0 if pumping else 1.0
    signed = [(a, b, None if mw is None else sign * mw * 1000, n) for a, b, mw, n in values]
    return area, f"{kind}-" if pumping else kind, signed


def _read_period(
    period: _Element, points: list[_Element], first_number: int, carries: bool, reading: _Reading
) -> Iterator[Value]:
    """The intervals of a period; `carries`: a value holds until the next one."""
    try:
        first, last = (
            _parse_moment(period.read_text(f"m:timeInterval/m:{end}"), period.place)
            for end in ("start", "end")
        )
        step = _parse_resolution(period.read_text("m:resolution"), period.place)
        if last - first > _SPAN:
            raise BadInput(
                f"a period of {(last - first).days:,} days",
                where=period.place,
                remedy="Ask for less",
            )
    except BadInput as error:
        for number in range(first_number, first_number + len(points)):
            reading.refuse(number, error.what, "Period", "")
        return
    count = max(0, (last - first) // step)
    reading.count(count if carries else len(points))
    latest = datetime.now(UTC) + FUTURE
    known = _read_points(points, first_number, count, reading)
    value: tuple[float | None, int] | None = None
    for position in range(1, count + 1):
        value = known.get(position, value if carries else None)
        if value is None:
            continue
        start = first + (position - 1) * step
        if not EARLIEST <= start <= latest:
            reading.refuse(value[1], UNBELIEVABLE, "start", start)
            continue
        yield start, start + step, value[0], value[1]


_NUMBER = re.compile(r"[+-]?\d{1,12}(\.\d*)?([eE][+-]?\d{1,2})?")
_SENTINELS = re.compile(r"-?9{5,}(\.0*)?|-9{3,}(\.0*)?")


def _read_points(
    points: list[_Element], first_number: int, count: int, reading: _Reading
) -> dict[int, tuple[float | None, int]]:
    """Position -> megawatts (None where they cannot be used, so that nothing is carried over) and number."""
    known: dict[int, tuple[float | None, int]] = {}
    for number, point in enumerate(points, first_number):
        place, text = point.find_text("m:position"), point.find_text("m:quantity")
        if not re.fullmatch(r"\d{1,7}", place) or not 1 <= int(place) <= count:
            reading.refuse(number, "the position lies outside of the period", "position", place)
            continue
        value: float | None = None
        if _SENTINELS.fullmatch(text):
            reading.refuse(number, "a number that stands for a missing value", "quantity", text)
        elif _NUMBER.fullmatch(text):
            value = float(text)
        else:
            reading.refuse(number, "not a usable value", "quantity", text)
        other = known.get(int(place))
        if other is not None and other[0] != value:
            for bad in (other[1], number):
                reading.refuse(
                    bad, "the position is given twice, with two values", "position", place
                )
            value = None
        known[int(place)] = (value, number)
    return known


def _parse_moment(text: str, place: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput("not a time", where=f"{place}, value {text!r}") from None


def _parse_resolution(text: str, place: str) -> timedelta:
    match = re.fullmatch(r"PT(\d{1,2})(M|H)", text)
    step = (
        timedelta(minutes=int(match[1]) * (60 if match[2] == "H" else 1)) if match else timedelta()
    )
    if not timedelta(minutes=1) <= step <= timedelta(hours=1):
        raise BadInput(f"unknown resolution {text!r}", where=place)
    return step
