"""The service that runs on a schedule."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.settings import Settings


def print_schedule(
    settings: Settings, interface: str, password: Path | None, warning: str = ""
) -> None:
    """Print what is served, at which address, who may sign in there, and when it does what."""
    schedule = settings.schedule
    print(f"serving {settings.root.resolve()}, interface at {interface}")
    if password is not None:
        print(f"  sign in with the line in {password}")
    print(
        f"  loads every {schedule.ingest_min:g} min, computes every {schedule.footprint_min:g} min, "
        f"publishes at {schedule.publish} (cron, UTC); Ctrl-C stops it",
        flush=True,
    )
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
