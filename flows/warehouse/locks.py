"""Who may write when, and in which order: locks between processes, transactions, and the ledger's clock.

A file has one writer, so its locks are always free. On a lake, processes that load wait for each other, and figures are one
process's work at a time.

Every transaction has a moment of the ledger's clock, which comes after all moments before, also where the clock of a
machine was set back or differs from another's. What a transaction of figures sees was stored at moments before its own; what
is stored later has later ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import duckdb

from flows.errors import WarehouseDamaged
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
    """All or nothing, at a moment of the ledger's clock (`MOMENT`).

    On a lake, transactions that load wait for each other, and of two that were both granted the lock (one had lost
    its connection meanwhile) the later one to commit fails.

    Args:
        con: An open connection.
        lock: `LOADING` or `FIGURES`.

    Raises:
        WarehouseBusy: another process has written in between, or is still writing.
        WarehouseDamaged: the ledger has no clock.
    """
    if not lake.is_lake(con):
        with commit_or_roll_back(con):
            _take_moment(con)
            yield
        return
    if lock == LOADING:
        with (
            lake.hold_lock(con, LOADING, WAIT_S),
            lake.explain_conflicts(),
            commit_or_roll_back(con),
        ):
            _take_turn(con, LOADING)
            _take_moment(con)
            yield
        return
    with lake.explain_conflicts(), ExitStack() as work:
        # Nothing is being loaded while the moment is taken and the state that this transaction sees is fixed.
        with lake.hold_lock(con, LOADING, WAIT_S):
            with commit_or_roll_back(con):
                _take_moment(con)
            work.enter_context(commit_or_roll_back(con))
            _take_turn(con, lock)
        yield


def _take_turn(con: duckdb.DuckDBPyConnection, lock: str) -> None:
    """Of two transactions that both change this row, the later one to commit fails."""
    con.execute(f"UPDATE turn_{lock} SET taken = taken + 1")


MOMENT = "getvariable('moment')"
"""SQL: the moment of this transaction."""


def _take_moment(con: duckdb.DuckDBPyConnection) -> None:
    """Move the ledger's clock on, and let statements of this connection read it as `MOMENT`."""
    con.execute("UPDATE ledger_clock SET moment = greatest(now(), moment + INTERVAL 1 MICROSECOND)")
    moments = con.execute("SELECT moment FROM ledger_clock").fetchall()
    if len(moments) != 1:
        raise WarehouseDamaged(
            f"its table ledger_clock has {len(moments)} rows, and should have one",
            where="the warehouse",
            remedy="Restore it from a copy",
        )
    con.execute("SET VARIABLE moment = (SELECT moment FROM ledger_clock)")


def measure_clock_lead(con: duckdb.DuckDBPyConnection) -> float:
    """Seconds by which the ledger's clock is ahead of this machine's; 0 where it is not."""
    [(seconds,)] = con.execute(
        "SELECT coalesce(max(greatest(epoch(moment) - epoch(now()), 0)), 0) FROM ledger_clock"
    ).fetchall()
    return float(seconds)


def warn_of_clock(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Say where the ledger's clock is far ahead of this machine's: one of them was, or is, wrong."""
    ahead = measure_clock_lead(con)
    if ahead < _CLOCK_TOLERANCE_S:
        return []
    return [
        f"the last time in the ledger is {ahead / 60:,.0f} minutes ahead of this machine's clock; set the clock "
        "right. Order and figures do not depend on it: times of the ledger go on from there until it is caught up"
    ]


_CLOCK_TOLERANCE_S = 300.0


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
