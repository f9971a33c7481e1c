"""Fingerprints of what is kept from one computation to the next: checked before it is used.

They find what was changed by accident or by hand, at the cost of reading a table once. Who changes a fingerprint,
too, is found by verification, which computes everything again from readings.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from flows.errors import NotAsPublished
from transforms.schema import TABLES, in_role

THIS_DUCKDB = "(version() || ' ')"
"""SQL: how fingerprints of this version of DuckDB begin; another may add up otherwise."""

_KEPT = in_role("candidate", "made_from")


def fingerprint_of(table: str) -> str:
    """SQL: the fingerprint of rows `t` of a table, whatever their order."""
    columns = ", ".join(f"t.{name}" for name in TABLES[table].columns)
    return f"{THIS_DUCKDB} || coalesce(sum(hash({columns})), 0)"


def record_fingerprints(con: duckdb.DuckDBPyConnection) -> None:
    """Record what a computation leaves (inside the caller's transaction)."""
    con.execute("DELETE FROM computed_table")
    for table in _KEPT:
        con.execute(
            f"INSERT INTO computed_table BY NAME SELECT '{table}' AS table_name, count(*) AS row_count, "
            f"{fingerprint_of(table)} AS fingerprint FROM {table} AS t"
        )


def has_fingerprints(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the last computation recorded what it left, with this version of DuckDB."""
    [(known,)] = con.execute(
        f"SELECT count(*) FROM computed_table WHERE starts_with(fingerprint, {THIS_DUCKDB})"
    ).fetchall()
    return bool(known)


def find_changed_tables(con: duckdb.DuckDBPyConnection, schema: str = "main") -> Iterator[str]:
    """Find the tables that are not what the last computation left."""
    recorded = {
        name: (rows, fingerprint)
        for name, rows, fingerprint in con.execute(f"FROM {schema}.computed_table").fetchall()
    }
    for table in _KEPT:
        [found] = con.execute(
            f"SELECT count(*), {fingerprint_of(table)} FROM {schema}.{table} AS t"
        ).fetchall()
        if recorded.get(table) != found:
            yield table


def check_last_computation(con: duckdb.DuckDBPyConnection) -> None:
    """Check that the candidate is what the last computation left, before figures are made from it.

    Raises:
        NotAsPublished: it is not.
    """
    if has_fingerprints(con):
        for table in find_changed_tables(con):
            raise refuse_kept(table, "its rows")


def refuse_kept(table: str, what: str) -> NotAsPublished:
    """The sentence for a table that is kept from one computation to the next, and was changed."""
    return NotAsPublished(
        f"{what} are not what the last computation left there",
        where=f"the warehouse, table {table}",
        remedy="Run `wattledger rebuild`: it computes everything again from the readings",
    )
