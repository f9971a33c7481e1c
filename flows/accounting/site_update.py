"""Tables of sites by slot, brought up to date: what the grid was like, facility energy, contracts, footprints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from flows.accounting.computation import Computation
from flows.accounting.fleet import find_site_settings
from flows.accounting.intensity import compute_slot_signals
from flows.accounting.tables import (
    add_slot_start,
    exchange_rows,
    replace_rows,
    slot_number,
    slot_start,
)
from flows.settings import WEEKDAYS
from flows.warehouse.frames import query_rows, register
from transforms import footprint, market
from transforms.constants import SLOT_US


@dataclass(frozen=True)
class UpdatedSignals:
    """What the grid was like at every site, and where that changed."""

    sites: pl.DataFrame
    """`flows.accounting.fleet.find_site_settings` of every slot with energy."""
    signals: pl.DataFrame
    """The table slot_signal, with slot for slot_start."""
    sources: pl.DataFrame
    """The table slot_source, likewise."""
    changed: pl.DataFrame
    """Sites and slots (site, slot) whose signals changed."""


def update_signals(computation: Computation) -> UpdatedSignals:
    """Compute what the grid was like wherever energy was used, and write what differs."""
    con = computation.con
    slots = con.execute(
        f"SELECT DISTINCT site, epoch_us(slot_start) // {SLOT_US} AS slot FROM site_energy_slot"
    ).pl()
    sites = find_site_settings(computation.fleet.sites, slots)
    signals, sources = compute_slot_signals(computation.view, sites.select("zone", "slot").unique())
    changed = exchange_rows(con, "slot_signal", signals, ["zone", "slot"])
    exchange_rows(con, "slot_source", sources, ["zone", "slot"])
    changed_sites = sites.join(changed, on=["zone", "slot"], how="semi").select("site", "slot")
    return UpdatedSignals(sites, signals, sources, changed_sites)


@dataclass(frozen=True)
class UpdatedFacilities:
    """Facility energy that has to be turned into figures, and the contracts of all sites."""

    cells: pl.DataFrame
    """Sites and slots (site, slot) whose figures are computed again."""
    facility: pl.DataFrame
    """`transforms.footprint.compute_facility_slots` of these."""
    contracted: pl.DataFrame
    """`transforms.market.sum_contracts` of all sites and slots."""


def update_facilities(
    computation: Computation, sites: pl.DataFrame, changed: pl.DataFrame
) -> UpdatedFacilities:
    """Compute facility energy where something changed, and divide contracts over the energy from the grid.

    Args:
        computation: The computation.
        sites: `UpdatedSignals.sites`.
        changed: Sites and slots (site, slot) whose energy or signals changed.

    Returns:
        Facility energy there, and where contracts therefore cover something else.
    """
    con = computation.con
    facility = _compute_facility(con, sites, changed)
    grid_energy = pl.concat([_read_other_grid_energy(con, changed), sum_grid_energy(facility)])
    contract_slots, contracted = match_contracts(con, grid_energy)
    moved = exchange_rows(con, "contract_slot", contract_slots, ["site", "slot"])
    also = moved.join(changed, on=["site", "slot"], how="anti")
    return UpdatedFacilities(
        cells=pl.concat([changed, also]),
        facility=pl.concat([facility, _compute_facility(con, sites, also)]),
        contracted=contracted,
    )


def update_footprints(
    computation: Computation, signals: pl.DataFrame, facilities: UpdatedFacilities
) -> pl.DataFrame:
    """Compute carbon, water and cost of sites and slots, and write them in place of what stands there.

    Args:
        computation: The computation.
        signals: `UpdatedSignals.signals`.
        facilities: Where, and the energy there.

    Returns:
        The runs (kind, run_id) concerned.
    """
    con = computation.con
    slots = compute_footprints(con, facilities.facility, signals, facilities.contracted)
    cells = facilities.cells.select("site", slot_start=slot_start())
    with register(con, cells=cells):
        before = con.execute(
            "SELECT DISTINCT kind, run_id FROM footprint_slot SEMI JOIN cells USING (site, slot_start)"
        ).pl()
    replace_rows(con, "footprint_slot", cells, add_slot_start(slots))
    return pl.concat([before, slots.select("kind", "run_id")]).unique()


def compute_footprints(
    con: duckdb.DuckDBPyConnection,
    facility: pl.DataFrame,
    signals: pl.DataFrame,
    contracted: pl.DataFrame,
) -> pl.DataFrame:
    """`transforms.footprint.compute_footprint_slots` at the tariffs of the warehouse."""
    return footprint.compute_footprint_slots(
        facility.lazy(), signals.lazy(), contracted.lazy(), price_slots(con, facility).lazy()
    ).collect()


def price_slots(con: duckdb.DuckDBPyConnection, slots: pl.DataFrame) -> pl.DataFrame:
    """`transforms.market.price_slots` at the tariffs of the warehouse."""
    return market.price_slots(slots.lazy(), _read_tariffs(con)).collect()


def sum_grid_energy(facility: pl.DataFrame) -> pl.DataFrame:
    """Sum the energy from the grid over runs: site, slot, grid_mj."""
    return facility.group_by("site", "slot").agg(pl.col("grid_mj").sum())


def match_contracts(
    con: duckdb.DuckDBPyConnection, grid_energy: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide contracts over the energy from the grid.

    Args:
        con: The warehouse.
        grid_energy: site, slot, grid_mj of all sites and slots.

    Returns:
        `transforms.market.match_contracts` and `transforms.market.sum_contracts`.
    """
    contracts = con.execute(
        "SELECT * EXCLUDE (share), CAST(floor(share * 1000000) AS BIGINT) AS share_ppm, "
        "epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us FROM contract"
    ).pl()
    deliveries = con.execute(
        "SELECT contract, epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us, "
        "energy_kwh FROM contract_delivery"
    ).pl()
    covered = market.match_contracts(
        grid_energy.lazy(), contracts.lazy(), deliveries.lazy()
    ).collect()
    return covered, market.sum_contracts(covered.lazy(), contracts.lazy()).collect()


def read_site_energy(con: duckdb.DuckDBPyConnection, chosen: str) -> pl.DataFrame:
    """Read energy by run, site and slot from site_energy_slot `t`; `chosen` is SQL that chooses some of it."""
    parts = con.execute(f"SELECT t.* FROM site_energy_slot AS t {chosen}").pl()
    return footprint.sum_sites(parts.lazy().with_columns(slot=slot_number())).collect()


def _compute_facility(
    con: duckdb.DuckDBPyConnection, sites: pl.DataFrame, cells: pl.DataFrame
) -> pl.DataFrame:
    """`transforms.footprint.compute_facility_slots` of some sites and slots."""
    with register(con, cells=add_slot_start(cells)):
        energy = read_site_energy(con, "SEMI JOIN cells USING (site, slot_start)")
    return footprint.compute_facility_slots(energy.lazy(), sites.lazy()).collect()


def _read_other_grid_energy(con: duckdb.DuckDBPyConnection, changed: pl.DataFrame) -> pl.DataFrame:
    """Energy from the grid at all other sites and slots, where there are contracts to divide over it."""
    stored = con.execute(
        f"SELECT site, epoch_us(slot_start) // {SLOT_US} AS slot, sum(grid_mj)::BIGINT AS grid_mj "
        "FROM footprint_slot WHERE EXISTS (FROM contract) GROUP BY ALL"
    ).pl()
    return stored.join(changed, on=["site", "slot"], how="anti")


def _read_tariffs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Tariffs in order, as `transforms.market.price_slots` takes them."""
    tariffs = query_rows(
        con,
        "SELECT *, epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us FROM tariff "
        "ORDER BY position",
    )
    for tariff in tariffs:
        tariff["weekdays"] = [WEEKDAYS.index(day) + 1 for day in tariff["weekdays"].split()]
    return tariffs
