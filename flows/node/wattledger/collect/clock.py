"""A clock for readings: UTC, in microseconds, that never goes back."""

from __future__ import annotations

import time

JUMP_US = 1_000_000
"""A wall clock further ahead than this is followed at once, which leaves a gap in the readings."""

SLEW_PPM = 500
"""Any other difference is worked off at this rate, as NTP does: 0.05 % on a power integral."""


class Clock:
    """Wall time read once and carried on by the monotonic clock.

    When the wall clock is set back, readings go on in order. `offset_us` is by how much the wall clock
    differs; the difference is worked off slowly.
    """

    def __init__(self, not_before_us: int = 0) -> None:
        """Begin at wall time, or at `not_before_us` where that is later: there are readings up to then."""
        wall = time.time_ns() // 1000
        self._base = (time.monotonic_ns(), max(wall, not_before_us), 0)
        self.offset_us = wall - self._base[1]

    def at_us(self, monotonic_ns: int) -> int:
        """UTC in microseconds since 1970 at a moment of the monotonic clock."""
        begin, us, ppm = self._base
        elapsed = (monotonic_ns - begin) // 1000
        return us + elapsed + elapsed * ppm // 1_000_000

    def check(self) -> int:
        """Compare with the wall clock and correct; returns the microseconds jumped over, or 0."""
        monotonic, wall = time.monotonic_ns(), time.time_ns() // 1000
        now = self.at_us(monotonic)
        self.offset_us = wall - now
        if self.offset_us > JUMP_US:
            jumped, self.offset_us = self.offset_us, 0
            self._base = (monotonic, wall, 0)
            return jumped
        ppm = 0
        if abs(self.offset_us) > 1000:
            ppm = SLEW_PPM if self.offset_us > 0 else -SLEW_PPM
        self._base = (monotonic, now, ppm)
        return 0
