"""Numbers as people read them: three significant digits, aligned, with their range."""

from __future__ import annotations

import math


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent; `-` where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, places)
    return (
        f"{rounded:,.{places}f}"
        if places
        else f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.0f}"
    )


def format_change(value: float) -> str:
    """A difference with its sign."""
    return "0" if value == 0 else f"{'+' if value > 0 else '−'}{format_number(abs(value))}"


def format_percent(value: float | None) -> str:
    """A share as whole percent; never 100 % unless it is all."""
    if value is None or math.isnan(value):
        return "–"
    whole = math.floor(value * 100 + 0.5)
    if whole == 100 and value < 1:
        return f"{math.floor(value * 1000) / 10:.1f} %"
    return f"{whole} %"


def format_range(low: float | None, high: float | None) -> str:
    """A range in three significant digits."""
    return f"{format_number(low)} – {format_number(high)}"
