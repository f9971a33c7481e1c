"""Meters of hosts and sites as CSV: PDU, IPMI, the utility's bill (docs/formats.md)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flows import times
from flows.errors import BadInput, UsageError, locate
from flows.rows import ANOTHER_ROW, MAX_BAD_SHARE, RowFaults
from flows.sources.csv_rows import read_csv, split_header

COLUMNS = ("meter", "scope", "metered", "valid_from", "valid_to", "energy_kwh")
SCOPES = ("host", "site")
_MOST_KWH = 1e9


@dataclass(frozen=True, order=True)
class MeterInterval:
    """What a meter counted of a host or a site between two times."""

    meter: str
    scope: str
    metered: str
    valid_from: datetime
    valid_to: datetime
    energy_mj: int


@dataclass
class MetersRead:
    """What was made of a file: each row is an interval, skipped by reason, or set aside."""

    faults: RowFaults
    intervals: list[MeterInterval]
    rows: int


def is_meter_table(first_line: str) -> bool:
    """Whether the first line of a file is that of a table of meters."""
    return set(COLUMNS) <= set(split_header(first_line)[1])


def read(path: Path, plain: Path, tz: str, max_share: float = MAX_BAD_SHARE) -> MetersRead:
    """Read the intervals of a file, in order.

    Args:
        path: The file, for messages.
        plain: Its text.
        tz: The zone of times that carry none; empty if such times are refused.
        max_share: Part of the rows that may be bad.

    Raises:
        BadInput: a column is missing, or too many rows cannot be used.
    """
    faults = RowFaults(path, max_share)
    table = read_csv(path, plain, faults, COLUMNS)
    rows: dict[MeterInterval, int] = {}
    for number, values in table.rows:
        try:
            interval = _parse_row(values, number, tz, table.separator)
        except (BadInput, UsageError) as error:
            faults.add_error(number, error)
            continue
        if interval in rows:
            faults.skip("repeated rows")
        else:
            rows[interval] = number
    ordered = sorted(rows)
    overlapping = [pair for pair in itertools.pairwise(ordered) if _overlap(*pair)]
    for _, after in overlapping:
        faults.add(
            rows[after],
            f"intervals of meter {after.meter!r} overlap from {after.valid_from:%Y-%m-%dT%H:%MZ}",
            "valid_from",
            remedy="Give each time once",
        )
    faults.check(table.total)
    # Which of two that overlap is right, nobody knows.
    for before, _ in overlapping:
        faults.add(rows[before], ANOTHER_ROW)
    refused = {interval for pair in overlapping for interval in pair}
    sound = [interval for interval in ordered if interval not in refused]
    if not sound:
        faults.check(faults.count)
    return MetersRead(faults, sound, table.total)


def _overlap(interval: MeterInterval, after: MeterInterval) -> bool:
    """Whether two intervals are of one meter and share some time."""
    same = (interval.meter, interval.scope, interval.metered) == (
        after.meter,
        after.scope,
        after.metered,
    )
    return same and after.valid_from < interval.valid_to


def _parse_row(values: Mapping[str, str], line: int, tz: str, separator: str) -> MeterInterval:
    place = f"row {line}"
    for name in COLUMNS:
        if not values[name]:
            raise BadInput("no value", where=locate(place, None, name), remedy="Fill it in")
    if values["scope"] not in SCOPES:
        raise BadInput(
            f"a meter measures a {' or a '.join(SCOPES)}",
            where=locate(place, None, "scope", values["scope"]),
            remedy="Sum up what is finer",
        )
    start, end = times.parse_span(
        ("valid_from", values["valid_from"]), ("valid_to", values["valid_to"]), place, tz
    )
    energy = values["energy_kwh"]
    if separator != "," and re.fullmatch(r"[0-9]+,[0-9]+", energy):
        energy = energy.replace(",", ".")
    try:
        energy_kwh = float(energy)
    except ValueError:
        energy_kwh = -1
    if start is None or end is None or not 0 <= energy_kwh < _MOST_KWH or start >= end:
        raise BadInput(
            "an interval needs an end after its start, and an energy of 0 kWh or more",
            where=locate(place, None, "energy_kwh", values["energy_kwh"]),
            remedy="Fix the row; a meter that counts up needs the difference of two readings",
        )
    if not (times.is_believable(start) and times.is_believable(end)):
        raise BadInput(
            times.UNBELIEVABLE,
            where=locate(place, None, "valid_to", values["valid_to"]),
            remedy="Check the row",
        )
    energy_mj = round(energy_kwh * 3_600_000_000)
    return MeterInterval(values["meter"], values["scope"], values["metered"], start, end, energy_mj)
