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
    """Totals of each run with one input at its low and at its high, all others at their value.

    Takes what `compute_facility_slots` and `compute_footprint_slots` take. Gives run_id, input, co2e_low_ug,
    co2e_high_ug, water_low_ul and water_high_ul (`low`: with the input at its low, which need not
    be the lower total) for inputs that have bounds and change something.
    """
    runs = energy.filter(pl.col("kind") == "run")
    frames = (runs, sites, signals)

    def totals(moved: tuple[str, ...], bound: str) -> pl.LazyFrame:
        at = [
            frame.with_columns(
                pl.col(column.format(bound)).alias(column.format(""))
                for column in moved
                if column.format(bound) in frame.collect_schema().names()
            )
            for frame in frames
        ]
        slots = compute_footprint_slots(
            compute_facility_slots(at[0], at[1]), at[2], contracts, prices
        )
        return slots.group_by("run_id").agg(
            pl.sum_horizontal(pl.col(part).sum() for part in parts).alias(name)
            for name, parts in TOTALS.items()
        )

    central = totals((), "").collect()
    found = [_NOTHING]
    for name, moved in INPUTS.items():
        if not _has_bounds(frames, moved):
            continue
        # One after the other: all at once would hold as many copies of the slots.
        low, high = (totals(moved, bound).collect() for bound in BOUNDS[1:])
        both = low.join(high, on="run_id", suffix="_high").join(central, on="run_id", suffix="_was")
        found.append(
            both.filter(
                pl.any_horizontal(
                    pl.col(f"{total}{bound}") != pl.col(f"{total}_was")
                    for total in TOTALS
                    for bound in ("", "_high")
                )
            ).select(
                "run_id",
                input=pl.lit(name),
                co2e_low_ug="co2e_ug",
                co2e_high_ug="co2e_ug_high",
                water_low_ul="water_ul",
                water_high_ul="water_ul_high",
            )
        )
    return pl.concat(found).lazy().sort("run_id", "input")


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
                for column in known
                for bound in BOUNDS[1:]
            )
        )
        .collect()
        .item()
        for frame in frames
        if (known := [c for c in columns if c.format("") in frame.collect_schema().names()])
    )
