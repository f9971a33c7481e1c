"""How much time the rows of a store are about: computing figures spreads them over slots.

A row can say that it lasts ten thousand years, and computing it would take all memory of the machine.
"""

from __future__ import annotations

import duckdb

from flows.errors import BadInput
from transforms.constants import SLOT_US

_FIRST, _LAST = "TIMESTAMPTZ '2000-01-01'", "TIMESTAMPTZ '2100-01-01'"
_SLOTS_FREE, _SLOTS_A_ROW = 10_000_000, 10
"""Slots that any store may be about, and how many more for each row: readings follow each other by seconds, a run may
hold GPUs for months."""
_FROM_SLOT = f"to_timestamp({{}} * {SLOT_US // 1_000_000}::BIGINT)"

_EXTENTS = {
    "gpu_reading": ("ts", "ts", "gpu_key"),
    "gpu_piece": (_FROM_SLOT.format("slot"), _FROM_SLOT.format("slot"), "gpu_key"),
    "host_reading": ("ts - to_microseconds(span_us)", "ts", "host"),
    "grid_intensity": ("valid_from", "valid_to", "zone"),
    "grid_mix": ("valid_from", "valid_to", "zone"),
    "run_allocation": ("from_ts", "coalesce(to_ts, from_ts)", "gpu_uuid"),
    "training_run": ("started_at", "coalesce(ended_at, started_at)", "run_id"),
}
"""Table -> when a row begins and ends, and of what there is a row for each time."""
_SPREAD = ("gpu_reading", "gpu_piece", "host_reading", "run_allocation")
"""Of the others, only what lies in the time of these is read."""


def check_extents(con: duckdb.DuckDBPyConnection, database: str, place: str) -> None:
    """Require that the rows that figures are computed from are about a time that can be computed.

    Args:
        con: A connection that the store is attached to.
        database: What it is called there.
        place: Where it is, for messages.

    Raises:
        BadInput: a time lies outside 2000 to 2100, or rows are about more time than so few rows can be.
    """
    slots = rows = 0
    for table, (first, last, series) in _EXTENTS.items():
        try:
            [(outside, spanned, count)] = con.execute(
                f"SELECT count(*) FILTER (first < {_FIRST} OR last > {_LAST} OR first IS NULL), "
                f"coalesce(sum((epoch_us(greatest(last, {_FIRST})) - epoch_us(least(first, {_LAST}))) // {SLOT_US}), 0), "
                f"sum(count) FROM (SELECT min({first}) AS first, max({last}) AS last, count(*) AS count "
                f"FROM {database}.{table} GROUP BY {series})"
            ).fetchall()
        except (duckdb.ConversionException, duckdb.OutOfRangeException):
            outside, spanned, count = 1, 0, 0
        if outside:
            raise BadInput(
                "it has times that no measurement has: before 2000, after 2100, or none",
                where=f"{place}, {table}",
            )
        if table in _SPREAD:
            slots, rows = slots + spanned, rows + (count or 0)
    if slots > _SLOTS_FREE + rows * _SLOTS_A_ROW:
        raise BadInput(
            f"its {rows:,} rows are about {slots:,} slots of five minutes: more than they can be",
            where=place,
        )
