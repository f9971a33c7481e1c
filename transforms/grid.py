"""From grid series and generation mixes to one intensity per zone and slot.

docs/method.md, "Carbon" and "Water". Values are turned into integers (micrograms, microlitres)
before they are averaged, so that the average does not depend on the order of rows.
"""

from __future__ import annotations

import polars as pl

from transforms.schemas import PPM, SLOT_US

MICRO = 1_000_000

_BOUNDS = ("", "_low", "_high")


def mix_factors(
    mix: pl.LazyFrame, fuels: pl.LazyFrame, value: str, low: str, high: str
) -> pl.LazyFrame:
    """Weigh fuel factors by generation: one row per zone and interval.

    Takes a generation mix (zone, valid_from, valid_to, fuel, generation_kw, is_estimated) and
    fuels (fuel, value, low, high in g/kWh or L/kWh). Negative generation (a pumped store filling
    up, a plant's own use) is no source and counts as zero; fuels without a factor are left out of
    both sides. Intervals in which nothing generates are left out: they are gaps. Gives zone,
    valid_from, valid_to, is_estimated and the named columns. Sum of share x factor: IPCC AR5 WG3
    Annex III for carbon, Li et al. 2023 (arXiv 2304.03271) for EWIF.
    """
    weight = pl.col("generation_kw").clip(lower_bound=0)
    known = pl.col("value").is_not_null()
    total = (weight * known).sum()
    return (
        mix.join(fuels, on="fuel", how="left")
        .group_by("zone", "valid_from", "valid_to")
        .agg(
            pl.col("is_estimated").any(),
            *(
                pl.when(total > 0)
                .then((weight * (pl.col(bound) * MICRO).round().cast(pl.Int64)).sum() / total)
                .otherwise(None)
                .truediv(MICRO)
                .alias(name)
                for bound, name in (("value", value), ("low", low), ("high", high))
            ),
        )
        .filter(pl.col(value).is_not_null())
        .sort("zone", "valid_from")
    )


def slot_signal(
    series: pl.LazyFrame, slots: pl.LazyFrame, fallback: pl.LazyFrame, name: str, unit: str
) -> pl.LazyFrame:
    """One value per zone and slot, weighted by the time each interval covers.

    Takes series (zone, valid_from, valid_to, is_estimated, {name}_{unit} and its low and high;
    intervals of one zone do not overlap), the slots asked for (zone, slot) and fallback values
    (zone, value, low, high). What no interval covers takes the fallback; without one the slot's
    value is null, never a guess. Gives zone, slot, the value with low and high, series_ppm,
    estimated_ppm and fallback_ppm.
    """
    names = [f"{name}{bound}_{unit}" for bound in _BOUNDS]
    timed = series.with_columns(
        pl.col("valid_from", "valid_to").to_physical(),
        *((pl.col(column) * MICRO).round().cast(pl.Int64) for column in names),
    )
    parts = (
        timed.with_columns(
            slot=pl.int_ranges(
                pl.col("valid_from") // SLOT_US, (pl.col("valid_to") - 1) // SLOT_US + 1
            )
        )
        .explode("slot")
        .join(slots.select("zone", "slot"), on=["zone", "slot"], how="semi")
        .with_columns(
            part_us=pl.min_horizontal("valid_to", (pl.col("slot") + 1) * SLOT_US)
            - pl.max_horizontal("valid_from", pl.col("slot") * SLOT_US)
        )
    )
    reported = pl.col("part_us").filter(~pl.col("is_estimated")).sum()
    covered = parts.group_by("zone", "slot").agg(
        pl.col("part_us").sum().alias("covered_us"),
        reported.alias("reported_us"),
        *((pl.col(column) * pl.col("part_us")).sum() for column in names),
    )
    rest = SLOT_US - pl.col("covered_us")
    weighted = (
        slots.select("zone", "slot")
        .join(covered, on=["zone", "slot"], how="left")
        .join(fallback.select("zone", "value", "low", "high"), on="zone", how="left")
        .with_columns(pl.col("covered_us", "reported_us", *names).fill_null(0))
    )

    def mean(column: str, default: str) -> pl.Expr:
        filled = pl.col(column) + (pl.col(default) * MICRO).round().cast(pl.Int64) * rest
        whole = pl.when(rest == 0).then(pl.col(column)).otherwise(filled)
        return whole / (SLOT_US * MICRO)

    return weighted.select(
        "zone",
        "slot",
        *(
            mean(column, default).alias(column)
            for column, default in zip(names, ("value", "low", "high"), strict=True)
        ),
        series_ppm=(pl.col("reported_us") * PPM // SLOT_US).cast(pl.Int32),
        estimated_ppm=((pl.col("covered_us") - pl.col("reported_us")) * PPM // SLOT_US).cast(
            pl.Int32
        ),
        fallback_ppm=pl.when(pl.col("value").is_null())
        .then(0)
        .otherwise(rest * PPM // SLOT_US)
        .cast(pl.Int32),
    ).sort("zone", "slot")
