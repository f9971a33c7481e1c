"""When and where finished runs would have been cleaner: the grid at other times and places."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from flows.accounting.intensity import Known, slot_values
from flows.settings import Zone
from transforms import alternatives
from transforms.constants import SERIES_TIERS

_SCHEMA = {
    "run_id": pl.String,
    "zone": pl.String,
    "shift_h": pl.Int32,
    "covered_ppm": pl.Int32,
    "co2e_ug": pl.Int64,
}


def alternatives_of(known: Known, by_run: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    """The table run_alternative: runs that had ended at `as_of`, at other hours and in other zones.

    Only series count: a mean of the year is the same at every hour.
    """
    ended = known.con.execute(
        "SELECT run_id FROM training_run WHERE superseded_at IS NULL AND ended_at <= ?", [as_of]
    ).pl()
    energy = by_run.filter(kind="run").join(ended, on="run_id", how="semi")
    settings = known.settings
    zones = sorted(
        zone
        for zone in {site.zone for site in settings.site} | set(settings.zones)
        if settings.zones.get(zone, Zone()).compare
    )
    hours = settings.grid.shift_h
    around = hours * alternatives.SLOTS_PER_HOUR
    slots = (
        energy.group_by("run_id")
        .agg(
            slot=pl.int_ranges(pl.col("slot").min() - around, pl.col("slot").max() + around + 1),
        )
        .explode("slot")
        .select("slot")
        .unique()
    )
    used = energy["zone"].unique().to_list()
    asked = pl.DataFrame({"zone": sorted({*zones, *used})}, schema={"zone": pl.String}).join(
        slots, how="cross"
    )
    intensity, _ = slot_values(known, asked, "intensity", SERIES_TIERS)
    # A run in one zone only is where it was: no need to say it twice.
    homes = (
        energy.group_by("run_id")
        .agg(pl.col("zone").first(), count=pl.col("zone").n_unique())
        .filter(pl.col("count") == 1)
    )
    spent = energy.group_by("run_id", "zone", "slot").agg(pl.col("grid_mj").sum())
    found = [
        alternatives.shift_runs(spent.lazy(), intensity.lazy(), zones, shift)
        for shift in range(-hours, hours + 1)
    ]
    return (
        pl.concat([pl.LazyFrame(schema=_SCHEMA), *found])
        .collect()
        .join(homes, on=["run_id", "zone"], how="anti")
        .sort("run_id", "zone", "shift_h")
    )
