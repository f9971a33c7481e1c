"""What later grid data changes in published figures, and published figures computed again as they were."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.accounting import stretches
from flows.accounting.compute import candidate
from flows.accounting.energy import gap_rule
from flows.accounting.intensity import Known, slot_values
from flows.errors import UsageError
from flows.factors import Factor, effective
from flows.publication.evidence import TABLES_KEPT, as_it_was
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of
from transforms import METHOD_VERSION
from transforms.constants import SLOT_US
from transforms.footprint import PER_KWH, SUMMED
from transforms.schema import in_role

_EFFECTS = {"intensity": "co2e_ug", "ewif": "water_offsite_ul"}
"""Quantity of the grid -> the figure that follows from it and the energy from the grid."""


@dataclass(frozen=True)
class Recomputed:
    """Figures of a publication, as published and computed again."""

    publication_id: str
    as_of: datetime
    runs: list[dict[str, Any]]

    @property
    def identical(self) -> bool:
        return all(run["identical"] for run in self.runs)


def revised(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[dict[str, Any]]:
    """Runs of the publication in force that grid data obtained since would change, and by how much.

    Compares the grid as it was known when the figures were computed with the grid as it is known
    now; factors and settings are those of now on both sides. Gives run_id, co2e_kg and
    water_offsite_l as published, their differences, and the slots that changed.
    """
    database = settings.published / "published.duckdb"
    if not database.exists():
        return []
    published = connect(database, read_only=True)
    try:
        [(then, method)] = published.execute(
            "SELECT computed_at, method_version FROM computation"
        ).fetchall()
        # What an older method published is compared by computing it anew, not slot by slot.
        if method != METHOD_VERSION or not _changed_since(con, then):
            return []
        slots = published.execute(
            "SELECT run_id, zone, epoch_us(slot_start) // ? AS slot, grid_mj FROM footprint_slot "
            "WHERE kind = 'run'",
            [SLOT_US],
        ).pl()
        totals = published.execute(
            "SELECT run_id, co2e_ug, water_offsite_ul FROM run_footprint WHERE kind = 'run'"
        ).pl()
    finally:
        published.close()
    factors = effective(settings)
    asked = slots.select("zone", "slot").unique()
    changes = totals.with_columns(pl.col("co2e_ug", "water_offsite_ul").cast(pl.Int64))
    for quantity, figure in _EFFECTS.items():
        now, _ = slot_values(Known(con, settings, factors), asked, quantity)
        before, _ = slot_values(Known(con, settings, factors, then), asked, quantity)
        # A slot that had no intensity counted nothing.
        step = pl.col("value") - pl.col("value_before").fill_null(0)
        changed = (
            slots.join(now.select("zone", "slot", "value"), on=["zone", "slot"])
            .join(before.select("zone", "slot", value_before="value"), on=["zone", "slot"])
            .filter(pl.col("value").ne_missing(pl.col("value_before")))
            .group_by("run_id")
            .agg(
                (pl.col("grid_mj") * step / PER_KWH).round().sum().alias(f"{figure}_change"),
                pl.len().alias(f"{quantity}_slots"),
            )
        )
        changes = changes.join(changed, on="run_id", how="left")
    slots_changed = pl.max_horizontal("intensity_slots", "ewif_slots").fill_null(0)
    return (
        changes.with_columns(slots=slots_changed)
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


def _changed_since(con: duckdb.DuckDBPyConnection, then: datetime) -> bool:
    changed = con.execute(
        "SELECT 1 FROM (SELECT fetched_at, superseded_at FROM grid_intensity UNION ALL "
        "SELECT fetched_at, superseded_at FROM grid_mix) WHERE fetched_at > $then "
        "OR superseded_at > $then LIMIT 1",
        {"then": then},
    ).fetchall()
    return bool(changed)


def recompute(settings: Settings, publication: str) -> Recomputed:
    """Compute a publication again from what was stored when it was computed; stores nothing.

    Readings and grid data are those of then; everything else is read from its own file.

    Raises:
        UsageError: there is no such publication, or another method computed it.
    """
    folder = folder_of(settings, publication)
    con, tables = computed_again(store_of(settings), folder / "published.duckdb")
    try:
        [(as_of,)] = con.execute("SELECT computed_at FROM was.computation").fetchall()
        published = query_rows(con, "FROM was.run_footprint ORDER BY kind, run_id")
    finally:
        con.close()
    now = {(row["kind"], row["run_id"]): row for row in tables["run_footprint"].to_dicts()}
    found = []
    for row in published:
        again = now.get((row["kind"], row["run_id"]), dict.fromkeys(SUMMED))
        found.append(
            {
                "kind": row["kind"],
                "run_id": row["run_id"],
                "co2e_kg": row["co2e_ug"] / 1e9,
                "co2e_again_kg": None if again["co2e_ug"] is None else again["co2e_ug"] / 1e9,
                "identical": all(row[name] == again[name] for name in SUMMED),
            }
        )
    return Recomputed(folder.name, as_of, found)


def computed_again(
    store: Store, published: Path, run_id: str | None = None
) -> tuple[duckdb.DuckDBPyConnection, dict[str, pl.DataFrame]]:
    """The candidate tables of a publication, computed from a store of readings and grid data.

    Gives them with a connection that has the published file attached as `was` and the store as
    `store`; close it. With `run_id` only what concerns the GPUs of that run is computed: the store
    need not hold more, and only the rows of that run mean anything.

    Raises:
        UsageError: another method computed it.
    """
    con = attach_read_only(store=store, was=FileStore(published))
    try:
        [(then, method)] = con.execute(
            "SELECT computed_at, method_version FROM was.computation"
        ).fetchall()
        if not con.execute(
            "FROM duckdb_tables() WHERE database_name = 'was' AND table_name = 'setting'"
        ).fetchall():
            raise UsageError(
                "it does not hold the settings that it was computed with",
                where=str(published),
                remedy="Use the version of Wattledger that published it",
            )
        if method != METHOD_VERSION:
            raise UsageError(
                f"it was computed by method {method}, this is {METHOD_VERSION}",
                where=str(published),
                remedy="Use the version of Wattledger that published it",
            )
        for name in TABLES_KEPT:
            if name in _PUBLISHED:
                continue
            con.execute(f"CREATE TABLE {name} AS {as_it_was(name, 'store')}", {"then": then})
        # How gaps were judged when these were rolled up is no matter here: it is in the pieces.
        con.execute("CREATE TABLE rolled_up AS FROM store.rolled_up LIMIT 0")
        for name in _PUBLISHED:
            con.execute(f"CREATE TABLE {name} AS FROM was.{name}")
        # Attempts to fetch since then do not count.
        con.execute(
            "CREATE TABLE grid_fetch AS SELECT * REPLACE (least(last_attempt_at, $then) AS "
            "last_attempt_at) FROM was.grid_fetch WHERE first_attempt_at <= $then",
            {"then": then},
        )
        if run_id is not None:
            con.execute(
                "DELETE FROM run_allocation WHERE gpu_uuid NOT IN "
                "(SELECT gpu_uuid FROM run_allocation WHERE run_id = ?)",
                [run_id],
            )
        settings = Settings.restored(
            dict(con.execute("SELECT section, value_json FROM was.setting").fetchall())
        )
        factors = [Factor(**row) for row in query_rows(con, "FROM factor")]
        used = con.execute(
            "SELECT site, epoch_us(slot_start) // ? AS slot, sum(grid_mj)::BIGINT AS grid_mj "
            "FROM was.footprint_slot GROUP BY ALL",
            [SLOT_US],
        ).pl()
        rule = gap_rule(settings)
        partials = stretches.partials_of_readings(con, rule, _quiet)
        part = None if run_id is None else used
        return con, candidate(con, settings, factors, partials, part)
    except BaseException:
        con.close()
        raise


def _quiet(rows: int) -> None:
    """No progress."""


_PUBLISHED = in_role("input", "configured")
"""Tables that a publication holds itself; the others are what the store held when it was computed."""


def publications(settings: Settings) -> list[Path]:
    """Folders of all publications, oldest first."""
    return sorted(p for p in settings.publications.glob("*") if (p / "published.duckdb").is_file())


def folder_of(settings: Settings, publication: str = "") -> Path:
    """The folder of a publication, by its id or its number; of the last one, if none is named.

    Raises:
        UsageError: there is none.
    """
    known = publications(settings)
    if not known:
        raise UsageError(
            "nothing has been published yet",
            where=str(settings.publications),
            remedy="Run `wattledger pipeline`",
        )
    if not publication:
        return known[-1]
    fitting = [p for p in known if p.name == publication or p.name.split("-")[0] == publication]
    if len(fitting) != 1:
        raise UsageError(
            f"there is no publication {publication!r}",
            where=str(settings.publications),
            remedy=f"Known: {', '.join(p.name for p in known)}",
        )
    return fitting[0]
