"""Footprints without meters, from GPU-hours and mean power (docs/method.md, "Estimates").

One GPU-hour is put through the formulas of the ledger, and the result multiplied by the GPU-hours:
an estimate and a metered run differ in their inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from transforms.constants import BOUNDS
from transforms.embodied import INPUTS as EMBODIED_INPUTS
from transforms.embodied import embodied, hourly
from transforms.footprint import facility_slots, footprint_slots, times
from transforms.grid import HOUR_US

INPUTS: dict[str, float] = {
    "gpu_hours": 0.0,
    "gpu_w": 0.0,
    "overhead_w": 0.0,
    "pue": 1.0,
    "wue_l_per_kwh": 0.0,
    "onsite_share": 0.0,
    "onsite_g_per_kwh": 0.0,
    "onsite_l_per_kwh": 0.0,
    "withdrawal_ratio": 1.0,
    "loss": 0.0,
    "intensity_g_per_kwh": 0.0,
    "residual_g_per_kwh": 0.0,
    "ewif_l_per_kwh": 0.0,
    "withdrawal_l_per_kwh": 0.0,
    "gpu_kg": 0.0,
    "server_kg": 0.0,
    "gpu_l": 0.0,
    "years": 1.0,
    "utilisation": 1.0,
    "price_per_kwh": 0.0,
}
"""What a case is made of, and what leaves it out of the result."""

_FIGURES = {
    "energy_kwh": ("energy{}_mj", 3.6e9),
    "it_kwh": ("it{}_mj", 3.6e9),
    "facility_kwh": ("facility{}_mj", 3.6e9),
    "grid_kwh": ("grid{}_mj", 3.6e9),
    "co2e_scope1_kg": ("co2e_scope1{}_ug", 1e9),
    "co2e_kg": ("co2e{}_ug", 1e9),
    "co2e_market_kg": ("co2e_market{}_ug", 1e9),
    "co2e_losses_kg": ("co2e_losses{}_ug", 1e9),
    "co2e_embodied_kg": ("co2e_embodied{}_ug", 1e9),
    "water_onsite_l": ("water_onsite{}_ul", 1e6),
    "water_offsite_l": ("water_offsite{}_ul", 1e6),
    "water_embodied_l": ("water_embodied{}_ul", 1e6),
    "water_withdrawal_l": ("water_withdrawal{}_ul", 1e6),
}
"""Figure -> its column in the ledger, and how many of its units make one of the figure's."""

SUMS = {
    "co2e_total_kg": ("co2e_scope1_kg", "co2e_kg", "co2e_losses_kg", "co2e_embodied_kg"),
    "water_l": ("water_onsite_l", "water_offsite_l"),
}
"""Figures that are sums of others; water is what operation consumes."""

FIGURES = (*_FIGURES, *SUMS, "cost")


def bounded(name: str, bound: str) -> str:
    """The column of a bound: `pue_low`, `energy_low_kwh`, `wue_low_l_per_kwh`."""
    for unit in ("_l_per_kwh", "_g_per_kwh", "_kwh", "_kg", "_l", "_w"):
        if name.endswith(unit):
            return f"{name.removesuffix(unit)}{bound}{unit}"
    return f"{name}{bound}"


def estimate(cases: pl.LazyFrame) -> pl.LazyFrame:
    """Energy, carbon, water and cost of cases that nobody metered.

    Takes case (its name), gpus_per_server, and each of `INPUTS` with low and high (columns as
    `bounded` names them). Gives case and `FIGURES`, each but cost with low and high: interval
    arithmetic over all inputs at once, so the bounds are wide.
    """
    unit = cases.with_columns(kind=pl.lit("run"), run_id="case", site="case", zone="case", slot=0)
    energy = embodied(
        unit.select(
            "kind",
            "run_id",
            "site",
            "slot",
            gpu_key="case",
            gpus=pl.lit(1),
            gap_mj=pl.lit(0, pl.Int64),
            filled_mj=pl.lit(0, pl.Int64),
            measured_mj=pl.lit(0, pl.Int64),
            held_us=pl.lit(HOUR_US, pl.Int64),
            metered_us=pl.lit(0, pl.Int64),
            host_measured_mj=pl.lit(0, pl.Int64),
            **{f"host{b}_mj": pl.lit(0, pl.Int64) for b in BOUNDS},
            **{f"energy{b}_mj": times(pl.col(bounded("gpu_w", b)), 3_600_000) for b in BOUNDS},
        ),
        hourly(
            unit.select(
                gpu_key="case",
                gpus_per_server="gpus_per_server",
                **{f"{name}{b}": bounded(name, b) for name in EMBODIED_INPUTS for b in BOUNDS},
            )
        ),
    )
    sites = unit.select(
        "site",
        "slot",
        "zone",
        *(
            bounded(name, b)
            for name in ("pue", "wue_l_per_kwh", "withdrawal_ratio", "loss")
            for b in BOUNDS
        ),
        *(
            bounded(name, b)
            for name in ("onsite_share", "onsite_g_per_kwh", "onsite_l_per_kwh")
            for b in BOUNDS
        ),
        **{
            f"overhead{b}_mw_per_gpu": times(pl.col(bounded("overhead_w", b)), 1000) for b in BOUNDS
        },
        **{f"rest{b}_mw_per_gpu": pl.lit(0, pl.Int64) for b in BOUNDS},
    )
    signals = unit.select(
        "zone",
        "slot",
        *(
            bounded(name, b)
            for name in (
                "intensity_g_per_kwh",
                "residual_g_per_kwh",
                "ewif_l_per_kwh",
                "withdrawal_l_per_kwh",
            )
            for b in BOUNDS
        ),
        series_ppm=pl.lit(0),
        ewif_series_ppm=pl.lit(0),
        **{f"marginal{b}_g_per_kwh": pl.lit(None, pl.Float64) for b in BOUNDS},
    )
    contracts = unit.select(
        "site",
        "slot",
        contracted_ppm=pl.lit(0),
        **{f"contracted{b}_g_per_kwh": pl.lit(0.0) for b in BOUNDS},
    )
    prices = unit.select("site", "slot", "price_per_kwh")
    hour = footprint_slots(facility_slots(energy, sites), signals, contracts, prices)
    hours = cases.select("case", *(bounded("gpu_hours", b) for b in BOUNDS))
    found = hour.join(hours, left_on="run_id", right_on="case", how="left", maintain_order="left")
    return (
        found.select(
            case="run_id",
            **{
                bounded(name, b): pl.col(column.format(b)) / scale * pl.col(bounded("gpu_hours", b))
                for name, (column, scale) in _FIGURES.items()
                for b in BOUNDS
            },
            cost=pl.col("cost_micro") / 1e6 * pl.col("gpu_hours"),
        )
        .with_columns(
            pl.sum_horizontal(bounded(part, b) for part in parts).alias(bounded(name, b))
            for name, parts in SUMS.items()
            for b in BOUNDS
        )
        .select("case", *columns(FIGURES))
    )


def columns(figures: Iterable[str]) -> list[str]:
    """The columns of figures: value, low, high of each, and of cost the value alone."""
    return [
        bounded(name, b) for name in figures for b in (BOUNDS if name != "cost" else BOUNDS[:1])
    ]
