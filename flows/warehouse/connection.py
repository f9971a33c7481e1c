"""Connections to DuckDB files, with Wattledger's settings."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from flows.errors import WarehouseBusy, WarehouseError
from flows.warehouse.failures import explain_failure, first_line

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
        WarehouseError: it cannot be opened, and waiting would not help; its class says why.
    """
    if path.exists() and not path.is_file():
        # A pipe would be waited for, for ever.
        raise WarehouseError(
            "it is a folder" if path.is_dir() else "not a regular file",
            where=str(path),
            remedy="Check the path",
        )
    deadline = time.monotonic() + wait_s
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only, config=_CONFIG)
            break
        except duckdb.Error as error:
            failure = explain_failure(error, path) or WarehouseError(
                f"cannot be opened: {first_line(error)}", where=str(path), remedy="Check the file"
            )
            if not isinstance(failure, WarehouseBusy) or time.monotonic() >= deadline:
                raise failure from None
            time.sleep(_POLL_S)
    con.execute("SET TimeZone = 'UTC'")
    return con


def connect_in_memory() -> duckdb.DuckDBPyConnection:
    """A connection that holds nothing yet and leaves nothing behind."""
    return connect(Path(":memory:"))
