"""What was drawn between two readings that are too far apart to measure (docs/method.md, "Gaps")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class GapRule:
    """How long a step between readings may be.

    `max_gap_us`: longer steps are estimated, not measured. `max_bridge_us`: across still longer
    ones power says nothing of a GPU that nobody held, and no energy is claimed; an energy counter is
    exact over any.
    """

    max_gap_us: int = 30_000_000
    max_bridge_us: int = 3_600_000_000


NOBODY = pl.DataFrame(
    schema={"run_id": pl.String, "gpu_key": pl.Int32, "from_us": pl.Int64, "to_us": pl.Int64}
)
"""Allocations where there are none."""


def estimate_gaps(gaps: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame) -> pl.LazyFrame:
    """What was drawn in gaps between readings, as far as these can tell (docs/method.md, "Gaps").

    A gap through which the GPU stayed in the same hands is the trapezoid of their own readings: while a
    run held it, however long it lasts; while nobody did, up to `max_bridge_us`. Where the GPU changed
    hands in it, the readings at its ends say nothing of a run in its midst: only what nobody held at
    either end counts, with the power at that end. The rest is time without reading.

    Args:
        gaps: gpu_key, t0, t1, p0, p1.
        rule: How long a step between readings may be.
        spans: gpu_key, from_us and to_us of all allocations of these GPUs.

    Returns:
        Intervals with gap_dnj and gap_us; all other sums are 0.
    """
    known = _find_holders(gaps, spans)
    is_crossed = (pl.col("first") < pl.col("t1")).fill_null(False)
    is_bridged = pl.col("t1") - pl.col("t0") <= rule.max_bridge_us
    through = known.filter(~is_crossed & (is_bridged | pl.col("held0")))
    head = known.filter(is_crossed & is_bridged & ~pl.col("held0"))
    tail = known.filter(is_crossed & is_bridged & ~pl.col("held1"))
    nothing = pl.lit(0, pl.Int64)

    def estimate(rows: pl.LazyFrame, t0: str, t1: str, double_power: pl.Expr) -> pl.LazyFrame:
        length = pl.col(t1) - pl.col(t0)
        return rows.select(
            "gpu_key",
            t0=t0,
            t1=t1,
            **dict.fromkeys(("counter_mj", "power_dnj", "covered_us", "counter_resets"), nothing),
            gap_dnj=double_power * length,
            gap_us=length,
        )

    return pl.concat(
        [
            estimate(through, "t0", "t1", pl.col("p0") + pl.col("p1")),
            estimate(head, "t0", "first", pl.col("p0") * 2),
            estimate(tail, "last", "t1", pl.col("p1") * 2),
        ]
    )


def _find_holders(gaps: pl.LazyFrame, spans: pl.DataFrame) -> pl.LazyFrame:
    """Add who held the GPU in a gap: held0 and held1 (whether a run did, just after t0 and just before t1), and first and
    last, the times in the gap at which it changed hands (beyond it where it did not)."""
    # Whoever counts GPUs in wider numbers asks of the same ones.
    keys = gaps.collect_schema()["gpu_key"]
    borders = _list_borders(spans).lazy().with_columns(pl.col("gpu_key").cast(keys))
    # The times of borders stay, as first and last.
    near: dict[str, Any] = {"by": "gpu_key", "check_sortedness": False, "coalesce": False}
    return (
        gaps.select("gpu_key", "t0", "t1", "p0", "p1")
        .sort("gpu_key", "t0")
        .join_asof(
            borders.select("gpu_key", before="at", held0="held"),
            left_on="t0",
            right_on="before",
            **near,
        )
        .join_asof(
            borders.select("gpu_key", first="at"),
            left_on="t0",
            right_on="first",
            strategy="forward",
            allow_exact_matches=False,
            **near,
        )
        .join_asof(
            borders.select("gpu_key", last="at", held1="held"),
            left_on="t1",
            right_on="last",
            allow_exact_matches=False,
            **near,
        )
        .with_columns(pl.col("held0", "held1").fill_null(False))
    )


def _list_borders(spans: pl.DataFrame) -> pl.DataFrame:
    """Where GPUs change hands: gpu_key, at (us since the epoch), and whether a run holds it from then on."""
    changes = [spans.select("gpu_key", at="from_us", runs=pl.lit(1, pl.Int64))]
    changes += [spans.select("gpu_key", at="to_us", runs=pl.lit(-1, pl.Int64))]
    return (
        pl.concat(changes)
        .group_by("gpu_key", "at")
        .agg(pl.col("runs").sum())
        .sort("gpu_key", "at")
        .select("gpu_key", "at", held=pl.col("runs").cum_sum().over("gpu_key") > 0)
    )
