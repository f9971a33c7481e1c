"""The file with the figures: what readers may see of the warehouse, in a DuckDB file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from flows.warehouse.connection import connect
from flows.warehouse.frames import insert, register
from flows.warehouse.locks import commit_or_roll_back
from flows.warehouse.schema import create_views, write_comments
from transforms.schema import TABLES

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows by table."""

_TABLES = [table for table in TABLES.values() if table.kind == "table" and table.published != "no"]
_WAREHOUSE_ONLY = {
    table.name for table in TABLES.values() if table.kind == "view" and table.published == "no"
}


def write_database(
    con: duckdb.DuckDBPyConnection, path: Path, added: Rows, validation_ids: Sequence[str]
) -> None:
    """Copy what readers may see into a DuckDB file of its own, with views and comments.

    Args:
        con: The warehouse.
        path: The file, which is not there yet.
        added: Rows that the warehouse does not have before the publication counts.
        validation_ids: Verdicts of this publication; others are left out.
    """
    with closing(connect(path)) as target:
        with commit_or_roll_back(target):
            for table in _TABLES:
                if table.published == "of_publication":
                    chosen = f"FROM {table.name} WHERE list_contains(?, validation_id)"
                    rows = con.execute(chosen, [list(validation_ids)])
                elif table.published == "in_force":
                    rows = con.execute(f"FROM {table.name} {table.where_in_force}")
                else:
                    rows = con.execute(f"FROM {table.name}")
                _copy_rows(target, table.name, rows)
            insert_rows(target, added)
            create_views(target, leave_out=_WAREHOUSE_ONLY)
            for table in _TABLES:
                write_comments(target, table)
        target.execute("CHECKPOINT")


def create_published_views(con: duckdb.DuckDBPyConnection) -> None:
    """Create the views of a published file on empty tables."""
    for table in _TABLES:
        columns = ", ".join(f'"{field.name}" {field.sql_type}' for field in table.fields)
        con.execute(f"CREATE TABLE {table.name} ({columns})")
    create_views(con, leave_out=_WAREHOUSE_ONLY)


def insert_rows(con: duckdb.DuckDBPyConnection, added: Rows) -> None:
    """Add rows to several tables (inside the caller's transaction)."""
    for table, rows in added.items():
        insert(con, table, rows)


def _copy_rows(
    target: duckdb.DuckDBPyConnection, table: str, rows: duckdb.DuckDBPyConnection
) -> None:
    """Write the rows of a query as a table; through Arrow, as DuckDB writes one database at a time."""
    with register(target, copied_rows=rows.to_arrow_table()):
        target.execute(f"CREATE TABLE {table} AS FROM copied_rows")
