"""Compute the candidate: energy, carbon and water of every run, from what the warehouse holds.

`_update_candidate` tells the whole computation, step by step; each step is a module beside this one. Only what changed is
computed again (`flows.accounting.changes`), and the figures are those of a computation from nothing
(`flows.accounting.candidate`), whatever was there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import duckdb
import polars as pl

from flows.accounting.changes import (
    digest_basis,
    empty_candidate,
    find_changed_windows,
    record_basis,
    rests_on,
)
from flows.accounting.computation import prepare_computation
from flows.accounting.device_update import update_devices, update_hosts_without_devices
from flows.accounting.energy import Meter, MeteredSlots, meter_windows
from flows.accounting.fingerprints import (
    check_last_computation,
    has_fingerprints,
    record_fingerprints,
)
from flows.accounting.fleet import Fleet, find_last_reading
from flows.accounting.inputs import write_inputs
from flows.accounting.readiness import check_readiness
from flows.accounting.run_update import (
    update_alternatives,
    update_embodied,
    update_sensitivity,
    update_totals,
)
from flows.accounting.site_update import update_facilities, update_footprints, update_signals
from flows.accounting.stretches import (
    Progress,
    SegmentReducer,
    forget_stretches,
    list_unreduced_segments,
    read_gap_rule,
    reduce_segments,
    store_new_stretches,
)
from flows.factors import Factor, read_factors
from flows.settings import Settings
from flows.warehouse.digests import digest_factors, digest_inputs
from flows.warehouse.frames import insert
from flows.warehouse.locks import FIGURES, MOMENT, transaction
from flows.warehouse.registry import declare_gpus
from flows.warehouse.store import open_exclusively, store_of
from transforms import METHOD_VERSION
from transforms.gaps import GapRule


@dataclass(frozen=True)
class Computed:
    """What a computation has computed."""

    readings: int
    runs: int
    slots: int
    as_of: datetime | None
    """Time of the last reading of all."""
    recomputed: int
    """Slots of GPUs that were computed again; `slots` are all of them."""


class Engine(SegmentReducer, Meter, Protocol):
    """Where the heavy parts are computed: each concerns some files, or some devices and slots, alone."""


class LocalEngine:
    """Computes them one after the other, in this process (`Engine`)."""

    def reduce_segments(
        self,
        con: duckdb.DuckDBPyConnection,
        batches: Sequence[Sequence[int]],
        rule: GapRule,
        progress: Progress,
    ) -> Iterator[pl.DataFrame]:
        for keys in batches:
            yield reduce_segments(con, keys, rule, progress)

    def meter_parts(
        self, con: duckdb.DuckDBPyConnection, fleet: Fleet, parts: Sequence[pl.DataFrame]
    ) -> Iterator[tuple[pl.DataFrame, MeteredSlots]]:
        for windows in parts:
            yield windows, meter_windows(con, fleet, windows)


_LOCAL = LocalEngine()


def compute(
    settings: Settings,
    progress: Progress = lambda readings: None,
    engine: Engine = _LOCAL,
    *,
    everything: bool = False,
) -> Computed:
    """Bring the candidate up to date with everything in the warehouse.

    Changes all tables of the candidate in one transaction.

    Args:
        settings: The project.
        progress: Is told how many readings were reduced.
        engine: Where the heavy parts are computed.
        everything: Compute from nothing but readings, whatever changed and whatever is kept.

    Raises:
        SettingsError: a host belongs to no site, or site periods overlap.
        BadInput: a site's zone has no grid data and no fallback. Both are found before anything is computed,
            as far as they show without it.
        NotAsPublished: what is kept of earlier computations was changed.
        WarehouseError: the disk or the warehouse failed.
    """
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        declare_gpus(con, settings)
        factors = read_factors(settings)
        check_readiness(con, settings, factors)
        recomputed: int | None = None
        while recomputed is None:
            with transaction(con, FIGURES):
                if everything:
                    forget_stretches(con)
                store_new_stretches(con, read_gap_rule(settings), engine, progress)
            # Settings and figures change together, or not at all.
            with transaction(con, FIGURES):
                # On a lake, others may have loaded readings since; these are reduced first.
                if list_unreduced_segments(con).is_empty():
                    recomputed = _update_candidate(
                        con, settings, factors, engine, everything=everything
                    )
        return _count_results(con, recomputed)


def _update_candidate(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    engine: Engine,
    *,
    everything: bool,
) -> int:
    """Compute again what changed (inside the caller's transaction); gives the slots of GPUs that this took."""
    # 1. Write the settings into the warehouse; where figures rest on others, begin with nothing.
    write_inputs(con, settings, factors)
    basis = digest_basis(con, settings)
    if everything or not rests_on(con, basis) or not has_fingerprints(con):
        empty_candidate(con)
    else:
        check_last_computation(con)
    computation = prepare_computation(con, settings, factors)

    # 2. Find the windows whose readings, devices or allocations changed.
    windows = find_changed_windows(con, computation.fleet)

    # 3. Meter the devices in these windows, and attribute what they drew to runs.
    devices = update_devices(computation, windows, engine)
    update_hosts_without_devices(con)

    # 4. Find what the grid was like wherever energy was used.
    signals = update_signals(computation)

    # 5. Compute facility energy where energy or grid changed, and divide contracts over it.
    changed = pl.concat([devices.sites, signals.changed]).unique()
    facilities = update_facilities(computation, signals.sites, changed)

    # 6. Turn facility energy into carbon, water and cost, by run, site and slot.
    runs = update_footprints(computation, signals.signals, facilities)

    # 7. Sum the figures of these runs; say what they rest on, and what would have changed them.
    update_totals(computation, signals, runs)
    update_sensitivity(computation, signals, facilities, runs)
    update_alternatives(computation, runs)
    update_embodied(computation)

    # 8. Record what the figures were made from, so that the next computation finds what changed.
    record_basis(con, computation.fleet, basis, computation.as_of)
    record_fingerprints(con)
    _record_computation(con)
    return devices.slots


def _record_computation(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("DELETE FROM computation")
    row = {
        "method_version": METHOD_VERSION,
        "input_digest": digest_inputs(con),
        "factor_digest": digest_factors(con),
    }
    insert(con, "computation", [row], computed_at=MOMENT)


def _count_results(con: duckdb.DuckDBPyConnection, recomputed: int) -> Computed:
    [(readings, slots, runs)] = con.execute(
        "SELECT (SELECT count(*) FROM gpu_reading), (SELECT count(*) FROM gpu_slot), "
        "(SELECT count(*) FROM run_footprint WHERE kind = 'run')"
    ).fetchall()
    return Computed(readings, runs, slots, find_last_reading(con), recomputed)
