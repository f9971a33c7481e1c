"""Published figures computed again as they were: from the readings and grid data of then."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.accounting.candidate import compute_candidate
from flows.accounting.stretches import read_gap_rule, reduce_all_readings
from flows.errors import UsageError
from flows.factors import Factor
from flows.publication.evidence import TABLES_KEPT, select_as_known
from flows.publication.extents import check_extents
from flows.publication.folders import database_in, find_publication
from flows.settings import Settings
from flows.warehouse.bounds import bound_time
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of
from transforms import METHOD_VERSION
from transforms.constants import SLOT_US
from transforms.figures import SUMMED
from transforms.schema import in_role

_PUBLISHED = in_role("input", "configured")
"""Tables that a publication holds itself; the others are what the store held when it was computed."""


@dataclass(frozen=True)
class Recomputed:
    """Figures of a publication, as published and computed again."""

    publication_id: str
    as_of: datetime
    runs: list[dict[str, Any]]

    @property
    def identical(self) -> bool:
        return all(run["identical"] for run in self.runs)


def recompute_publication(settings: Settings, publication: str) -> Recomputed:
    """Compute a publication again from what was stored when it was computed; stores nothing.

    Readings and grid data are those of then; everything else is read from the publication's own file.

    Raises:
        UsageError: there is no such publication, or another method computed it.
    """
    folder = find_publication(settings, publication)
    con, tables = compute_again(store_of(settings), database_in(folder))
    with closing(con):
        [(as_of,)] = con.execute("SELECT computed_at FROM published.computation").fetchall()
        published = query_rows(con, "FROM published.run_footprint ORDER BY kind, run_id")
    again = {(row["kind"], row["run_id"]): row for row in tables["run_footprint"].to_dicts()}
    missing: dict[str, Any] = dict.fromkeys(SUMMED)
    runs = [
        _compare_run(row, again.get((row["kind"], row["run_id"]), missing)) for row in published
    ]
    return Recomputed(folder.name, as_of, runs)


def _compare_run(published: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": published["kind"],
        "run_id": published["run_id"],
        "co2e_kg": published["co2e_ug"] / 1e9,
        "co2e_again_kg": None if again["co2e_ug"] is None else again["co2e_ug"] / 1e9,
        "identical": all(published[name] == again[name] for name in SUMMED),
    }


def compute_again(
    store: Store, database: Path, run_id: str | None = None
) -> tuple[duckdb.DuckDBPyConnection, dict[str, pl.DataFrame]]:
    """Compute the candidate tables of a publication from a store of readings and grid data.

    Args:
        store: Holds the readings and grid data of then.
        database: The file of the publication.
        run_id: Compute only what concerns the GPUs of this run: the store need not hold more, and only
            the rows of this run mean anything.

    Returns:
        A connection that has the file attached as `published` and the store as `store`, to be closed by
        the caller; and the tables by name.

    Raises:
        UsageError: another method computed it.
        BadInput: the store is about more time than can be.
    """
    con = attach_read_only(store=store, published=FileStore(database))
    try:
        with bound_time(con):
            as_of = _check_method(con, database)
            check_extents(con, "store", str(store))
            _restore_inputs(con, as_of)
            if run_id is not None:
                con.execute(
                    "DELETE FROM run_allocation WHERE gpu_uuid NOT IN "
                    "(SELECT gpu_uuid FROM run_allocation WHERE run_id = ?)",
                    [run_id],
                )
            return con, _compute_tables(con, every_run=run_id is None)
    except BaseException:
        con.close()
        raise


def _check_method(con: duckdb.DuckDBPyConnection, database: Path) -> datetime:
    """When the publication was computed, if this code can do it again."""
    as_of: datetime
    [(as_of, method)] = con.execute(
        "SELECT computed_at, method_version FROM published.computation"
    ).fetchall()
    remedy = "Use the version of Wattledger that published it"
    if not con.execute(
        "FROM duckdb_tables() WHERE database_name = 'published' AND table_name = 'setting'"
    ).fetchall():
        raise UsageError(
            "it does not hold the settings that it was computed with",
            where=str(database),
            remedy=remedy,
        )
    if method != METHOD_VERSION:
        raise UsageError(
            f"it was computed by method {method}, this is {METHOD_VERSION}",
            where=str(database),
            remedy=remedy,
        )
    return as_of


def _restore_inputs(con: duckdb.DuckDBPyConnection, as_of: datetime) -> None:
    """Create the tables that a computation reads, as they were."""
    for name in TABLES_KEPT:
        if name not in _PUBLISHED:
            con.execute(
                f"CREATE TABLE {name} AS {select_as_known(name, 'store')}", {"as_of": as_of}
            )
    # How gaps were judged when readings were rolled up does not matter here: the sums contain it.
    con.execute("CREATE TABLE rolled_up AS FROM store.rolled_up LIMIT 0")
    for name in _PUBLISHED:
        con.execute(f"CREATE TABLE {name} AS FROM published.{name}")
    # Attempts to fetch since then do not count.
    con.execute(
        "CREATE TABLE grid_fetch AS SELECT * REPLACE (least(last_attempt_at, $as_of) AS "
        "last_attempt_at) FROM published.grid_fetch WHERE first_attempt_at <= $as_of",
        {"as_of": as_of},
    )


def _compute_tables(con: duckdb.DuckDBPyConnection, *, every_run: bool) -> dict[str, pl.DataFrame]:
    settings = Settings.from_record(
        dict(con.execute("SELECT section, value_json FROM published.setting").fetchall())
    )
    factors = [Factor(**row) for row in query_rows(con, "FROM factor")]
    # Contracts are divided over what a whole site takes from the grid, not over what a single run takes.
    grid_energy = con.execute(
        "SELECT site, epoch_us(slot_start) // ? AS slot, sum(grid_mj)::BIGINT AS grid_mj "
        "FROM published.footprint_slot GROUP BY ALL",
        [SLOT_US],
    ).pl()
    stretches = reduce_all_readings(con, read_gap_rule(settings))
    return compute_candidate(con, settings, factors, stretches, None if every_run else grid_energy)
