"""The candidate computed all at once, for verification, recomputation and the summary of one run."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import polars as pl

from flows.accounting.alternatives import compute_alternatives
from flows.accounting.device_update import check_device_energy, sum_device_energy
from flows.accounting.energy import meter_stretches, read_host_readings
from flows.accounting.factor_use import list_factor_uses
from flows.accounting.fleet import describe_fleet, find_last_reading, find_site_settings
from flows.accounting.intensity import GridView, compute_slot_signals
from flows.accounting.run_update import sum_footprints
from flows.accounting.site_update import (
    compute_footprints,
    match_contracts,
    price_slots,
    sum_grid_energy,
)
from flows.accounting.tables import add_slot_start
from flows.factors import Factor
from flows.settings import Settings
from transforms import footprint
from transforms.sensitivity import compute_sensitivity


def compute_candidate(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    stretches: pl.DataFrame,
    grid_energy: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Compute all candidate tables that are published, without what an earlier computation left.

    Args:
        con: The warehouse.
        settings: The project, as `flows.accounting.inputs.write_inputs` wrote it.
        factors: The factors in force.
        stretches: As `transforms.energy.reduce_readings` gives them; none overlap.
        grid_energy: Energy from the grid (site, slot, grid_mj) over which contracts are divided, where the
            warehouse holds only a part of it.

    Returns:
        The tables by name.
    """
    fleet = describe_fleet(con, settings, factors)
    view = GridView(con, settings, factors)
    metered = meter_stretches(con, fleet, stretches, read_host_readings(con))
    energy = sum_device_energy(metered)
    held = energy.filter(pl.col("kind") != "metered")
    at_sites = footprint.sum_sites(metered.site_energy_slot.lazy()).collect()
    sites = find_site_settings(fleet.sites, at_sites)
    signals, sources = compute_slot_signals(view, sites.select("zone", "slot").unique())
    facility = footprint.compute_facility_slots(at_sites.lazy(), sites.lazy()).collect()
    contract_slots, contracted = match_contracts(
        con, sum_grid_energy(facility) if grid_energy is None else grid_energy
    )
    slots = compute_footprints(con, facility, signals, contracted)
    sensitivity = compute_sensitivity(
        at_sites.lazy(),
        sites.lazy(),
        signals.lazy(),
        contracted.lazy(),
        price_slots(con, at_sites).lazy(),
    )
    return {
        "gpu_slot": metered.gpu_slot,
        "host_energy_slot": add_slot_start(metered.host_energy_slot),
        "host_slot": add_slot_start(metered.host_slot),
        "energy_slot": add_slot_start(metered.energy_slot),
        "slot_signal": add_slot_start(signals),
        "slot_source": add_slot_start(sources),
        "contract_slot": add_slot_start(contract_slots),
        "footprint_slot": add_slot_start(slots),
        "run_footprint": sum_footprints(fleet, slots, held),
        "gpu_embodied": fleet.embodied,
        "conservation": check_device_energy(energy),
        "run_alternative": compute_alternatives(view, slots, find_last_reading(con)),
        "run_sensitivity": sensitivity.collect(),
        "factor_use": list_factor_uses(view, slots, sources, held, fleet.embodied),
    }
