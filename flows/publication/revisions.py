"""What grid data that was obtained since would change in published figures."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime
from typing import Any

import duckdb
import polars as pl

from flows.accounting.intensity import GridView, compute_slot_values
from flows.factors import read_factors
from flows.publication.folders import database_in
from flows.publication.in_force import find_in_force
from flows.settings import Settings
from flows.warehouse.connection import connect
from transforms import METHOD_VERSION
from transforms.constants import SLOT_US
from transforms.footprint import PER_KWH

_EFFECTS = {"intensity": "co2e_ug", "ewif": "water_offsite_ul"}
"""Quantity of the grid -> the figure that follows from it and the energy from the grid."""


def find_revised_runs(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[dict[str, Any]]:
    """Find the runs of the publication in force that grid data obtained since would change.

    Compares the grid as it was known when the figures were computed with the grid as it is known
    now; factors and settings are those of now on both sides.

    Args:
        con: The warehouse.
        settings: The project.

    Returns:
        By run: run_id, co2e_kg and water_offsite_l as published, co2e_change_kg and
        water_offsite_change_l, and slots, the number of slots that changed.
    """
    if not os.path.lexists(settings.published):
        return []
    database = database_in(find_in_force(settings))
    with closing(connect(database, read_only=True)) as published:
        [(as_of, method)] = published.execute(
            "SELECT computed_at, method_version FROM computation"
        ).fetchall()
        # What an older method published is compared by computing it anew, not slot by slot.
        if method != METHOD_VERSION or not _has_grid_changed(con, as_of):
            return []
        slots = published.execute(
            "SELECT run_id, zone, epoch_us(slot_start) // ? AS slot, grid_mj FROM footprint_slot "
            "WHERE kind = 'run'",
            [SLOT_US],
        ).pl()
        totals = published.execute(
            "SELECT run_id, co2e_ug, water_offsite_ul FROM run_footprint WHERE kind = 'run'"
        ).pl()
    factors = read_factors(settings)
    before, after = GridView(con, settings, factors, as_of), GridView(con, settings, factors)
    changes = totals.with_columns(pl.col("co2e_ug", "water_offsite_ul").cast(pl.Int64))
    for quantity, figure in _EFFECTS.items():
        change = _sum_changes(slots, before, after, quantity, figure)
        changes = changes.join(change, on="run_id", how="left", validate="m:1")
    return _show_changes(changes)


def _has_grid_changed(con: duckdb.DuckDBPyConnection, since: datetime) -> bool:
    changed = con.execute(
        "SELECT 1 FROM (SELECT fetched_at, superseded_at FROM grid_intensity UNION ALL "
        "SELECT fetched_at, superseded_at FROM grid_mix) WHERE fetched_at > $since "
        "OR superseded_at > $since LIMIT 1",
        {"since": since},
    ).fetchall()
    return bool(changed)


def _sum_changes(
    slots: pl.DataFrame, before: GridView, after: GridView, quantity: str, figure: str
) -> pl.DataFrame:
    """By run, how a figure changes with a quantity of the grid.

    Args:
        slots: Published slots of runs: run_id, zone, slot, grid_mj.
        before: The grid as it was known when they were published.
        after: The grid as it is known now.
        quantity: Of the grid.
        figure: What follows from it and the energy from the grid.

    Returns:
        run_id, `{figure}_change` in the unit of the figure, `{quantity}_slots`.
    """
    place = ["zone", "slot"]
    places = slots.select(place).unique()
    values, _ = compute_slot_values(after, places, quantity)
    values_before, _ = compute_slot_values(before, places, quantity)
    # A slot that had no intensity counted nothing.
    step = pl.col("value") - pl.col("value_before").fill_null(0)
    return (
        slots.join(values.select(*place, "value"), on=place, validate="m:1")
        .join(values_before.select(*place, value_before="value"), on=place, validate="m:1")
        .filter(pl.col("value").ne_missing(pl.col("value_before")))
        .group_by("run_id")
        .agg(
            (pl.col("grid_mj") * step / PER_KWH).round().sum().alias(f"{figure}_change"),
            pl.len().alias(f"{quantity}_slots"),
        )
    )


def _show_changes(changes: pl.DataFrame) -> list[dict[str, Any]]:
    """Runs with changed slots, in the units in which people read them."""
    slots = pl.max_horizontal("intensity_slots", "ewif_slots").fill_null(0)
    return (
        changes.with_columns(slots=slots)
        .filter(pl.col("slots") > 0)
        .select(
            "run_id",
            co2e_kg=pl.col("co2e_ug") / 1e9,
            co2e_change_kg=pl.col("co2e_ug_change").fill_null(0) / 1e9,
            water_offsite_l=pl.col("water_offsite_ul") / 1e6,
            water_offsite_change_l=pl.col("water_offsite_ul_change").fill_null(0) / 1e6,
            slots="slots",
        )
        .sort("run_id")
        .to_dicts()
    )
