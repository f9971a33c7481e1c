"""Numbers as people read them."""

from __future__ import annotations

import pytest

from flows.reporting.numbers import format_number, format_percent, format_range


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234.5, "1,230"),
        (12.345, "12.3"),
        (0.012345, "0.0123"),
        (999.6, "1,000"),
        (None, "–"),
        (float("nan"), "–"),
        (1e12, "1,000,000,000,000"),
        (-5.678, "-5.68"),
    ],
)
def test_three_significant_digits(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


def test_shares_and_ranges() -> None:
    assert format_percent(1.0) == "100 %"
    assert format_percent(0.9996) == "99.9 %"
    assert format_percent(0.004) == "0 %"
    assert format_range(1.2345, 20) == "1.23 – 20.0"
