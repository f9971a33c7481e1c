"""Bounds on what a statement may take: DuckDB limits memory, but not time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from flows.errors import OutOfTime

LONGEST_S = 6 * 3600.0
"""Seconds that a check of a database may take: figures of a large cluster over a year take an hour or two."""
_AGAIN_S = 0.2


@contextmanager
def bound_time(con: duckdb.DuckDBPyConnection, seconds: float = LONGEST_S) -> Iterator[None]:
    """Interrupt what a connection does when the time is over, and everything that it begins after that.

    Raises:
        OutOfTime: a statement was interrupted.
    """
    done, over = threading.Event(), threading.Event()

    def interrupt_statements() -> None:
        wait_s = seconds
        while not done.wait(wait_s):
            over.set()
            con.interrupt()
            wait_s = _AGAIN_S

    watch = threading.Thread(target=interrupt_statements, daemon=True)
    watch.start()
    try:
        yield
    except (duckdb.InterruptException, RuntimeError) as error:
        if not over.is_set():
            raise
        raise OutOfTime(
            f"it takes more than {seconds:g} s",
            remedy="Nothing was confirmed, and nothing found: verify on a faster machine",
        ) from error
    finally:
        done.set()
        watch.join()
