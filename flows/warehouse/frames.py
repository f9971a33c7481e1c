"""Frames and rows, to and from a connection: registered for a statement, inserted by name, exchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_BATCH = 1 << 18


@contextmanager
def register(con: duckdb.DuckDBPyConnection, **frames: pl.DataFrame | pa.Table) -> Iterator[None]:
    """Let statements read frames by name, for the length of a `with` block."""
    for name, frame in frames.items():
        con.register(name, frame)
    try:
        yield
    finally:
        for name in frames:
            # Where the transaction failed, this can only say so again.
            with suppress(duckdb.Error):
                con.unregister(name)


@contextmanager
def temporary(
    con: duckdb.DuckDBPyConnection, **tables: pl.DataFrame | pa.Table | str
) -> Iterator[None]:
    """Keep frames, or the rows of queries, in temporary tables for the length of a `with` block.

    For statements whose plan needs a table, and for rows that several statements read.
    """
    with _create_tables(con, "temp", tables):
        yield


@contextmanager
def stage(
    con: duckdb.DuckDBPyConnection, **tables: pl.DataFrame | pa.Table | str
) -> Iterator[None]:
    """Keep frames, or the rows of queries, in tables of the schema `staging` for the length of a `with` block.

    The gate looks there, at what is not in the warehouse yet.
    """
    with _create_tables(con, "staging", tables):
        yield


@contextmanager
def _create_tables(
    con: duckdb.DuckDBPyConnection,
    database: str,
    tables: Mapping[str, pl.DataFrame | pa.Table | str],
) -> Iterator[None]:
    kind = "TEMP TABLE" if database == "temp" else "TABLE"
    created: list[str] = []
    try:
        for name, rows in tables.items():
            table = f"{database}.{name}"
            if isinstance(rows, str):
                con.execute(f"CREATE OR REPLACE {kind} {table} AS {rows}")
            else:
                with register(con, copied_frame=rows):
                    con.execute(f"CREATE OR REPLACE {kind} {table} AS FROM copied_frame")
            created.append(table)
        yield
    finally:
        for table in created:
            # Where the transaction failed, the table goes with it.
            with suppress(duckdb.Error):
                con.execute(f"DROP TABLE IF EXISTS {table}")


def insert(
    con: duckdb.DuckDBPyConnection,
    table: str,
    rows: pl.DataFrame | pa.Table | Sequence[Mapping[str, Any]],
    **expressions: str,
) -> None:
    """Add rows to a table by the names of its columns (inside the caller's transaction).

    Args:
        con: An open connection.
        table: Name of the table.
        rows: A frame, or rows as mappings of column to value, all of the same columns. Columns of the table that
            they do not name become null; a name that the table does not have is an error.
        expressions: Columns that the database computes, as SQL: `loaded_at=MOMENT`.

    Raises:
        RuntimeError: two rows of what is loaded have the same key (a defect: readers and gates keep such out).
    """
    _check_key(table, rows, expressions)
    if isinstance(rows, Sequence):
        if rows:
            names = ", ".join([*rows[0], *expressions])
            values = ", ".join([*(f"${name}" for name in rows[0]), *expressions.values()])
            con.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({values})", [dict(row) for row in rows]
            )
        return
    columns = ", ".join(["*", *(f"{sql} AS {name}" for name, sql in expressions.items())])
    with register(con, inserted_rows=rows):
        con.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM inserted_rows")


_LOADED = ("input", "grid", "context", "ledger")
"""Roles of tables whose rows come from outside. Those of a computation are many; the gate checks their keys."""


def _check_key(
    table: str,
    rows: pl.DataFrame | pa.Table | Sequence[Mapping[str, Any]],
    given: Mapping[str, str],
) -> None:
    """Refuse rows of one insert that share the key of their table."""
    import polars as pl

    from transforms.schema import TABLES

    declared = TABLES.get(table)
    if declared is None or declared.role not in _LOADED or not declared.key:
        return
    # What the database computes (the moment) is the same in all rows.
    key = [name for name in declared.key if name not in given]
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(_select_key(rows, key))
    if not key or frame.height < 2 or not set(key) <= set(frame.columns):
        return
    doubled = frame.select(key).filter(frame.select(key).is_duplicated())
    if doubled.height:
        raise RuntimeError(f"two rows of {table} have the key {doubled.row(0, named=True)}")


def _select_key(rows: pa.Table | Sequence[Mapping[str, Any]], key: Sequence[str]) -> Any:
    if isinstance(rows, Sequence):
        return [{name: row.get(name) for name in key} for row in rows]
    return {name: rows[name].to_pylist() for name in key if name in rows.column_names}


def query_rows(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None
) -> list[dict[str, Any]]:
    """Run a query and give its rows as dictionaries."""
    result = con.execute(sql, parameters) if parameters is not None else con.execute(sql)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def stream_frames(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None, rows: int = _BATCH
) -> Iterator[pl.DataFrame]:
    """Run a query and give its rows as frames of at most `rows` rows, one at a time."""
    import polars as pl

    result = con.execute(sql, parameters) if parameters is not None else con.execute(sql)
    for batch in result.to_arrow_reader(rows):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame


@cache
def load_query(name: str) -> str:
    """The text of a query of sql/queries, for example `accounting/devices`; its parameters are `$named`."""
    return resources.files("sql").joinpath("queries", f"{name}.sql").read_text("utf-8")


def quote_literal(text: object) -> str:
    """A text as an SQL literal, for statements that take no parameters."""
    return "'" + str(text).replace("'", "''") + "'"


def escape_glob(path: Path) -> str:
    """A path as DuckDB's readers take it: just this file, whatever its name looks like."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))
