"""Meters of hosts and sites as CSV: PDU, IPMI, the utility's bill (docs/formats.md)."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flows.errors import BadInput, locate
from flows.times import parse_time

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


def is_meter_table(first_line: str) -> bool:
    """Whether the first line of a file is that of a table of meters."""
    return set(COLUMNS) <= {name.strip() for name in first_line.split(",")}


def read(path: Path, text: str, tz: str) -> list[MeterInterval]:
    """Read the intervals of a file, in order.

    Args:
        path: The file, for messages.
        text: What it holds.
        tz: The zone of times that carry none; empty if such times are refused.

    Raises:
        BadInput: a value is missing or makes no sense, or intervals of one meter overlap.
        UsageError: times are local and no zone was given.
    """
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    intervals = sorted(_parse_row(row, line, path, tz) for line, row in enumerate(rows, 2))
    for interval, after in itertools.pairwise(intervals):
        same = (interval.meter, interval.scope, interval.metered) == (
            after.meter,
            after.scope,
            after.metered,
        )
        if same and after.valid_from < interval.valid_to:
            raise BadInput(
                f"intervals of meter {interval.meter!r} overlap from "
                f"{after.valid_from:%Y-%m-%dT%H:%MZ}",
                where=str(path),
                remedy="Give each time once",
            )
    return intervals


def _parse_row(row: Mapping[str, str], line: int, path: Path, tz: str) -> MeterInterval:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    for name, value in values.items():
        if not value:
            raise BadInput("no value", where=locate(path, line, name), remedy="Fill it in")
    if values["scope"] not in SCOPES:
        raise BadInput(
            f"a meter measures a {' or a '.join(SCOPES)}",
            where=locate(path, line, "scope", values["scope"]),
            remedy="Sum up what is finer",
        )
    start, end = (
        parse_time(values[name], name, locate(path, line), tz)
        for name in ("valid_from", "valid_to")
    )
    assert start is not None
    assert end is not None
    try:
        energy_kwh = float(values["energy_kwh"])
    except ValueError:
        energy_kwh = -1
    if not 0 <= energy_kwh < _MOST_KWH or start >= end:
        raise BadInput(
            "an interval needs an end after its start, and an energy of 0 kWh or more",
            where=locate(path, line, "energy_kwh", values["energy_kwh"]),
            remedy="Fix the row; a meter that counts up needs the difference of two readings",
        )
    energy_mj = round(energy_kwh * 3_600_000_000)
    return MeterInterval(values["meter"], values["scope"], values["metered"], start, end, energy_mj)
