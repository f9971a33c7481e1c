"""How much of a site's grid energy each contract covers, and what it costs (docs/method.md, "Market-based").

GHG Protocol Scope 2 Guidance: contracted electricity counts with the contract's intensity, the rest
with the residual mix. All shares are integers, so the result does not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from transforms.constants import BOUNDS, PPM, SLOT_US
from transforms.grid import HOUR_US

_MJ_PER_KWH = 3_600_000_000

_BIG = pl.Int128
"""The millijoules of a year, multiplied by a length of time, do not fit 64 bits."""

_MICRO = 1_000_000

_COVERED = {"contract": pl.String, "site": pl.String, "slot": pl.Int64, "covered_ppm": pl.Int64}
"""The result of `match_contracts`."""


def price_slots(slots: pl.LazyFrame, tariffs: Sequence[Mapping[str, Any]]) -> pl.LazyFrame:
    """The price of a kWh at each site and slot.

    Args:
        slots: site, slot.
        tariffs: In order; of those that fit a slot the last counts. Each has site, price_per_kwh,
            from_hour and to_hour (local; an interval that ends before it begins goes over midnight),
            weekdays (numbers from Monday = 1), tz, first_us and last_us (null for always).

    Returns:
        One row per site and slot: site, slot, price_per_kwh, which is null where no tariff fits.
    """
    price: pl.Expr = pl.lit(None, pl.Float64)
    for tariff in tariffs:
        tariff_price = pl.lit(tariff["price_per_kwh"], pl.Float64)
        price = pl.when(_tariff_fits(tariff)).then(tariff_price).otherwise(price)
    return slots.select("site", "slot").unique().with_columns(price_per_kwh=price)


def _tariff_fits(tariff: Mapping[str, Any]) -> pl.Expr:
    """Whether a tariff holds at a site and slot."""
    start = pl.col("slot") * SLOT_US
    local = (
        pl.from_epoch(start, "us").dt.replace_time_zone("UTC").dt.convert_time_zone(tariff["tz"])
    )
    hour, day = local.dt.hour(), local.dt.weekday()
    since, until = hour >= tariff["from_hour"], hour < tariff["to_hour"]
    over_midnight = tariff["from_hour"] >= tariff["to_hour"]
    fits: pl.Expr = (pl.col("site") == tariff["site"]) & day.is_in(tariff["weekdays"])
    fits &= (since | until) if over_midnight else (since & until)
    if tariff["first_us"] is not None:
        fits &= start >= tariff["first_us"]
    if tariff["last_us"] is not None:
        fits &= start < tariff["last_us"]
    return fits


def match_contracts(
    energy: pl.LazyFrame, contracts: pl.LazyFrame, deliveries: pl.LazyFrame
) -> pl.LazyFrame:
    """The share of each site's grid energy that each contract covers, slot by slot.

    Contracts are used in order of position, and each covers only what earlier ones left. A contract
    with a share covers that share of every slot. A contract with deliveries covers, in each matching
    period (hour, or calendar year), at most what it delivered in it while the site is known.

    Args:
        energy: site, slot, grid_mj: one row per site and slot, whoever used the energy.
        contracts: contract, position, site, matching (hourly or annual), share_ppm (null where it has
            deliveries), first_us, last_us.
        deliveries: contract, first_us, last_us, energy_kwh.

    Returns:
        One row per contract, site and slot with anything covered: contract, site, slot, covered_ppm.
    """
    matched = [pl.LazyFrame(schema=_COVERED)]
    left = energy.with_columns(left_ppm=pl.lit(PPM, pl.Int64))
    for contract in contracts.sort("position").collect().iter_rows(named=True):
        start = pl.col("slot") * SLOT_US
        own = left.filter(
            (pl.col("site") == contract["site"])
            & (start >= contract["first_us"])
            & (start < contract["last_us"])
        )
        if contract["share_ppm"] is not None:
            covered = own.with_columns(
                covered_ppm=pl.min_horizontal("left_ppm", pl.lit(contract["share_ppm"], pl.Int64))
            )
        else:
            volumes = deliveries.filter(pl.col("contract") == contract["contract"])
            covered = _cover_by_deliveries(own, volumes, contract)
        covered = (
            covered.select(
                pl.lit(contract["contract"]).alias("contract"), "site", "slot", "covered_ppm"
            )
            .collect()
            .lazy()
        )
        matched.append(covered.filter(pl.col("covered_ppm") > 0))
        left = (
            left.join(covered.drop("contract"), on=["site", "slot"], how="left", validate="1:1")
            .with_columns(left_ppm=pl.col("left_ppm") - pl.col("covered_ppm").fill_null(0))
            .drop("covered_ppm")
        )
    return pl.concat(matched).sort("site", "slot", "contract")


def _cover_by_deliveries(
    energy: pl.LazyFrame, deliveries: pl.LazyFrame, contract: Mapping[str, Any]
) -> pl.LazyFrame:
    """Cover open energy up to what was delivered in the same hour or calendar year.

    Args:
        energy: site, slot, grid_mj, left_ppm, of one site while the contract holds.
        deliveries: first_us, last_us, energy_kwh, of the contract.
        contract: matching, first_us, last_us.

    Returns:
        The rows of `energy` with covered_ppm added.
    """
    period = _matching_period(contract["matching"])
    needed = energy.with_columns(
        open_mj=(pl.col("grid_mj").cast(_BIG) * pl.col("left_ppm") // PPM),
        hour=pl.col("slot") * SLOT_US // HOUR_US,
    ).with_columns(period=period)
    demand = needed.group_by("period").agg(pl.col("open_mj").sum().alias("demand_mj"))
    delivered = (
        _hourly_deliveries(energy, deliveries, contract)
        .group_by(period=period)
        .agg(pl.col("part_mj").sum().alias("delivered_mj"))
    )
    return (
        needed.join(demand, on="period", validate="m:1")
        .join(delivered, on="period", how="left", validate="m:1")
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


def _matching_period(matching: str) -> pl.Expr:
    """The period in which deliveries match energy, of the hour that a row is in."""
    if matching == "hourly":
        return pl.col("hour")
    return pl.from_epoch(pl.col("hour") * HOUR_US, "us").dt.year().cast(pl.Int64)


def _hourly_deliveries(
    energy: pl.LazyFrame, deliveries: pl.LazyFrame, contract: Mapping[str, Any]
) -> pl.LazyFrame:
    """Deliveries by the hour (hour, part_mj), while the contract holds and the site is known."""
    hour = pl.col("hour") * HOUR_US
    first_us, last_us = (pl.lit(contract[name], pl.Int64) for name in ("first_us", "last_us"))
    # A delivery from before or after the site's energy is known covered what is not counted here.
    known = energy.select(
        known_from=pl.col("slot").min() * SLOT_US, known_to=(pl.col("slot").max() + 1) * SLOT_US
    )
    return (
        deliveries.join(known, how="cross")
        .with_columns(
            hour=pl.int_ranges(
                pl.col("first_us") // HOUR_US, (pl.col("last_us") - 1) // HOUR_US + 1
            )
        )
        .explode("hour")
        .with_columns(
            part_us=pl.min_horizontal("last_us", hour + HOUR_US, last_us, "known_to")
            - pl.max_horizontal("first_us", hour, first_us, "known_from")
        )
        .filter(pl.col("part_us") > 0)
        .with_columns(
            part_mj=(pl.col("energy_kwh") * _MJ_PER_KWH).round().cast(_BIG)
            * pl.col("part_us")
            // (pl.col("last_us") - pl.col("first_us"))
        )
    )


def sum_contracts(slots: pl.LazyFrame, contracts: pl.LazyFrame) -> pl.LazyFrame:
    """Sum contracts to one row per site and slot.

    Args:
        slots: The result of `match_contracts`.
        contracts: One row per contract: contract, intensity_g_per_kwh with low and high.

    Returns:
        site, slot, contracted_ppm and contracted_g_per_kwh with low and high: grams per kWh of *all*
        grid energy, so that share and intensity are multiplied already.
    """
    names = [f"intensity{bound}_g_per_kwh" for bound in BOUNDS]
    return (
        slots.join(contracts.select("contract", *names), on="contract", validate="m:1")
        .group_by("site", "slot")
        .agg(
            pl.col("covered_ppm").sum().alias("contracted_ppm"),
            *(
                ((pl.col(name) * _MICRO).round().cast(pl.Int64) * pl.col("covered_ppm"))
                .sum()
                .truediv(_MICRO * PPM)
                .alias(name.replace("intensity", "contracted"))
                for name in names
            ),
        )
        .sort("site", "slot")
    )
