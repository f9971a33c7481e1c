"""Who may write when: locks between processes, and transactions.

A file has one writer, so its locks are always free. On a lake, processes that load wait for each other, and figures are one
process's work at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import duckdb

from flows.warehouse import lake

LOADING, FIGURES, PIPELINE = "load", "figures", "pipeline"
"""Names of locks."""
WAIT_S = 900.0
"""Seconds to wait for a lock, where nothing else is said."""


@contextmanager
def hold_lock(
    con: duckdb.DuckDBPyConnection, name: str, *, wait_s: float = WAIT_S
) -> Iterator[None]:
    """Keep other processes from doing the same on the same lake; ends with the process, however it ends.

    Raises:
        WarehouseBusy: another process still does it after `wait_s`.
    """
    with lake.hold_lock(con, name, wait_s) if lake.is_lake(con) else nullcontext():
        yield


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection, lock: str = LOADING) -> Iterator[None]:
    """All or nothing.

    On a lake, transactions that load wait for each other, and of two that were both granted the lock (one had lost
    its connection meanwhile) the later one to commit fails.

    Args:
        con: An open connection.
        lock: `LOADING` or `FIGURES`.

    Raises:
        WarehouseBusy: another process has written in between, or is still writing.
    """
    if not lake.is_lake(con):
        with commit_or_roll_back(con):
            yield
        return
    waiting = lake.hold_lock(con, lock, WAIT_S) if lock == LOADING else nullcontext()
    with waiting, lake.explain_conflicts(), commit_or_roll_back(con):
        # Two transactions that both change this row conflict.
        con.execute(f"UPDATE turn_{lock} SET taken = taken + 1")
        yield


@contextmanager
def commit_or_roll_back(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """A transaction that waits for nobody."""
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        # A connection that was lost has nothing to roll back, and says so.
        with suppress(duckdb.Error):
            con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def tidy_warehouse(con: duckdb.DuckDBPyConnection) -> None:
    """Write out what is pending; of a lake, merge small files and delete what no one needs any more."""
    if lake.is_lake(con):
        lake.merge_files(con)
    else:
        con.execute("CHECKPOINT")
