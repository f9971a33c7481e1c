"""When and where finished runs would have been cleaner: the grid at other times and places."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from flows.accounting.intensity import GridView, compute_slot_values
from flows.settings import Settings, Zone
from transforms import alternatives
from transforms.constants import SERIES_TIERS

_SCHEMA = {
    "run_id": pl.String,
    "zone": pl.String,
    "shift_h": pl.Int32,
    "covered_ppm": pl.Int32,
    "co2e_ug": pl.Int64,
}


def compute_alternatives(
    view: GridView, footprint_slots: pl.DataFrame, as_of: datetime | None
) -> pl.DataFrame:
    """Compute the CO2e of finished runs at other hours and in other zones.

    Only series count: a mean of the year is the same at every hour.

    Args:
        view: The grid data.
        footprint_slots: The table footprint_slot, with slot for slot_start.
        as_of: Runs that had ended by then are finished.

    Returns:
        The table run_alternative.
    """
    ended = view.con.execute(
        "SELECT run_id FROM training_run WHERE superseded_at IS NULL AND ended_at <= ?", [as_of]
    ).pl()
    energy = footprint_slots.filter(kind="run").join(ended, on="run_id", how="semi")
    compared = _list_compared_zones(view.settings)
    hours = view.settings.grid.shift_h
    zones = pl.DataFrame(
        {"zone": sorted({*compared, *energy["zone"].unique()})}, schema={"zone": pl.String}
    )
    slots = zones.join(_list_slots_around(energy, hours), how="cross")
    intensity, _ = compute_slot_values(view, slots, "intensity", SERIES_TIERS)
    # Where a run used one zone only, that zone is no alternative.
    homes = (
        energy.group_by("run_id")
        .agg(pl.col("zone").first(), count=pl.col("zone").n_unique())
        .filter(pl.col("count") == 1)
    )
    used = energy.group_by("run_id", "zone", "slot").agg(pl.col("grid_mj").sum())
    shifted = [
        alternatives.shift_runs(used.lazy(), intensity.lazy(), compared, shift)
        for shift in range(-hours, hours + 1)
    ]
    return (
        pl.concat([pl.LazyFrame(schema=_SCHEMA), *shifted])
        .collect()
        .join(homes, on=["run_id", "zone"], how="anti")
        .sort("run_id", "zone", "shift_h")
    )


def _list_compared_zones(settings: Settings) -> list[str]:
    zones = {site.zone for site in settings.site} | set(settings.zones)
    return sorted(zone for zone in zones if settings.zones.get(zone, Zone()).compare)


def _list_slots_around(energy: pl.DataFrame, hours: int) -> pl.DataFrame:
    """The slots of runs, and so many hours before and after them."""
    around = hours * alternatives.SLOTS_PER_HOUR
    slots = pl.int_ranges(pl.col("slot").min() - around, pl.col("slot").max() + around + 1)
    return energy.group_by("run_id").agg(slot=slots).explode("slot").select("slot").unique()
