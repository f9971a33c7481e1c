"""How tables of the candidate are written: rows by key, or the difference to what stands there.

Tables have the start of a slot, frames its number.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import polars as pl

from flows.warehouse.frames import insert, register
from transforms.constants import SLOT_US
from transforms.schema import TABLES


def slot_start(number: str = "slot") -> pl.Expr:
    """The time at which the slot of a number begins."""
    return pl.from_epoch(pl.col(number) * SLOT_US, "us").dt.replace_time_zone("UTC")


def slot_number() -> pl.Expr:
    """The number of the slot that begins at slot_start."""
    return pl.col("slot_start").to_physical() // SLOT_US


def add_slot_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Add slot_start to a frame with slot."""
    return frame.with_columns(slot_start=slot_start())


def write_rows(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    """Add rows to a table of the schema; the frame may have columns more."""
    insert(con, table, frame.select(TABLES[table].columns))


def delete_rows(con: duckdb.DuckDBPyConnection, table: str, keys: pl.DataFrame) -> None:
    """Delete the rows of a table whose columns have the values of some row of `keys`."""
    same = " AND ".join(f"k.{name} IS NOT DISTINCT FROM t.{name}" for name in keys.columns)
    with register(con, keys=keys):
        con.execute(f"DELETE FROM {table} AS t WHERE EXISTS (FROM keys AS k WHERE {same})")


def replace_rows(
    con: duckdb.DuckDBPyConnection, table: str, keys: pl.DataFrame, frame: pl.DataFrame
) -> None:
    """Write rows in place of those whose columns have the values of some row of `keys`."""
    delete_rows(con, table, keys)
    write_rows(con, table, frame)


def exchange_rows(
    con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame, keys: Sequence[str]
) -> pl.DataFrame:
    """Make a table hold a frame, touching only what differs.

    Args:
        con: The warehouse.
        table: A table by slot.
        frame: What it has to hold, with slot for slot_start.
        keys: Columns of the frame, slot among them, by which its rows are replaced.

    Returns:
        The keys of what differed, as columns of the frame.
    """
    columns = TABLES[table].columns
    stored = con.execute(f"SELECT {', '.join(columns)} FROM {table}").pl()
    rows = add_slot_start(frame).select(columns).cast(dict(stored.schema))  # type: ignore[arg-type]
    names = ["slot_start" if key == "slot" else key for key in keys]
    changed = pl.concat(
        [
            rows.join(stored, on=columns, how="anti", nulls_equal=True).select(names),
            stored.join(rows, on=columns, how="anti", nulls_equal=True).select(names),
        ]
    ).unique()
    if changed.height:
        replace_rows(con, table, changed, rows.join(changed, on=names, how="semi"))
    return changed.with_columns(slot=slot_number()).select(keys)
