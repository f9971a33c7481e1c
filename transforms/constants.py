"""Constants of the method: the slot, shares, and the names of signals, tiers and quantities."""

from __future__ import annotations

SLOT_US = 300_000_000
"""Length of a slot in microseconds: 5 minutes, the finest common grid resolution."""

BOUNDS = ("", "_low", "_high")
"""What the names of a value and of its bounds have in them: `pue`, `pue_low`, `pue_high`."""

PPM = 1_000_000
"""Shares are integers in parts per million."""

SIGNALS = ("average_lifecycle", "average_direct", "marginal", "residual_mix")
"""What a grid intensity can mean; signals are never mixed."""

SERIES_TIERS = ("live", "cached")
TIERS = (*SERIES_TIERS, "profile", "configured", "country_year", "world")
"""Where an intensity may come from, best first: a series that its provider confirmed at the last
attempt, one that could not be asked for again, what the zone's series usually is at that hour, a
fallback from wattledger.toml, the country's yearly mix, the world's."""

FILE_FEED = "file"
"""The feed of grid data that was loaded from files."""

WATER = ("ewif", "withdrawal")
QUANTITIES = ("intensity", *WATER, "marginal", "residual")
"""What `slot_signal` holds for a zone and slot, and `slot_source` explains."""

NO_GPU = "none"
"""Model of the host device: what a run without any GPU holds, so that it has its host's energy."""

POWER_SOURCES = ("unknown", "instant", "average_1s")
"""Which NVML quantity a power reading is, in the order of their codes (docs/method.md)."""
