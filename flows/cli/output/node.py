"""The collector of this host."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from wattledger.spool.spool import Spool


def print_collector(spool: Spool, status: dict[str, Any], *, running: bool) -> None:
    """Print how this host's collector is doing, as it last said."""
    if not running:
        print(f"No collector runs on {spool.host} ({spool.folder}).")
        return
    last = datetime.fromtimestamp(status.get("stored_until_us", 0) / 1e6, UTC)
    gpus = status.get("gpus", [])
    print(f"Collecting on {spool.host}, pid {status.get('pid')}: {len(gpus)} GPUs,")
    print(f"  every {status.get('period_s', 0):g} s, stored until {last:%Y-%m-%d %H:%M:%S}Z")
    print(
        f"  {status.get('readings_stored', 0):,} readings, {status.get('readings_missed', 0)} missed"
    )
    print(f"  spool {spool.folder}: {status.get('spool_bytes', 0) / 2**20:,.1f} MiB")
    for name in ("spool_problem", "driver_problem"):
        if status.get(name):
            print(f"  {name.replace('_', ' ')}: {status[name]}")
    for run in status.get("runs_active", []):
        print(f"  active run: {run}")
