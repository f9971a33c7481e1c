"""Meters of hosts and sites as CSV: PDU, IPMI, the utility's bill (docs/formats.md)."""

from __future__ import annotations

import csv
import itertools
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
    """Energy that a meter counted of a host or a site between two times."""

    meter: str
    scope: str
    metered: str
    valid_from: datetime
    valid_to: datetime
    energy_mj: int


def is_meter_table(first_line: str) -> bool:
    """Whether a file's first line is that of a meter's CSV."""
    return set(COLUMNS) <= {name.strip() for name in first_line.split(",")}


def read(path: Path, text: str, tz: str) -> list[MeterInterval]:
    """The intervals of a file, in order.

    Raises:
        BadInput: a value is missing or makes no sense, or intervals of one meter overlap.
        UsageError: times are local and no zone was given.
    """
    found = []
    for line, row in enumerate(csv.DictReader(text.splitlines(), skipinitialspace=True), 2):
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
        begin, end = (
            parse_time(values[name], name, locate(path, line), tz)
            for name in ("valid_from", "valid_to")
        )
        assert begin is not None
        assert end is not None
        try:
            energy_kwh = float(values["energy_kwh"])
        except ValueError:
            energy_kwh = -1
        if not 0 <= energy_kwh < _MOST_KWH or begin >= end:
            raise BadInput(
                "an interval needs an end after its start, and an energy of 0 kWh or more",
                where=locate(path, line, "energy_kwh", values["energy_kwh"]),
                remedy="Fix the row; a meter that counts up needs the difference of two readings",
            )
        energy_mj = round(energy_kwh * 3_600_000_000)
        found.append(
            MeterInterval(
                values["meter"], values["scope"], values["metered"], begin, end, energy_mj
            )
        )
    found.sort()
    for one, next_ in itertools.pairwise(found):
        same = (one.meter, one.scope, one.metered) == (next_.meter, next_.scope, next_.metered)
        if same and next_.valid_from < one.valid_to:
            raise BadInput(
                f"intervals of meter {one.meter!r} overlap from {next_.valid_from:%Y-%m-%dT%H:%MZ}",
                where=str(path),
                remedy="Give each time once",
            )
    return found
