"""Fingerprints of what is kept from one computation to the next: checked before it is used.

They find what was changed by accident or by hand, at the cost of reading a table once. Who changes a fingerprint,
too, is found by verification, which computes everything again from readings.
"""

from __future__ import annotations

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
    con.execute(f"INSERT INTO computed_table BY NAME {_select_fingerprints()}")


def _select_fingerprints() -> str:
    """SQL: table_name, row_count and fingerprint of what is kept; one statement, as each takes its time on a lake."""
    return " UNION ALL ".join(
        f"SELECT '{table}' AS table_name, count(*) AS row_count, {fingerprint_of(table)} AS fingerprint "
        f"FROM {table} AS t"
        for table in _KEPT
    )


def has_fingerprints(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the last computation recorded what it left, with this version of DuckDB."""
    [(known,)] = con.execute(
        f"SELECT count(*) FROM computed_table WHERE starts_with(fingerprint, {THIS_DUCKDB})"
    ).fetchall()
    return bool(known)


def find_changed_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Find the tables that are not what the last computation left."""
    recorded = con.execute("FROM computed_table").fetchall()
    found = con.execute(_select_fingerprints()).fetchall()
    return sorted({name for name, *_ in {*recorded} ^ {*found}})


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
