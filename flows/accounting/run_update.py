"""Tables of whole runs, brought up to date: totals, the factors behind them, sensitivity and alternatives."""

from __future__ import annotations

import polars as pl

from flows.accounting.alternatives import compute_alternatives
from flows.accounting.computation import Computation
from flows.accounting.factor_use import list_factor_uses
from flows.accounting.fleet import Fleet
from flows.accounting.site_update import (
    UpdatedFacilities,
    UpdatedSignals,
    price_slots,
    read_site_energy,
)
from flows.accounting.tables import replace_rows, slot_number, slot_start, write_rows
from flows.warehouse.frames import load_query, register
from transforms import footprint
from transforms.constants import SLOT_US
from transforms.schema import TABLES
from transforms.sensitivity import compute_sensitivity

_OF_CHANGED_RUN = (
    "SEMI JOIN changed_run AS c ON c.kind = t.kind AND c.run_id IS NOT DISTINCT FROM t.run_id"
)
"""SQL: a row of `t` is of a run in the relation `changed_run`."""


def update_totals(computation: Computation, signals: UpdatedSignals, runs: pl.DataFrame) -> None:
    """Sum the figures of runs (kind, run_id), and list the factors that they rest on."""
    con, fleet = computation.con, computation.fleet
    with register(con, changed_run=runs):
        stored = con.execute(f"SELECT t.* FROM footprint_slot AS t {_OF_CHANGED_RUN}").pl()
        energy = con.execute(f"SELECT t.* FROM device_energy AS t {_OF_CHANGED_RUN}").pl()
    slots = stored.with_columns(slot=slot_number())
    replace_rows(con, "run_footprint", runs, sum_footprints(fleet, slots, energy))
    uses = list_factor_uses(computation.view, slots, signals.sources, energy, fleet.embodied)
    replace_rows(con, "factor_use", runs, uses)


def sum_footprints(fleet: Fleet, slots: pl.DataFrame, energy: pl.DataFrame) -> pl.DataFrame:
    """Sum footprints to the table run_footprint.

    Args:
        fleet: The fleet.
        slots: The table footprint_slot, with slot for slot_start.
        energy: The table device_energy, without what was metered.

    Returns:
        One row per run, and one each for idle and unallocated.
    """
    gpus = (
        energy.lazy()
        .join(fleet.devices.lazy().filter("is_gpu"), on="gpu_key", how="semi")
        .group_by("kind", "run_id")
        .agg(gpus=pl.col("gpu_key").n_unique())
    )
    totals = footprint.sum_runs(slots.lazy(), gpus).collect()
    return totals.with_columns(
        first_slot=slot_start("first_slot"), last_slot=slot_start("last_slot")
    )


def update_sensitivity(
    computation: Computation,
    signals: UpdatedSignals,
    facilities: UpdatedFacilities,
    runs: pl.DataFrame,
) -> None:
    """Compute what each input alone would change of the figures of runs (kind, run_id)."""
    con = computation.con
    with register(con, changed_run=runs):
        energy = read_site_energy(con, f"{_OF_CHANGED_RUN} WHERE t.kind = 'run'")
    sensitivity = compute_sensitivity(
        energy.lazy(),
        signals.sites.lazy(),
        signals.signals.lazy(),
        facilities.contracted.lazy(),
        price_slots(con, energy).lazy(),
    ).collect()
    replace_rows(con, "run_sensitivity", _select_run_ids(runs), sensitivity)


def update_alternatives(computation: Computation, runs: pl.DataFrame) -> None:
    """Compute the alternatives of runs whose figures (`runs`: kind, run_id), end, or grid around them changed."""
    con = computation.con
    parameters = {
        "since": computation.last_computed,
        "hours": computation.settings.grid.shift_h,
        "slot_us": SLOT_US,
    }
    with register(con, changed_run=_select_run_ids(runs)):
        due = con.execute(load_query("accounting/alternatives_due"), parameters).pl()
    with register(con, due_run=due):
        slots = con.execute(
            "SELECT t.* FROM footprint_slot AS t SEMI JOIN due_run USING (run_id) WHERE t.kind = 'run'"
        ).pl()
    alternatives = compute_alternatives(
        computation.view, slots.with_columns(slot=slot_number()), computation.as_of
    )
    replace_rows(con, "run_alternative", due, alternatives)


def update_embodied(computation: Computation) -> None:
    """Write what making the devices counts, where it changed."""
    con = computation.con
    columns = TABLES["gpu_embodied"].columns
    stored = con.execute("FROM gpu_embodied").pl().select(columns)
    rates = computation.fleet.embodied.select(columns).cast(dict(stored.schema))  # type: ignore[arg-type]
    if not rates.sort("gpu_key").equals(stored.sort("gpu_key")):
        con.execute("DELETE FROM gpu_embodied")
        write_rows(con, "gpu_embodied", rates)


def _select_run_ids(runs: pl.DataFrame) -> pl.DataFrame:
    return runs.filter(kind="run").select("run_id")
