"""From attributed energy to facility energy, CO2e and water (docs/method.md, "Footprint").

Every result is an integer per run, site and slot (mJ, ug, uL), so run totals are exact sums.
"""

from __future__ import annotations

import polars as pl

from transforms.constants import BOUNDS, PPM
from transforms.embodied import EMBODIED
from transforms.figures import BY_NAME, ENERGY, SUMMED

PER_KWH = round(ENERGY.per) // 1_000_000
"""mJ x (g or L per kWh) / 3600 = ug or uL."""


def multiply(quantity: pl.Expr, factor: pl.Expr | int) -> pl.Expr:
    """A product, rounded to whole units."""
    return (quantity * factor).round().cast(pl.Int64)


SITE_SUMS = (
    *BY_NAME["energy"].columns,
    "measured_mj",
    "gap_mj",
    "filled_mj",
    "host_mj",
    "host_measured_mj",
    "host_low_mj",
    "host_high_mj",
    *EMBODIED,
)
_GPU_SUMS = ("held_us", "metered_us")


def sum_by_site(energy: pl.LazyFrame, *more: str) -> pl.LazyFrame:
    """Sum energy over the GPUs of a run at one site in one slot.

    Args:
        energy: One row per run (or idle, or unallocated), device and slot: kind, run_id, gpu_key, slot,
            site, is_gpu, `SITE_SUMS` (mJ, ug, uL), held_us and metered_us. This is the result of
            `transforms.host.add_host_energy` and `transforms.embodied.add_embodied`, joined with the site of
            each device.
        *more: Further columns to group by.

    Returns:
        kind, run_id, site, slot, the further columns, gpus, `SITE_SUMS`, held_us and metered_us. Only
        GPUs count in gpus, held_us and metered_us.
    """
    return energy.group_by("kind", "run_id", "site", "slot", *more).agg(
        pl.col("gpu_key").filter("is_gpu").n_unique().cast(pl.Int64).alias("gpus"),
        pl.col(SITE_SUMS).sum(),
        pl.col(_GPU_SUMS).filter("is_gpu").sum(),
    )


def sum_sites(parts: pl.LazyFrame) -> pl.LazyFrame:
    """Sum parts of sites that share no GPU.

    Args:
        parts: Results of `sum_by_site` of each part, one below the other.

    Returns:
        The columns of `sum_by_site`, with one row per kind, run_id, site and slot.
    """
    return parts.group_by("kind", "run_id", "site", "slot").agg(
        pl.col("gpus", *SITE_SUMS, *_GPU_SUMS).sum()
    )


def it_energy() -> list[pl.Expr]:
    """IT energy: GPU energy, CPU and memory of the host, and what the site's model adds.

    Where the host is metered the model adds `rest` alone (network, fans, conversion), elsewhere the
    whole `overhead`: power per GPU x GPU time held.
    """

    def overhead(bound: str) -> pl.Expr:
        unmetered = pl.col("held_us") - pl.col("metered_us")
        # mW x us of 100,000 GPUs do not fit 64 bits.
        modelled = (
            pl.col(f"overhead{bound}_mw_per_gpu").cast(pl.Int128) * unmetered
            + pl.col(f"rest{bound}_mw_per_gpu").cast(pl.Int128) * pl.col("metered_us")
        ) // 1_000_000
        return pl.col(f"host{bound}_mj") + modelled.cast(pl.Int64)

    return [
        overhead("").alias("overhead_mj"),
        (pl.col("energy_mj") + overhead("")).alias("it_mj"),
        (pl.col("energy_low_mj") + overhead("_low")).alias("it_low_mj"),
        (pl.col("energy_high_mj") + overhead("_high")).alias("it_high_mj"),
    ]


def _it_measured() -> pl.Expr:
    return pl.col("measured_mj") + pl.col("host_measured_mj")


def facility_energy() -> list[pl.Expr]:
    """Facility energy = IT energy x PUE (ISO/IEC 30134-2)."""
    return [
        multiply(pl.col("it_mj"), pl.col("pue")).alias("facility_mj"),
        multiply(pl.col("it_low_mj"), pl.col("pue_low")).alias("facility_low_mj"),
        multiply(pl.col("it_high_mj"), pl.col("pue_high")).alias("facility_high_mj"),
        multiply(_it_measured(), pl.col("pue")).alias("facility_measured_mj"),
    ]


def grid_energy() -> list[pl.Expr]:
    """Facility energy from the grid: what on-site generation does not give.

    The more is generated on site, the less comes from the grid, so the bounds of the share swap.
    """
    return [
        (pl.col("facility_mj") - _onsite("facility_mj", "onsite_share")).alias("grid_mj"),
        (pl.col("facility_low_mj") - _onsite("facility_low_mj", "onsite_share_high")).alias(
            "grid_low_mj"
        ),
        (pl.col("facility_high_mj") - _onsite("facility_high_mj", "onsite_share_low")).alias(
            "grid_high_mj"
        ),
        _onsite("facility_mj", "onsite_share").alias("onsite_mj"),
        (pl.col("facility_measured_mj") - _onsite("facility_measured_mj", "onsite_share")).alias(
            "grid_measured_mj"
        ),
    ]


def _onsite(energy: str, share: str) -> pl.Expr:
    return multiply(pl.col(energy), pl.col(share))


def _per_kwh(energy: pl.Expr, intensity: pl.Expr) -> pl.Expr:
    return multiply(energy, intensity / PER_KWH)


def co2e_location_based() -> list[pl.Expr]:
    """CO2e = grid energy x grid intensity then and there (GHG Protocol Scope 2 Guidance)."""
    reported = pl.col("series_ppm") / PPM
    intensity = pl.col("intensity_g_per_kwh")
    return [
        *(
            _per_kwh(pl.col(f"grid{bound}_mj"), pl.col(f"intensity{bound}_g_per_kwh")).alias(
                f"co2e{bound}_ug"
            )
            for bound in BOUNDS
        ),
        _per_kwh(pl.col("grid_measured_mj"), intensity * reported).alias("co2e_measured_ug"),
        pl.when(intensity.is_null()).then("grid_mj").otherwise(0).alias("facility_uncovered_mj"),
    ]


def co2e_scope1() -> list[pl.Expr]:
    """CO2e of on-site generation = its energy x direct emissions of the plant (scope 1)."""
    return [
        _per_kwh(
            _onsite(f"facility{bound}_mj", f"onsite_share{bound}"),
            pl.col(f"onsite{bound}_g_per_kwh"),
        ).alias(f"co2e_scope1{bound}_ug")
        for bound in BOUNDS
    ]


def co2e_market_based() -> list[pl.Expr]:
    """CO2e by contract: contracted energy at its intensity, the rest at the residual mix.

    GHG Protocol Scope 2 Guidance. Where no residual mix is known the rest counts with the
    location-based intensity, as the Guidance has it, and is left out of residual_mj.
    """
    covered = pl.col("contracted_ppm").fill_null(0)
    contracted = pl.col("grid_mj") * (covered / PPM)
    rest = pl.col("grid_mj") - contracted.floor().cast(pl.Int64)

    def total(bound: str) -> pl.Expr:
        residual = pl.coalesce(f"residual{bound}_g_per_kwh", f"intensity{bound}_g_per_kwh")
        # Nothing is left to count where contracts cover all of it.
        uncovered = pl.when(covered == PPM).then(0.0).otherwise((1 - covered / PPM) * residual)
        mean = pl.col(f"contracted{bound}_g_per_kwh").fill_null(0.0) + uncovered
        return _per_kwh(pl.col(f"grid{bound}_mj"), mean).alias(f"co2e_market{bound}_ug")

    return [
        *(total(bound) for bound in BOUNDS),
        contracted.floor().cast(pl.Int64).alias("contracted_mj"),
        pl.when(pl.col("residual_g_per_kwh").is_null())
        .then(0)
        .otherwise(rest)
        .alias("residual_mj"),
    ]


def co2e_marginal() -> list[pl.Expr]:
    """Marginal effect = grid energy x marginal rate: another question, never part of a total."""
    return [
        *(
            _per_kwh(pl.col(f"grid{bound}_mj"), pl.col(f"marginal{bound}_g_per_kwh")).alias(
                f"co2e_marginal{bound}_ug"
            )
            for bound in BOUNDS
        ),
        pl.when(pl.col("marginal_g_per_kwh").is_null())
        .then(0)
        .otherwise("grid_mj")
        .alias("marginal_mj"),
    ]


def co2e_losses() -> list[pl.Expr]:
    """CO2e of what was generated and lost on the way: loss / (1 - loss) for each kWh delivered.

    GHG Protocol Corporate Value Chain Standard, category 3; 0 unless a loss is configured.
    """

    def lost(bound: str) -> pl.Expr:
        share = pl.col(f"loss{bound}")
        return pl.col(f"intensity{bound}_g_per_kwh") * share / (1 - share)

    return [
        _per_kwh(pl.col(f"grid{bound}_mj"), lost(bound)).alias(f"co2e_losses{bound}_ug")
        for bound in BOUNDS
    ]


def water() -> list[pl.Expr]:
    """Water consumed: on site = IT energy x WUE + on-site generation; off site = grid x EWIF.

    Li et al. 2023 (arXiv 2304.03271); WUE counts litres per kWh of IT energy (ISO/IEC 30134-9).
    """

    def onsite(bound: str) -> pl.Expr:
        generated = _onsite(f"facility{bound}_mj", f"onsite_share{bound}")
        return (
            _per_kwh(pl.col(f"it{bound}_mj"), pl.col(f"wue{bound}_l_per_kwh"))
            + _per_kwh(generated, pl.col(f"onsite{bound}_l_per_kwh"))
        ).alias(f"water_onsite{bound}_ul")

    reported = pl.col("ewif_series_ppm") / PPM
    return [
        *(onsite(bound) for bound in BOUNDS),
        _per_kwh(_it_measured(), pl.col("wue_l_per_kwh")).alias("water_onsite_measured_ul"),
        *(
            _per_kwh(pl.col(f"grid{bound}_mj"), pl.col(f"ewif{bound}_l_per_kwh")).alias(
                f"water_offsite{bound}_ul"
            )
            for bound in BOUNDS
        ),
        _per_kwh(pl.col("grid_measured_mj"), pl.col("ewif_l_per_kwh") * reported).alias(
            "water_offsite_measured_ul"
        ),
    ]


def water_withdrawal() -> list[pl.Expr]:
    """Water withdrawn: on site = consumed x ratio; off site = grid energy x withdrawal factor.

    Macknick et al. 2012 (ERL 7 045802). No less than what is consumed; stands beside consumption
    and is never added to it. Takes the results of `water`.
    """

    def withdrawn(bound: str) -> pl.Expr:
        onsite = multiply(pl.col(f"water_onsite{bound}_ul"), pl.col(f"withdrawal_ratio{bound}"))
        offsite = _per_kwh(pl.col(f"grid{bound}_mj"), pl.col(f"withdrawal{bound}_l_per_kwh"))
        consumed = pl.col(f"water_offsite{bound}_ul")
        # Where nothing is known of withdrawal, there is no figure.
        known = pl.when(offsite.is_not_null()).then(pl.max_horizontal(offsite, consumed))
        return (onsite + known).alias(f"water_withdrawal{bound}_ul")

    return [withdrawn(bound) for bound in BOUNDS]


def cost() -> list[pl.Expr]:
    """Cost = facility energy x price then and there, in millionths of the currency."""
    price = pl.col("price_per_kwh")
    return [
        _per_kwh(pl.col("facility_mj"), price).fill_null(0).alias("cost_micro"),
        pl.when(price.is_null()).then(0).otherwise("facility_mj").alias("priced_mj"),
    ]


def compute_facility_slots(energy: pl.LazyFrame, sites: pl.LazyFrame) -> pl.LazyFrame:
    """Compute IT, facility, grid and on-site energy per run, site and slot.

    Args:
        energy: The result of `sum_by_site`.
        sites: One row per site and slot: site, slot, zone, and with bounds pue, wue_l_per_kwh,
            overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, onsite_g_per_kwh, onsite_l_per_kwh,
            withdrawal_ratio and loss.

    Returns:
        The columns of both, and the quantities of `it_energy`, `facility_energy` and `grid_energy`, in mJ.
    """
    return (
        energy.join(sites, on=["site", "slot"], how="left", validate="m:1")
        .with_columns(it_energy())
        .with_columns(facility_energy())
        .with_columns(grid_energy())
    )


def compute_host_slots(energy: pl.LazyFrame, sites: pl.LazyFrame) -> pl.LazyFrame:
    """Compute the IT energy of hosts, whoever held their GPUs.

    Args:
        energy: What `sum_by_site` takes, with host.
        sites: As `compute_facility_slots` takes them.

    Returns:
        host, slot, and it_mj with its bounds, sorted by host and slot.
    """
    hosts = energy.select("host", "site").unique()
    return (
        sum_by_site(energy.with_columns(site="host"))
        .rename({"site": "host"})
        .join(hosts, on="host", validate="m:1")
        .join(sites, on=["site", "slot"], how="left", validate="m:1")
        .with_columns(it_energy())
        .group_by("host", "slot")
        .agg(pl.col("it_mj", "it_low_mj", "it_high_mj").sum())
        .sort("host", "slot")
    )


def compute_footprint_slots(
    facility: pl.LazyFrame,
    signals: pl.LazyFrame,
    contracts: pl.LazyFrame,
    prices: pl.LazyFrame,
) -> pl.LazyFrame:
    """Compute energy, carbon, water and cost per run, site and slot.

    Args:
        facility: The result of `compute_facility_slots`.
        signals: One row per zone and slot: zone, slot, series_ppm, ewif_series_ppm, and with bounds
            intensity_g_per_kwh, marginal_g_per_kwh, residual_g_per_kwh, ewif_l_per_kwh and
            withdrawal_l_per_kwh.
        contracts: The result of `transforms.market.sum_contracts`: one row per site and slot.
        prices: The result of `transforms.market.price_slots`: one row per site and slot.

    Returns:
        kind, run_id, site, zone, slot, gpus and `transforms.figures.SUMMED`, sorted. A slot without
        intensity has null CO2e and counts in facility_uncovered_mj.
    """
    return (
        facility.join(signals, on=["zone", "slot"], how="left", validate="m:1")
        .join(contracts, on=["site", "slot"], how="left", validate="m:1")
        .join(prices, on=["site", "slot"], how="left", validate="m:1")
        .with_columns(co2e_location_based())
        .with_columns(co2e_scope1())
        .with_columns(co2e_market_based())
        .with_columns(co2e_marginal())
        .with_columns(co2e_losses())
        .with_columns(water())
        .with_columns(water_withdrawal())
        .with_columns(cost())
        .select("kind", "run_id", "site", "zone", "slot", "gpus", *SUMMED)
        .sort("kind", "run_id", "site", "slot")
    )


def sum_runs(slots: pl.LazyFrame, gpus: pl.LazyFrame) -> pl.LazyFrame:
    """Sum slots to one row per run, and one each for idle and unallocated.

    Args:
        slots: The result of `compute_footprint_slots`.
        gpus: kind, run_id and gpus: how many GPUs took part.

    Returns:
        kind, run_id, first_slot, last_slot, gpus and `transforms.figures.SUMMED`, sorted.

    Raises:
        polars.exceptions.InvalidOperationError: a sum is beyond 64 bits (2.56 TWh).
    """
    return (
        slots.group_by("kind", "run_id")
        .agg(
            pl.col("slot").min().alias("first_slot"),
            pl.col("slot").max().alias("last_slot"),
            # Sums of 64 bits would wrap around silently.
            pl.col(*SUMMED).cast(pl.Int128).sum().cast(pl.Int64),
        )
        .join(gpus, on=["kind", "run_id"], how="left", nulls_equal=True, validate="1:1")
        # A run that held its host alone has no GPU.
        .with_columns(pl.col("gpus").fill_null(0))
        .select("kind", "run_id", "first_slot", "last_slot", "gpus", *SUMMED)
        .sort("kind", "run_id")
    )
