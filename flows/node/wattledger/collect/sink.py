"""What the threads that read meters know of the collector."""

from __future__ import annotations

from typing import Protocol

from wattledger.readings import Gpu, Values


class Sink(Protocol):
    """Takes readings and events, and says when to stop. Any thread may call it."""

    @property
    def stopping(self) -> bool:
        """Whether the collector was told to stop."""

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the collector stops."""

    def keep(self, gpu: Gpu, monotonic_ns: int, values: Values) -> None:
        """Keep a reading that was taken at a moment of the monotonic clock."""

    def note(self, event: str, gpu: Gpu | None, detail: str) -> None:
        """Record an event of a GPU, or of the host, as data, and report it."""

    def check_clock(self) -> None:
        """Compare the clock of readings with the wall clock."""
