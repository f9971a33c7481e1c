"""Footprints without meters, from GPU-hours and mean power (docs/method.md, "Estimates").

One GPU-hour is put through the formulas of the ledger, and the result multiplied by the GPU-hours:
an estimate and a metered run differ in their inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from transforms.constants import BOUNDS
from transforms.embodied import INPUTS as EMBODIED_INPUTS
from transforms.embodied import add_embodied, compute_hourly_rates
from transforms.figures import ESTIMATED, TOTALS, Total
from transforms.footprint import compute_facility_slots, compute_footprint_slots, multiply
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
"""The inputs of a case, each with its neutral value: the one that contributes nothing."""

_FIGURES = {figure.shown_as(): figure for figure in ESTIMATED if not isinstance(figure, Total)}
"""The figures that the ledger stores too, by the column that people read."""

SUMS = {total.shown_as(): tuple(part.shown_as() for part in total.parts) for total in TOTALS}
"""Figures that are sums of others. Water is what operation consumes."""

FIGURES = (*_FIGURES, *SUMS, "cost")


def bound_column(name: str, bound: str) -> str:
    """Name the column of a bound: `pue_low`, `energy_low_kwh`, `wue_low_l_per_kwh`."""
    for unit in ("_l_per_kwh", "_g_per_kwh", "_kwh", "_kg", "_l", "_w"):
        if name.endswith(unit):
            return f"{name.removesuffix(unit)}{bound}{unit}"
    return f"{name}{bound}"


def estimate_footprints(cases: pl.LazyFrame) -> pl.LazyFrame:
    """Estimate energy, carbon, water and cost of cases that nobody metered.

    Interval arithmetic over all inputs at once, so the bounds are wide.

    Args:
        cases: One row per case: case (its name), gpus_per_server, and each of `INPUTS` with low and
            high, in columns as `bound_column` names them.

    Returns:
        case and `FIGURES`, each with low and high but for cost, which has none.
    """
    # One GPU in one slot at a site and in a zone of its own, for each case.
    unit = cases.with_columns(kind=pl.lit("run"), run_id="case", site="case", zone="case", slot=0)
    energy = add_embodied(_hour_energy(unit), _embodied_rates(unit))
    prices = unit.select("site", "slot", "price_per_kwh")
    hour = compute_footprint_slots(
        compute_facility_slots(energy, _sites(unit)), _signals(unit), _no_contracts(unit), prices
    )
    hours = cases.select("case", *(bound_column("gpu_hours", b) for b in BOUNDS))
    return (
        hour.join(
            hours,
            left_on="run_id",
            right_on="case",
            how="left",
            validate="m:1",
            maintain_order="left",
        )
        .select(
            *(_for_all_hours(name, b) for name in _FIGURES for b in BOUNDS),
            case="run_id",
            cost=pl.col("cost_micro") / 1e6 * pl.col("gpu_hours"),
        )
        .with_columns(
            pl.sum_horizontal(bound_column(part, b) for part in parts).alias(bound_column(name, b))
            for name, parts in SUMS.items()
            for b in BOUNDS
        )
        .select("case", *bound_columns(FIGURES))
    )


def _for_all_hours(figure: str, bound: str) -> pl.Expr:
    """A figure of the case from its ledger column of one GPU-hour."""
    ledger = _FIGURES[figure]
    hours = pl.col(bound_column("gpu_hours", bound))
    return (pl.col(ledger.stored(bound)) / ledger.unit.per * hours).alias(
        bound_column(figure, bound)
    )


def _hour_energy(unit: pl.LazyFrame) -> pl.LazyFrame:
    """The energy of one GPU-hour at mean power, as attribution gives it; nothing of it is measured."""
    unmeasured = ("gap_mj", "filled_mj", "measured_mj", "metered_us", "host_measured_mj")
    return unit.select(
        "kind",
        "run_id",
        "site",
        "slot",
        gpu_key="case",
        gpus=pl.lit(1),
        held_us=pl.lit(HOUR_US, pl.Int64),
        **{name: pl.lit(0, pl.Int64) for name in unmeasured},
        **{f"host{b}_mj": pl.lit(0, pl.Int64) for b in BOUNDS},
        **{f"energy{b}_mj": multiply(pl.col(bound_column("gpu_w", b)), 3_600_000) for b in BOUNDS},
    )


def _embodied_rates(unit: pl.LazyFrame) -> pl.LazyFrame:
    """What an hour of each case's GPU embodies."""
    return compute_hourly_rates(
        unit.select(
            gpu_key="case",
            gpus_per_server="gpus_per_server",
            **{f"{name}{b}": bound_column(name, b) for name in EMBODIED_INPUTS for b in BOUNDS},
        )
    )


def _sites(unit: pl.LazyFrame) -> pl.LazyFrame:
    """A site for each case."""
    inputs = (
        "pue",
        "wue_l_per_kwh",
        "withdrawal_ratio",
        "loss",
        "onsite_share",
        "onsite_g_per_kwh",
        "onsite_l_per_kwh",
    )
    return unit.select(
        "site",
        "slot",
        "zone",
        *(bound_column(name, b) for name in inputs for b in BOUNDS),
        **{
            f"overhead{b}_mw_per_gpu": multiply(pl.col(bound_column("overhead_w", b)), 1000)
            for b in BOUNDS
        },
        **{f"rest{b}_mw_per_gpu": pl.lit(0, pl.Int64) for b in BOUNDS},
    )


def _signals(unit: pl.LazyFrame) -> pl.LazyFrame:
    """The grid of each case's zone; no series, and no marginal intensity."""
    inputs = ("intensity_g_per_kwh", "residual_g_per_kwh", "ewif_l_per_kwh", "withdrawal_l_per_kwh")
    return unit.select(
        "zone",
        "slot",
        *(bound_column(name, b) for name in inputs for b in BOUNDS),
        series_ppm=pl.lit(0),
        ewif_series_ppm=pl.lit(0),
        **{f"marginal{b}_g_per_kwh": pl.lit(None, pl.Float64) for b in BOUNDS},
    )


def _no_contracts(unit: pl.LazyFrame) -> pl.LazyFrame:
    """No contract covers anything: the market-based figure is of the residual mix."""
    return unit.select(
        "site",
        "slot",
        contracted_ppm=pl.lit(0),
        **{f"contracted{b}_g_per_kwh": pl.lit(0.0) for b in BOUNDS},
    )


def bound_columns(figures: Iterable[str]) -> list[str]:
    """Name the columns of figures: value, low and high of each, and of cost the value alone."""
    return [
        bound_column(name, b)
        for name in figures
        for b in (BOUNDS if name != "cost" else BOUNDS[:1])
    ]
