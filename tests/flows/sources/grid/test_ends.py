"""Where intervals end: a step later, and neither stretched over a gap nor cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from flows.sources.grid.series import compute_interval_ends

T0 = datetime(2026, 2, 3, 8, tzinfo=UTC)


def lengths(minutes: list[int]) -> list[int]:
    """How long the intervals last that begin at these minutes."""
    starts = pl.Series([T0 + timedelta(minutes=m) for m in minutes]).cast(pl.Datetime("us", "UTC"))
    ends = compute_interval_ends(starts)
    return [int((e - s) / timedelta(minutes=1)) for s, e in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("step", [5, 15, 30, 60])
@pytest.mark.parametrize("count", [2, 3, 4, 12, 13, 40])
def test_series_of_every_length(step: int, count: int) -> None:
    starts = [n * step for n in range(count)]
    assert lengths(starts) == [step] * count
    for gone in range(1, count - 1):
        # Of three or four values with a gap, nothing tells the step unless another one does.
        if count < 4:
            continue
        left = [s for n, s in enumerate(starts) if n != gone]
        assert lengths(left) == [step] * (count - 1), f"without value {gone}"


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([0], [60]),
        ([0, 60, 180], [60, 60, 60]),
        ([0, 120, 180], [60, 60, 60]),
        ([0, 180], [60, 60]),
        ([0, 60, 120, 135, 150, 165], [60, 60, 15, 15, 15, 15]),
        ([0, 15, 30, 45, 60, 120, 180], [15, 15, 15, 15, 60, 60, 60]),
        ([0, 60, 120, 180, 240, 270, 300, 330], [60, 60, 60, 60, 30, 30, 30, 30]),
        ([0, 15, 30, 60, 75, 90], [15, 15, 15, 15, 15, 15]),
        ([0, 15, 45, 75, 90], [15, 15, 15, 15, 15]),
        ([0, 180, 360, 540], [180, 180, 180, 180]),
        ([0, 1440, 1500, 1560, 3000], [60, 60, 60, 60, 60]),
    ],
)
def test_mixed_steps_and_gaps_at_either_end(starts: list[int], expected: list[int]) -> None:
    assert lengths(starts) == expected
