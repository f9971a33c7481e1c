"""Connections to DuckDB files, with Wattledger's settings."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from flows.errors import WarehouseBusy, WarehouseError
from flows.settings import PUBLISHED_DATABASE

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing is fetched behind the user's back, and no query can make DuckDB do so.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Sorting and loading spill to disk beyond this.
    "memory_limit": "512MB",
    # What is committed goes into the file itself, not first into the log beside it: DuckDB 1.5 takes large inserts from a
    # log that a killed process left half written, without the rest of their transaction.
    "checkpoint_threshold": "1KB",
    "auto_checkpoint_skip_wal_threshold": 1000,
    # Row groups are compressed while they are still in the processor's cache.
    "write_buffer_row_group_count": 1,
}
_POLL_S = 0.1
_RESTORE = "Check that it is a DuckDB file of this version and that the disk is writable"


def connect(
    path: Path, *, read_only: bool = False, wait_s: float = 0.0
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file with Wattledger's settings: UTC, no extension loading.

    Args:
        path: The file.
        read_only: Whether it is only read; several processes may then have it open.
        wait_s: Seconds to wait while another process writes it.

    Raises:
        WarehouseBusy: another process holds the file for writing.
        WarehouseError: it is not a DuckDB file, there is no permission, or the disk is full.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only, config=_CONFIG)
            break
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise WarehouseError(first_line(error), where=str(path), remedy=_RESTORE) from None
            if time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            raise WarehouseBusy(
                "another process is writing it",
                where=str(path),
                remedy="Wait for it to end, or query "
                f"published/{PUBLISHED_DATABASE}, which is never locked",
            ) from None
        except duckdb.Error as error:
            raise WarehouseError(first_line(error), where=str(path), remedy=_RESTORE) from None
    con.execute("SET TimeZone = 'UTC'")
    return con


def connect_in_memory() -> duckdb.DuckDBPyConnection:
    """A connection that holds nothing yet and leaves nothing behind."""
    return connect(Path(":memory:"))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of bounded length."""
    return str(error).splitlines()[0][:300]
