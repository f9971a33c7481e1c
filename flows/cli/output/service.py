"""The service that runs on a schedule."""

from __future__ import annotations

from flows.settings import Settings


def print_schedule(settings: Settings, interface: str) -> None:
    """Print what is served, at which address, and when it does what."""
    schedule = settings.schedule
    print(f"serving {settings.root.resolve()}, interface at {interface}")
    print(
        f"  loads every {schedule.ingest_min:g} min, computes every {schedule.footprint_min:g} min, "
        f"publishes at {schedule.publish} (cron, UTC); Ctrl-C stops it",
        flush=True,
    )
