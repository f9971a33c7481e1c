"""Numbers as people read them: three significant digits, aligned, with their range."""

from __future__ import annotations

import math


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` significant digits and no exponent; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    # Negative places round to tens, hundreds and so on.
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def format_change(value: float) -> str:
    """Format a difference with its sign."""
    return "0" if value == 0 else f"{'+' if value > 0 else '−'}{format_number(abs(value))}"


def format_percent(value: float | None) -> str:
    """Format a share as whole percent; never as 100 % unless it is all."""
    if value is None or math.isnan(value):
        return "–"
    whole = math.floor(value * 100 + 0.5)
    if whole == 100 and value < 1:
        return f"{math.floor(value * 1000) / 10:.1f} %"
    return f"{whole} %"


def format_range(low: float | None, high: float | None) -> str:
    """Format a range in three significant digits."""
    return f"{format_number(low)} – {format_number(high)}"
