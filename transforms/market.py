"""Which contracts cover how much of a site's grid energy, and what it costs (docs/method.md, "Market-based").

GHG Protocol Scope 2 Guidance: contracted electricity counts with the contract's intensity, the rest
with the residual mix. All shares are integers, so the result does not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from transforms.constants import PPM, SLOT_US
from transforms.grid import HOUR_US

_MJ_PER_KWH = 3_600_000_000

_BIG = pl.Int128
"""Millijoules of a year times a length of time do not fit 64 bits."""


def prices(slots: pl.LazyFrame, tariffs: Sequence[Mapping[str, Any]]) -> pl.LazyFrame:
    """The price of a kWh at each site and slot; null where no tariff fits.

    Takes slots (site, slot) and tariffs in order (site, price_per_kwh, from_hour, to_hour,
    weekdays: numbers from Monday = 1, tz, first_us, last_us, either null for always). The last that
    fits counts. Hours that end before they begin go over midnight. Gives site, slot, price_per_kwh.
    """
    price: pl.Expr = pl.lit(None, pl.Float64)
    start = pl.col("slot") * SLOT_US
    moment = pl.from_epoch(start, "us").dt.replace_time_zone("UTC")
    for one in tariffs:
        local = moment.dt.convert_time_zone(one["tz"])
        hour, day = local.dt.hour(), local.dt.weekday()
        since, until = hour >= one["from_hour"], hour < one["to_hour"]
        through = one["from_hour"] >= one["to_hour"]
        fits = (pl.col("site") == one["site"]) & day.is_in(one["weekdays"])
        fits &= (since | until) if through else (since & until)
        if one["first_us"] is not None:
            fits &= start >= one["first_us"]
        if one["last_us"] is not None:
            fits &= start < one["last_us"]
        price = pl.when(fits).then(pl.lit(one["price_per_kwh"], pl.Float64)).otherwise(price)
    return slots.select("site", "slot").unique().with_columns(price_per_kwh=price)


def contract_slots(
    energy: pl.LazyFrame, contracts: pl.LazyFrame, deliveries: pl.LazyFrame
) -> pl.LazyFrame:
    """Share of each site's grid energy that each contract covers, slot by slot.

    Takes energy (site, slot, grid_mj: one row per site and slot, whoever used it), contracts
    (contract, position, site, matching, share_ppm, first_us, last_us) and deliveries (contract,
    first_us, last_us, energy_kwh). A contract covers what earlier ones left. One with a share covers
    that share of every slot; one with deliveries covers, in each matching period (hour, or calendar
    year), at most what it delivered in it while the site is known. Gives contract, site, slot,
    covered_ppm.
    """
    found = [
        pl.LazyFrame(
            schema={
                "contract": pl.String,
                "site": pl.String,
                "slot": pl.Int64,
                "covered_ppm": pl.Int64,
            }
        )
    ]
    left = energy.with_columns(left_ppm=pl.lit(PPM, pl.Int64))
    for one in contracts.sort("position").collect().iter_rows(named=True):
        start = pl.col("slot") * SLOT_US
        mine = left.filter(
            (pl.col("site") == one["site"]) & (start >= one["first_us"]) & (start < one["last_us"])
        )
        if one["share_ppm"] is not None:
            covered = mine.with_columns(
                covered_ppm=pl.min_horizontal("left_ppm", pl.lit(one["share_ppm"], pl.Int64))
            )
        else:
            volumes = deliveries.filter(pl.col("contract") == one["contract"])
            covered = _matched(mine, volumes, one["matching"], one["first_us"], one["last_us"])
        covered = (
            covered.select(pl.lit(one["contract"]).alias("contract"), "site", "slot", "covered_ppm")
            .collect()
            .lazy()
        )
        found.append(covered.filter(pl.col("covered_ppm") > 0))
        left = (
            left.join(covered.drop("contract"), on=["site", "slot"], how="left")
            .with_columns(left_ppm=pl.col("left_ppm") - pl.col("covered_ppm").fill_null(0))
            .drop("covered_ppm")
        )
    return pl.concat(found).sort("site", "slot", "contract")


def _matched(
    energy: pl.LazyFrame, deliveries: pl.LazyFrame, matching: str, first_us: int, last_us: int
) -> pl.LazyFrame:
    """Cover open energy up to what was delivered in the same hour or calendar year."""
    hour = pl.col("hour") * HOUR_US
    of_hour = pl.col("hour")
    of_year = pl.from_epoch(hour, "us").dt.year().cast(pl.Int64)
    period = of_hour if matching == "hourly" else of_year
    needed = energy.with_columns(
        open_mj=(pl.col("grid_mj").cast(_BIG) * pl.col("left_ppm") // PPM),
        hour=pl.col("slot") * SLOT_US // HOUR_US,
    ).with_columns(period=period)
    # What was delivered while nothing is known of the site covered what nobody counted here.
    seen = energy.select(
        seen_from=pl.col("slot").min() * SLOT_US, seen_to=(pl.col("slot").max() + 1) * SLOT_US
    )
    pieces = (
        deliveries.join(seen, how="cross")
        .with_columns(
            hour=pl.int_ranges(
                pl.col("first_us") // HOUR_US, (pl.col("last_us") - 1) // HOUR_US + 1
            )
        )
        .explode("hour")
        .with_columns(
            part_us=pl.min_horizontal(
                "last_us", hour + HOUR_US, pl.lit(last_us, pl.Int64), "seen_to"
            )
            - pl.max_horizontal("first_us", hour, pl.lit(first_us, pl.Int64), "seen_from")
        )
        .filter(pl.col("part_us") > 0)
        .with_columns(
            part_mj=(pl.col("energy_kwh") * _MJ_PER_KWH).round().cast(_BIG)
            * pl.col("part_us")
            // (pl.col("last_us") - pl.col("first_us"))
        )
        .group_by(period=period)
        .agg(pl.col("part_mj").sum().alias("delivered_mj"))
    )
    demand = needed.group_by("period").agg(pl.col("open_mj").sum().alias("demand_mj"))
    return (
        needed.join(demand, on="period")
        .join(pieces, on="period", how="left")
        .with_columns(
            used_mj=pl.min_horizontal(pl.col("delivered_mj").fill_null(0), pl.col("demand_mj"))
        )
        .with_columns(
            covered_ppm=pl.when(pl.col("demand_mj") > 0)
            .then(pl.col("left_ppm") * pl.col("used_mj") // pl.col("demand_mj"))
            .otherwise(0)
            .cast(pl.Int64)
        )
    )


def contracted(slots: pl.LazyFrame, contracts: pl.LazyFrame) -> pl.LazyFrame:
    """Sum contracts to one row per site and slot.

    Takes the result of `contract_slots` and contracts (contract, intensity_g_per_kwh with low and
    high). Gives site, slot, contracted_ppm and contracted_g_per_kwh with low and high: grams per
    kWh of *all* grid energy, so that share and intensity are multiplied already.
    """
    micro = 1_000_000
    names = [f"intensity{bound}_g_per_kwh" for bound in ("", "_low", "_high")]
    return (
        slots.join(contracts.select("contract", *names), on="contract")
        .group_by("site", "slot")
        .agg(
            pl.col("covered_ppm").sum().alias("contracted_ppm"),
            *(
                ((pl.col(name) * micro).round().cast(pl.Int64) * pl.col("covered_ppm"))
                .sum()
                .truediv(micro * PPM)
                .alias(name.replace("intensity", "contracted"))
                for name in names
            ),
        )
        .sort("site", "slot")
    )
