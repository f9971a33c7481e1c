"""Which intervals of a generation mix lack a fuel that the feed normally reports.

docs/method.md, "Complete mixes". A mix without its gas is not a clean grid: what is missing is looked for, and
never taken for zero. The rule was decided on 107 years of 30 European zones as ENTSO-E published them.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl

_SERIES = ("zone", "feed")
_FUEL = (*_SERIES, "fuel")
_STORAGE = "storage"
"""What a store gives back was generated before: no factor counts it, and nothing lacks it."""
_SOLAR = "solar"

_KNOWN_DAYS = 4
"""Days that must report a fuel before what is usual at an hour of the day is known."""
_HALF = 0.5
_LOW = 0.2
"""Part of its usual output below which a fuel that runs steadily does not fall."""
_SOME = 0.25
"""Part of the days on which a fuel may stand at zero and still count as running steadily."""
_DOUBT_H = 24
"""Hours after which a zero at the end of a series is believed."""


class Completeness(Protocol):
    """When a mix counts as complete: thresholds, as [grid] in wattledger.toml has them."""

    max_missing_share: float
    """Part of the generation that may be missing."""
    reference_days: int
    """Days before and after an interval that say what is usual."""
    stop_days: int
    """Days without a fuel after which it may have stopped for good."""
    max_stop_share: float
    """Largest part of the generation that stops for good overnight."""


def find_incomplete(mix: pl.LazyFrame, rule: Completeness) -> pl.DataFrame:
    """Find intervals in which fuels are missing that carry more than `rule.max_missing_share`.

    A fuel is missing where it is not reported, or where it stands at zero in a way that it never does
    (`_doubt_zeros`). What it would have generated is its median at this hour of the day on the days around;
    where fewer than four days know it, its nearest values. So a feed that leaves out the sun at night lacks
    nothing, and one that leaves it out at noon does. A fuel that is not reported on one side for `stop_days`
    has begun or stopped there, unless it carried more than `max_stop_share`; after `reference_days`,
    it has in any case.

    Args:
        mix: zone, feed, valid_from, valid_to, fuel, generation_kw; each fuel once in an interval. What lies
            within `reference_days` of an interval decides on it, and nothing else does.
        rule: The thresholds.

    Returns:
        zone, feed, valid_from, valid_to, missing_share (of reported and missing generation) and fuels, the
        missing ones, largest first.
    """
    table = _doubt_zeros(_add_usual(_spread(mix), rule.reference_days))
    expected = _expect_missing(table, rule)
    missing = pl.col("expected") > 0
    total = pl.col("kw").clip(lower_bound=0).sum() + pl.col("expected").sum()
    return (
        expected.group_by(*_SERIES, "valid_from", "valid_to")
        .agg(
            missing_share=pl.col("expected").sum() / total,
            fuels=pl.col("fuel")
            .filter(missing)
            .sort_by(pl.col("expected").filter(missing), descending=True),
        )
        .filter(
            (pl.col("fuels").list.len() > 0) & (pl.col("missing_share") > rule.max_missing_share)
        )
        .sort(*_SERIES, "valid_from")
        .collect()
    )


def _spread(mix: pl.LazyFrame) -> pl.LazyFrame:
    """Each fuel of a series in each of its intervals: `kw`, null where it is not reported."""
    intervals = mix.select(*_SERIES, "valid_from", "valid_to").unique()
    reported = mix.filter(pl.col("fuel") != _STORAGE).select(
        *_FUEL, "valid_from", "valid_to", kw="generation_kw"
    )
    return (
        intervals.join(reported.select(_FUEL).unique(), on=_SERIES)
        .join(reported, on=[*_FUEL, "valid_from", "valid_to"], how="left", validate="1:1")
        .with_columns(day=pl.col("valid_from").dt.date(), hour=pl.col("valid_from").dt.hour())
        .sort(*_FUEL, "valid_from")
    )


def _add_usual(table: pl.LazyFrame, days: int) -> pl.LazyFrame:
    """Add what is usual on the days around: of the fuel (`usual`, `lowest`) and at the hour (`level`)."""
    positive = pl.col("kw").filter(pl.col("kw") > 0)
    by_day = table.group_by(*_FUEL, "day").agg(
        usual=positive.median(),
        lowest=positive.min(),
        is_reported=pl.col("kw").is_not_null().any(),
        has_zero=(pl.col("kw") <= 0).any(),
    )
    by_hour = table.group_by(*_FUEL, "hour", "day").agg(level=pl.col("kw").mean())
    period, offset = f"{2 * days + 1}d", f"-{days + 1}d"
    daily = (
        by_day.sort(*_FUEL, "day")
        .rolling("day", period=period, offset=offset, group_by=_FUEL)
        .agg(
            pl.col("usual").median(),
            pl.col("lowest").quantile(0.1),
            fuel_days=pl.col("is_reported").sum(),
            zero_days=pl.col("has_zero").sum(),
        )
    )
    hourly = (
        by_hour.sort(*_FUEL, "hour", "day")
        .rolling("day", period=period, offset=offset, group_by=[*_FUEL, "hour"])
        .agg(pl.col("level").median(), hour_days=pl.col("level").count())
    )
    return table.join(daily, on=[*_FUEL, "day"], how="left", validate="m:1").join(
        hourly, on=[*_FUEL, "hour", "day"], how="left", validate="m:1"
    )


def _carry(value: str | pl.Expr, where: pl.Expr, *, back: bool = False) -> pl.Expr:
    """The value of the nearest interval at or before one (`back`: at or after it) that fulfils a condition."""
    found = pl.when(where).then(value)
    filled = found.backward_fill() if back else found.forward_fill()
    return filled.over(_FUEL, order_by="valid_from")


def _doubt_zeros(table: pl.LazyFrame) -> pl.LazyFrame:
    """Take zeros that a fuel never has for missing values.

    A plant that stops or starts passes through what lies between; a gap that was written as zero steps from
    the usual output to nothing and back. It is doubted of a fuel that runs steadily, or of several at once.
    """
    start, positive = pl.col("valid_from"), pl.col("kw") > 0
    doubt = pl.duration(hours=_DOUBT_H)
    usual = _HALF * pl.col("usual")
    rows = table.with_columns(
        before=_carry("kw", positive),
        after=_carry("kw", positive, back=True),
        before_at=_carry(start, positive),
        after_at=_carry(start, positive, back=True),
    )
    steps_down = (pl.col("before") >= usual) | (
        pl.col("before").is_null() & (pl.col("after_at") - start <= doubt)
    )
    steps_up = (pl.col("after") >= usual) | (
        pl.col("after").is_null() & (start - pl.col("before_at") <= doubt)
    )
    never_low = pl.col("lowest") >= _LOW * pl.col("usual")
    steady = (pl.col("fuel_days") >= _KNOWN_DAYS) & (
        pl.col("zero_days") <= _SOME * pl.col("fuel_days")
    )
    rows = rows.with_columns(
        steps=((pl.col("kw") <= 0) & never_low & steps_down & steps_up).fill_null(False)
    )
    together = pl.col("steps").sum().over(*_SERIES, "valid_from") > 1
    return rows.with_columns(
        kw=pl.when(pl.col("steps") & (steady | together)).then(None).otherwise("kw")
    )


def _expect_missing(table: pl.LazyFrame, rule: Completeness) -> pl.LazyFrame:
    """Add `expected`, what a missing fuel would have generated in kW; zero where none is missing."""
    start, reported = pl.col("valid_from"), pl.col("kw").is_not_null()
    window, stop = pl.duration(days=rule.reference_days), pl.duration(days=rule.stop_days)
    rows = table.with_columns(
        last=_carry(start, reported),
        next=_carry(start, reported, back=True),
        begin=start.min().over(_SERIES),
        end=start.max().over(_SERIES),
        nearest=_continue_nearest(reported),
        total=pl.col("kw").clip(lower_bound=0).sum().over(*_SERIES, "valid_from"),
    ).with_columns(
        seen_before=(start - pl.col("last") <= window).fill_null(False),
        seen_after=(pl.col("next") - start <= window).fill_null(False),
    )
    at_this_hour = 2 * pl.col("hour_days") >= pl.col("fuel_days")
    expected = (
        pl.when(reported | ~(pl.col("seen_before") | pl.col("seen_after")))
        .then(0.0)
        .when(pl.col("fuel_days") < _KNOWN_DAYS)
        .then("nearest")
        .when(at_this_hour)
        .then("level")
        .otherwise(0.0)
    )
    # Whether it has stopped or begun can only be said where the feed itself goes on without it.
    may_have_stopped = (
        pl.col("seen_before") & ~pl.col("seen_after") & (pl.col("end") - start >= stop)
    )
    may_not_have_begun = (
        pl.col("seen_after") & ~pl.col("seen_before") & (start - pl.col("begin") >= stop)
    )
    rows = rows.with_columns(expected=expected.fill_null(0.0).clip(lower_bound=0))
    small = pl.col("expected") <= rule.max_stop_share * (pl.col("expected") + pl.col("total"))
    return rows.with_columns(
        expected=pl.when((may_have_stopped | may_not_have_begun) & small)
        .then(0.0)
        .otherwise("expected")
    )


def _continue_nearest(reported: pl.Expr) -> pl.Expr:
    """What the nearest values on either side say; the sun goes on rising or setting as it did there."""
    sides = []
    for step, back in ((1, False), (-1, True)):
        change = (pl.col("kw") - pl.col("kw").shift(step)).over(_FUEL, order_by="valid_from")
        slope = pl.when(pl.col("fuel") == _SOLAR).then(change.fill_null(0)).otherwise(0)
        sides.append(_carry((pl.col("kw") + slope).clip(lower_bound=0), reported, back=back))
    return pl.mean_horizontal(*sides)
