"""What the same energy would have emitted at another time or in another zone (docs/method.md)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from transforms.constants import PPM, SLOT_US
from transforms.footprint import PER_KWH
from transforms.grid import HOUR_US

SLOTS_PER_HOUR = HOUR_US // SLOT_US

HERE = ""
"""Zone of an alternative that leaves the energy where it was used."""


def shift_runs(
    energy: pl.LazyFrame, intensity: pl.LazyFrame, zones: Sequence[str], shift_h: int
) -> pl.LazyFrame:
    """CO2e of runs had they started `shift_h` hours later, where they were and in each zone.

    Args:
        energy: run_id, zone, slot, grid_mj: the grid energy of each run.
        intensity: zone, slot, value in g/kWh; null where no series covers the slot.
        zones: Zones that each run is moved to, all of its energy at once.
        shift_h: Hours later, or earlier where negative.

    Returns:
        One row per run and zone: run_id, zone (`HERE` for where it was), shift_h, covered_ppm and
        co2e_ug. co2e_ug is null unless all of the energy is covered: a part cannot be compared.
    """
    moved = pl.concat(
        [
            energy.with_columns(alternative=pl.lit(HERE)),
            *(energy.with_columns(alternative=pl.lit(zone), zone=pl.lit(zone)) for zone in zones),
        ]
    )
    covered = pl.col("value").is_not_null()
    used = pl.col("grid_mj")
    return (
        moved.with_columns(slot=pl.col("slot") + shift_h * SLOTS_PER_HOUR)
        .join(
            intensity.select("zone", "slot", "value"),
            on=["zone", "slot"],
            how="left",
            validate="m:1",
        )
        .group_by("run_id", zone=pl.col("alternative"))
        .agg(
            (used * pl.col("value") / PER_KWH).round().cast(pl.Int64).sum().alias("co2e_ug"),
            ((used * covered).sum() / used.sum() * PPM).floor().cast(pl.Int32).alias("covered_ppm"),
            whole=covered.all(),
        )
        .with_columns(
            shift_h=pl.lit(shift_h, pl.Int32),
            co2e_ug=pl.when("whole").then("co2e_ug"),
            covered_ppm=pl.when("whole").then(PPM).otherwise("covered_ppm").cast(pl.Int32),
        )
        .select("run_id", "zone", "shift_h", "covered_ppm", "co2e_ug")
        .sort("run_id", "zone")
    )
