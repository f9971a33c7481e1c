"""From attributed energy to facility energy, CO2e and water (docs/method.md, "Footprint").

Every result is an integer per run, site and slot (mJ, ug, uL), so run totals are exact sums.
"""

from __future__ import annotations

import polars as pl

from transforms.schemas import PPM

_MJ_PER_KWH = 3_600_000_000
_PER_KWH = _MJ_PER_KWH // 1_000_000
"""mJ x (g or L per kWh) / 3600 = ug or uL."""

SUMMED = (
    "energy_mj",
    "energy_low_mj",
    "energy_high_mj",
    "measured_mj",
    "gap_mj",
    "filled_mj",
    "held_us",
    "overhead_mj",
    "it_mj",
    "it_low_mj",
    "it_high_mj",
    "facility_mj",
    "facility_low_mj",
    "facility_high_mj",
    "facility_measured_mj",
    "facility_uncovered_mj",
    "co2e_ug",
    "co2e_low_ug",
    "co2e_high_ug",
    "co2e_measured_ug",
    "water_onsite_ul",
    "water_onsite_low_ul",
    "water_onsite_high_ul",
    "water_onsite_measured_ul",
    "water_offsite_ul",
    "water_offsite_low_ul",
    "water_offsite_high_ul",
    "water_offsite_measured_ul",
    "host_mj",
    "host_measured_mj",
)
"""The quantities of a footprint; each adds up over slots, sites and runs."""


def _times(quantity: pl.Expr, factor: pl.Expr) -> pl.Expr:
    return (quantity * factor).round().cast(pl.Int64)


def by_site(energy: pl.LazyFrame) -> pl.LazyFrame:
    """Sum energy over the GPUs of a run at one site in one slot.

    Takes the result of `transforms.host.with_hosts`, joined with site and is_gpu of each gpu_key.
    Only GPUs count in gpus and held_us.
    """
    sums = [
        "energy_mj",
        "energy_low_mj",
        "energy_high_mj",
        "measured_mj",
        "gap_mj",
        "filled_mj",
        "host_mj",
        "host_measured_mj",
        "host_low_mj",
        "host_high_mj",
    ]
    return energy.group_by("kind", "run_id", "site", "slot").agg(
        pl.col("gpu_key").filter("is_gpu").n_unique().cast(pl.Int64).alias("gpus"),
        pl.col(sums).sum(),
        pl.col("held_us", "metered_us").filter("is_gpu").sum(),
    )


def it_energy() -> list[pl.Expr]:
    """IT energy: GPU energy, CPU and memory of the host, and what the site's model adds.

    Where the host is metered the model adds `rest` alone (network, fans, conversion), elsewhere the
    whole `overhead`: power per GPU x GPU time held.
    """

    def overhead(bound: str) -> pl.Expr:
        unmetered = pl.col("held_us") - pl.col("metered_us")
        modelled = (
            pl.col(f"overhead{bound}_mw_per_gpu") * unmetered
            + pl.col(f"rest{bound}_mw_per_gpu") * pl.col("metered_us")
        ) // 1_000_000
        return pl.col(f"host{bound}_mj") + modelled

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
        _times(pl.col("it_mj"), pl.col("pue")).alias("facility_mj"),
        _times(pl.col("it_low_mj"), pl.col("pue_low")).alias("facility_low_mj"),
        _times(pl.col("it_high_mj"), pl.col("pue_high")).alias("facility_high_mj"),
        _times(_it_measured(), pl.col("pue")).alias("facility_measured_mj"),
    ]


def co2e_location_based() -> list[pl.Expr]:
    """CO2e = facility energy x grid intensity then and there (GHG Protocol Scope 2 Guidance)."""
    reported = pl.col("series_ppm") / PPM
    intensity = pl.col("intensity_g_per_kwh")

    def grams(energy: str, factor: pl.Expr) -> pl.Expr:
        return _times(pl.col(energy), factor / _PER_KWH)

    return [
        grams("facility_mj", intensity).alias("co2e_ug"),
        grams("facility_low_mj", pl.col("intensity_low_g_per_kwh")).alias("co2e_low_ug"),
        grams("facility_high_mj", pl.col("intensity_high_g_per_kwh")).alias("co2e_high_ug"),
        grams("facility_measured_mj", intensity * reported).alias("co2e_measured_ug"),
        pl.when(intensity.is_null())
        .then("facility_mj")
        .otherwise(0)
        .alias("facility_uncovered_mj"),
    ]


def water() -> list[pl.Expr]:
    """Water consumed: on site = IT energy x WUE; off site = facility energy x EWIF.

    Li et al. 2023 (arXiv 2304.03271); WUE counts litres per kWh of IT energy (ISO/IEC 30134-9).
    """

    def litres(energy: str, factor: str, share: pl.Expr | float = 1.0) -> pl.Expr:
        return _times(pl.col(energy), pl.col(factor) / _PER_KWH * share)

    reported = pl.col("ewif_series_ppm") / PPM
    return [
        litres("it_mj", "wue_l_per_kwh").alias("water_onsite_ul"),
        litres("it_low_mj", "wue_low_l_per_kwh").alias("water_onsite_low_ul"),
        litres("it_high_mj", "wue_high_l_per_kwh").alias("water_onsite_high_ul"),
        _times(_it_measured(), pl.col("wue_l_per_kwh") / _PER_KWH).alias(
            "water_onsite_measured_ul"
        ),
        litres("facility_mj", "ewif_l_per_kwh").alias("water_offsite_ul"),
        litres("facility_low_mj", "ewif_low_l_per_kwh").alias("water_offsite_low_ul"),
        litres("facility_high_mj", "ewif_high_l_per_kwh").alias("water_offsite_high_ul"),
        litres("facility_measured_mj", "ewif_l_per_kwh", reported).alias(
            "water_offsite_measured_ul"
        ),
    ]


def footprint_slots(
    energy: pl.LazyFrame, sites: pl.LazyFrame, signals: pl.LazyFrame
) -> pl.LazyFrame:
    """Energy, carbon and water per run, site and slot.

    Takes the result of `by_site`; sites with one row per site and slot asked for (site, slot,
    zone, PUE, WUE, overhead and rest with bounds); and signals (zone, slot, intensity and EWIF with
    bounds, series_ppm, ewif_series_ppm). Gives kind, run_id, site, zone, slot, gpus and `SUMMED`.
    A slot without intensity has null CO2e and counts in facility_uncovered_mj.
    """
    return (
        energy.join(sites, on=["site", "slot"], how="left")
        .join(signals, on=["zone", "slot"], how="left")
        .with_columns(it_energy())
        .with_columns(facility_energy())
        .with_columns(co2e_location_based())
        .with_columns(water())
        .select("kind", "run_id", "site", "zone", "slot", "gpus", *SUMMED)
        .sort("kind", "run_id", "site", "slot")
    )


def run_totals(slots: pl.LazyFrame, gpus: pl.LazyFrame) -> pl.LazyFrame:
    """Sum slots to one row per run (and one each for idle and unallocated).

    Takes the result of `footprint_slots` and gpus (kind, run_id, gpus: GPUs that took part).
    """
    return (
        slots.group_by("kind", "run_id")
        .agg(
            pl.col("slot").min().alias("first_slot"),
            pl.col("slot").max().alias("last_slot"),
            pl.col(*SUMMED).sum(),
        )
        .join(gpus, on=["kind", "run_id"], how="left", nulls_equal=True)
        # A run that held its host alone.
        .with_columns(pl.col("gpus").fill_null(0))
        .select("kind", "run_id", "first_slot", "last_slot", "gpus", *SUMMED)
        .sort("kind", "run_id")
    )
