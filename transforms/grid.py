"""From grid series and generation mixes to one intensity per zone and slot.

docs/method.md, "Carbon" and "Water". Values are turned into integers (micrograms, microlitres)
before they are averaged, so that the average does not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from transforms.constants import PPM, SERIES_TIERS, SLOT_US

MICRO = 1_000_000

VALUES = ("value", "low", "high")
"""A value of a series with its bounds, in g/kWh or L/kWh."""

HOUR_US = 3_600_000_000


def _to_micro(value: pl.Expr) -> pl.Expr:
    return (value * MICRO).round().cast(pl.Int64)


def weigh_mix(
    mix: pl.LazyFrame, fuels: pl.LazyFrame, keys: Sequence[str] = ("zone", "valid_from", "valid_to")
) -> pl.LazyFrame:
    """Weigh the factors of fuels by generation: the sum of share x factor.

    Negative generation (a pumped store filling up, a plant's own use) is no source and counts as
    zero; fuels without a factor are left out of both sides. IPCC AR5 WG3 Annex III for carbon, Li
    et al. 2023 (arXiv 2304.03271) for EWIF.

    Args:
        mix: `keys`, fuel, generation_kw, is_estimated, source.
        fuels: fuel, value, low, high (g/kWh or L/kWh); each fuel once.
        keys: What tells one mix from another.

    Returns:
        `keys`, is_estimated, source, value, low, high: a row for each zone and interval.
        Intervals in which nothing generates are left out: they are gaps.
    """
    weight = pl.col("generation_kw").clip(lower_bound=0)
    has_factor = pl.col("value").is_not_null()
    total = (weight * has_factor).sum()
    return (
        mix.join(fuels, on="fuel", how="left", validate="m:1")
        .group_by(*keys)
        .agg(
            pl.col("is_estimated").any(),
            pl.col("source").min(),
            *(
                pl.when(total > 0)
                .then((weight * _to_micro(pl.col(bound))).sum() / total)
                .otherwise(None)
                .truediv(MICRO)
                .alias(bound)
                for bound in VALUES
            ),
        )
        .filter(pl.col("value").is_not_null())
        .sort(*keys)
    )


def select_best(series: pl.LazyFrame) -> pl.LazyFrame:
    """Of overlapping intervals, take those of the lowest rank: one series per zone without overlaps.

    Time is cut at every border, so a gap in one rank is covered by the next one for just as long as
    it lasts.

    Args:
        series: zone, valid_from, valid_to, rank and any further columns. Intervals of one zone and
            rank do not overlap.

    Returns:
        The same columns.
    """
    names = series.collect_schema().names()
    borders = (
        pl.concat(
            series.select("zone", pl.col(end).alias("valid_from"))
            for end in ("valid_from", "valid_to")
        )
        .unique()
        .sort("zone", "valid_from")
        .with_columns(valid_to=pl.col("valid_from").shift(-1).over("zone"))
        .drop_nulls("valid_to")
    )
    ends = series.with_columns(ends=pl.col("valid_to")).drop("valid_to").sort("valid_from")
    covered = [
        borders.sort("valid_from")
        .join_asof(
            ends.filter(pl.col("rank") == rank), on="valid_from", by="zone", check_sortedness=False
        )
        .filter(pl.col("ends") >= pl.col("valid_to"))
        for rank in series.select(pl.col("rank").unique().sort()).collect()["rank"]
    ]
    return (
        pl.concat(covered or [series])
        .sort("zone", "valid_from", "rank")
        .unique(["zone", "valid_from"], keep="first", maintain_order=True)
        .select(names)
    )


def compute_typical_profile(
    series: pl.LazyFrame, hours: pl.LazyFrame, min_days: int = 7
) -> pl.LazyFrame:
    """What a zone's values usually are at an hour of the day, for hours that have none.

    The value is the mean over all days of that hour, weighted by time; the bounds are its lowest
    and highest.

    Args:
        series: zone, valid_from, valid_to, value; without overlaps.
        hours: The hours asked for: zone, valid_from (at the full hour, UTC).
        min_days: An hour of the day that fewer days have a value for has none.

    Returns:
        zone, valid_from, valid_to, value, low, high.
    """
    start = pl.col("valid_from").to_physical()
    by_hour = (
        series.with_columns(
            hour=pl.int_ranges(
                start // HOUR_US, (pl.col("valid_to").to_physical() - 1) // HOUR_US + 1
            )
        )
        .explode("hour")
        .with_columns(
            us=pl.min_horizontal(pl.col("valid_to").to_physical(), (pl.col("hour") + 1) * HOUR_US)
            - pl.max_horizontal(start, pl.col("hour") * HOUR_US)
        )
    )
    usual = (
        by_hour.group_by("zone", hour_of_day=pl.col("hour") % 24)
        .agg(
            (
                (_to_micro(pl.col("value")) * (pl.col("us") // 1000)).sum()
                / (pl.col("us") // 1000).sum()
            )
            .truediv(MICRO)
            .alias("mean"),
            pl.col("value").min().alias("low"),
            pl.col("value").max().alias("high"),
            days=(pl.col("hour") // 24).n_unique(),
        )
        .filter(pl.col("days") >= min_days)
        # The mean of equal values may round past them.
        .with_columns(value=pl.col("mean").clip(pl.col("low"), pl.col("high")))
    )
    return (
        hours.with_columns(hour_of_day=start // HOUR_US % 24)
        .join(usual, on=["zone", "hour_of_day"], validate="m:1")
        .select(
            "zone",
            "valid_from",
            (pl.col("valid_from") + pl.duration(hours=1)).alias("valid_to"),
            *VALUES,
        )
        .sort("zone", "valid_from")
    )


def cut_at_slots(series: pl.LazyFrame, slots: pl.LazyFrame) -> pl.LazyFrame:
    """Cut intervals at the borders of slots.

    Args:
        series: What `select_best` returns.
        slots: The slots asked for: zone, slot.

    Returns:
        The columns of `series` without valid_from and valid_to; slot, and part_us, the time that
        the interval covers of the slot.
    """
    start, end = (pl.col(name).to_physical() for name in ("valid_from", "valid_to"))
    return (
        series.with_columns(slot=pl.int_ranges(start // SLOT_US, (end - 1) // SLOT_US + 1))
        .explode("slot")
        .join(slots.select("zone", "slot"), on=["zone", "slot"], how="semi")
        .with_columns(
            part_us=pl.min_horizontal(end, (pl.col("slot") + 1) * SLOT_US)
            - pl.max_horizontal(start, pl.col("slot") * SLOT_US)
        )
        .drop("valid_from", "valid_to")
    )


def compute_slot_signal(parts: pl.LazyFrame, slots: pl.LazyFrame) -> pl.LazyFrame:
    """One value per zone and slot, weighted by the time that each interval covers.

    A slot that is not covered to the last microsecond has no value, never a guess.

    Args:
        parts: What `cut_at_slots` returns: zone, slot, part_us, rung (the tier), is_estimated,
            value, low, high.
        slots: The slots asked for: zone, slot; each once.

    Returns:
        zone, slot, value, low, high, and shares of the slot in ppm: series_ppm is covered by a
        series with reported values, estimated_ppm by a series with values that its provider
        estimated, fallback_ppm by a lower tier.
    """
    of_series = pl.col("rung").is_in(SERIES_TIERS)
    part = pl.col("part_us")
    covered = parts.group_by("zone", "slot").agg(
        part.sum().alias("covered_us"),
        part.filter(of_series & ~pl.col("is_estimated")).sum().alias("reported_us"),
        part.filter(of_series & pl.col("is_estimated")).sum().alias("estimated_us"),
        *((_to_micro(pl.col(name)) * part).sum() for name in VALUES),
    )
    whole = pl.col("covered_us") == SLOT_US

    def ppm(us: pl.Expr) -> pl.Expr:
        return (us * PPM // SLOT_US).cast(pl.Int32)

    return (
        slots.select("zone", "slot")
        .join(covered, on=["zone", "slot"], how="left", validate="1:1")
        .with_columns(pl.col("covered_us", "reported_us", "estimated_us").fill_null(0))
        .select(
            "zone",
            "slot",
            *(pl.when(whole).then(pl.col(name) / (SLOT_US * MICRO)).alias(name) for name in VALUES),
            series_ppm=ppm(pl.col("reported_us")),
            estimated_ppm=ppm(pl.col("estimated_us")),
            fallback_ppm=ppm(pl.col("covered_us") - pl.col("reported_us") - pl.col("estimated_us")),
        )
        .sort("zone", "slot")
    )


def sum_slot_sources(parts: pl.LazyFrame) -> pl.LazyFrame:
    """What each slot's value rests on.

    Args:
        parts: What `cut_at_slots` returns.

    Returns:
        zone, slot, rung (the tier), feed, source, is_estimated, covered_us.
    """
    keys = ("zone", "slot", "rung", "feed", "source", "is_estimated")
    return parts.group_by(*keys).agg(pl.col("part_us").sum().alias("covered_us")).sort(*keys)
