"""What each input alone would change of a run's CO2e and water (docs/method.md, "Sensitivity")."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from transforms.constants import BOUNDS
from transforms.figures import CO2E_TOTAL, WATER_CONSUMED
from transforms.footprint import compute_facility_slots, compute_footprint_slots

INPUTS: dict[str, tuple[str, ...]] = {
    "GPU energy": ("energy{}_mj",),
    "host energy": ("host{}_mj", "overhead{}_mw_per_gpu", "rest{}_mw_per_gpu"),
    "PUE": ("pue{}",),
    "WUE": ("wue{}_l_per_kwh",),
    "on-site share": ("onsite_share{}",),
    "on-site plant": ("onsite{}_g_per_kwh", "onsite{}_l_per_kwh"),
    "grid intensity": ("intensity{}_g_per_kwh",),
    "EWIF": ("ewif{}_l_per_kwh",),
    "grid losses": ("loss{}",),
    "hardware": ("co2e_embodied{}_ug",),
}
"""Input -> the columns that are it; those with low or high in them are its bounds."""

TOTALS = {
    "co2e_ug": [part.stored() for part in CO2E_TOTAL.parts],
    "water_ul": [part.stored() for part in WATER_CONSUMED.parts],
}
"""What is looked at: all scopes, location-based; and water consumed on and off site."""


def compute_sensitivity(
    energy: pl.LazyFrame,
    sites: pl.LazyFrame,
    signals: pl.LazyFrame,
    contracts: pl.LazyFrame,
    prices: pl.LazyFrame,
) -> pl.LazyFrame:
    """Compute the totals of each run with one input at its low and at its high, all others at their value.

    Args:
        energy: The result of `transforms.footprint.sum_by_site`.
        sites: As `compute_facility_slots` takes them.
        signals: As `compute_footprint_slots` takes them.
        contracts: As `compute_footprint_slots` takes them.
        prices: As `compute_footprint_slots` takes them.

    Returns:
        run_id, input, co2e_low_ug, co2e_high_ug, water_low_ul and water_high_ul, for inputs that have
        bounds and change something. Low means: with the input at its low, which need not be the lower
        total.
    """
    frames = (energy.filter(pl.col("kind") == "run"), sites, signals)

    def sum_totals(columns: Sequence[str], bound: str) -> pl.DataFrame:
        moved = [_move(frame, columns, bound) for frame in frames]
        facility = compute_facility_slots(moved[0], moved[1])
        slots = compute_footprint_slots(facility, moved[2], contracts, prices)
        totals = slots.group_by("run_id").agg(
            pl.sum_horizontal(pl.col(part).sum() for part in parts).alias(name)
            for name, parts in TOTALS.items()
        )
        return totals.collect()

    central = sum_totals((), "")
    # One input after the other: all at once would hold as many copies of the slots.
    moved = [
        _compare_totals(name, central, *(sum_totals(columns, bound) for bound in BOUNDS[1:]))
        for name, columns in INPUTS.items()
        if _has_bounds(frames, columns)
    ]
    return pl.concat([_NOTHING, *moved]).lazy().sort("run_id", "input")


def _move(frame: pl.LazyFrame, columns: Sequence[str], bound: str) -> pl.LazyFrame:
    """A frame with some of its columns at a bound."""
    names = frame.collect_schema().names()
    return frame.with_columns(
        pl.col(column.format(bound)).alias(column.format(""))
        for column in columns
        if column.format(bound) in names
    )


def _compare_totals(
    name: str, central: pl.DataFrame, low: pl.DataFrame, high: pl.DataFrame
) -> pl.DataFrame:
    """Totals of the runs that an input changes."""
    joined = low.join(high, on="run_id", suffix="_high", validate="1:1").join(
        central, on="run_id", suffix="_central", validate="1:1"
    )
    is_changed = pl.any_horizontal(
        pl.col(f"{total}{bound}") != pl.col(f"{total}_central")
        for total in TOTALS
        for bound in ("", "_high")
    )
    return joined.filter(is_changed).select(
        "run_id",
        input=pl.lit(name),
        co2e_low_ug="co2e_ug",
        co2e_high_ug="co2e_ug_high",
        water_low_ul="water_ul",
        water_high_ul="water_ul_high",
    )


_NOTHING = pl.DataFrame(
    schema={
        "run_id": pl.String,
        "input": pl.String,
        **dict.fromkeys(("co2e_low_ug", "co2e_high_ug", "water_low_ul", "water_high_ul"), pl.Int64),
    }
)


def _has_bounds(frames: Sequence[pl.LazyFrame], columns: Sequence[str]) -> bool:
    """Whether any of an input's columns has another low or high than value."""
    return any(
        frame.select(
            pl.any_horizontal(
                (pl.col(column.format(bound)) != pl.col(column.format(""))).any()
                for column in present
                for bound in BOUNDS[1:]
            )
        )
        .collect()
        .item()
        for frame in frames
        if (present := [c for c in columns if c.format("") in frame.collect_schema().names()])
    )
