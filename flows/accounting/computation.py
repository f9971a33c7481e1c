"""What the steps of a computation work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from flows.accounting.changes import find_last_computation
from flows.accounting.fleet import Fleet, describe_fleet, find_last_reading
from flows.accounting.intensity import GridView
from flows.factors import Factor
from flows.settings import Settings


@dataclass(frozen=True)
class Computation:
    """A computation of the candidate: where it is written, and what figures rest on beside readings."""

    con: duckdb.DuckDBPyConnection
    settings: Settings
    fleet: Fleet
    view: GridView
    """The grid data, with the factors in force."""
    as_of: datetime | None
    """Time of the last reading of all."""
    last_computed: datetime | None
    """When the candidate that stands there was computed; None where there is none."""


def prepare_computation(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> Computation:
    """Read what the steps of a computation need."""
    return Computation(
        con,
        settings,
        describe_fleet(con, settings, factors),
        GridView(con, settings, factors),
        find_last_reading(con),
        find_last_computation(con),
    )
