"""What devices drew in each slot, and who held them, from the readings in the warehouse.

What is computed here concerns one device or one host at a time, so a fleet can be cut into parts
(`transforms.changes`) that are computed one after the other, or on many machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import duckdb
import polars as pl

from flows.accounting.fleet import Fleet, find_site_settings
from flows.accounting.stretches import (
    find_neighbours,
    read_rolled_up,
    read_stretches,
    select_cell_readings,
)
from flows.accounting.tables import slot_number
from flows.warehouse.frames import register, stream_frames, temporary
from transforms import attribution, embodied, energy, footprint, host
from transforms.constants import SLOT_US


@dataclass(frozen=True)
class MeteredSlots:
    """What devices drew, by slot, and who held them; each is a table of that name, with slot for slot_start."""

    gpu_slot: pl.DataFrame
    """With slot_start, too."""
    energy_slot: pl.DataFrame
    host_slot: pl.DataFrame
    host_energy_slot: pl.DataFrame
    site_energy_slot: pl.DataFrame
    """`transforms.footprint.sum_by_site` by host group."""


class Meter(Protocol):
    """Who meters the parts of a fleet: this process, or many."""

    def meter_parts(
        self, con: duckdb.DuckDBPyConnection, fleet: Fleet, parts: Sequence[pl.DataFrame]
    ) -> Iterable[tuple[pl.DataFrame, MeteredSlots]]:
        """Meter the windows of each part; gives each part with what its devices drew."""


def meter_windows(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, windows: pl.DataFrame
) -> MeteredSlots:
    """Meter the devices of a fleet, and attribute what they drew, in some windows.

    Args:
        con: The warehouse.
        fleet: The fleet, or a part with all groups of the windows.
        windows: `transforms.changes.WINDOW` columns.

    Returns:
        What the devices drew in these slots.
    """
    fleet = fleet.select_groups(windows["host_group"].unique())
    wanted = fleet.devices.select("gpu_key", "host", "host_group", "is_gpu").join(
        windows, on="host_group"
    )
    gpus = wanted.filter("is_gpu").select("gpu_key", "first", "last")
    ranges = find_neighbours(con, gpus)
    stretches = read_stretches(con, ranges, fleet.rule)
    host_readings = _read_host_windows(con, wanted)
    return meter_stretches(con, fleet, stretches, host_readings, wanted)


def meter_stretches(
    con: duckdb.DuckDBPyConnection,
    fleet: Fleet,
    stretches: pl.DataFrame,
    host_readings: pl.DataFrame,
    wanted: pl.DataFrame | None = None,
) -> MeteredSlots:
    """Meter the devices of a fleet, and attribute what they drew, from stretches of readings.

    Args:
        con: The warehouse, for the readings of slots that an allocation border cuts.
        fleet: The fleet.
        stretches: As `transforms.energy.reduce_readings` gives them; none overlap.
        host_readings: As `transforms.host.sum_host_slots` takes them.
        wanted: gpu_key, host, first and last slot; everything, if None.

    Returns:
        What the devices drew in the slots that are wanted.
    """
    part = _Part(wanted)
    spans = part.clip_spans(fleet.spans.lazy())
    cut_cells = attribution.cut_slots(spans).collect()
    held_cells = attribution.list_held_cells(spans, cut_cells.lazy()).collect()
    gpu_slots = part.select_slots(
        energy.compute_gpu_slots(stretches.lazy(), fleet.rule, fleet.spans).with_columns(
            slot=slot_number()
        )
    ).collect()
    cut_energy = _measure_cells(con, stretches, cut_cells, fleet)
    energy_slots = _attribute_gpu_energy(fleet, gpu_slots, cut_energy, held_cells)
    host_cells = part.select_slots(_divide_host_energy(fleet, host_readings, cut_cells))
    whole = _add_host_energy(fleet, energy_slots, host_cells, held_cells)
    at_sites = footprint.sum_by_site(whole.lazy(), "host_group").collect()
    sites = find_site_settings(fleet.sites, at_sites)
    return MeteredSlots(
        gpu_slot=gpu_slots,
        energy_slot=energy_slots,
        host_slot=part.select_slots(host.sum_host_slots(host_readings.lazy()), "host").collect(),
        host_energy_slot=footprint.compute_host_slots(whole.lazy(), sites.lazy()).collect(),
        site_energy_slot=at_sites,
    )


@dataclass(frozen=True)
class _Part:
    """The part of a computation that is wanted: gpu_key, host, first and last slot; all of it, if None."""

    wanted: pl.DataFrame | None

    def clip_spans(self, spans: pl.LazyFrame) -> pl.LazyFrame:
        """The parts of spans that lie in wanted slots; slot borders cut nothing."""
        if self.wanted is None:
            return spans
        return (
            spans.join(self.wanted.lazy().select("gpu_key", "first", "last"), on="gpu_key")
            .with_columns(
                from_us=pl.max_horizontal("from_us", pl.col("first") * SLOT_US),
                to_us=pl.min_horizontal("to_us", (pl.col("last") + 1) * SLOT_US),
            )
            .filter(pl.col("to_us") > pl.col("from_us"))
            .drop("first", "last")
        )

    def select_slots(self, slots: pl.LazyFrame, key: str = "gpu_key") -> pl.LazyFrame:
        """The rows of wanted slots."""
        if self.wanted is None:
            return slots
        wanted = (
            self.wanted.lazy()
            .select(key, slot=pl.int_ranges("first", pl.col("last") + 1))
            .explode("slot")
            .unique()
        )
        return slots.join(wanted, on=[key, "slot"], how="semi")


def _attribute_gpu_energy(
    fleet: Fleet, gpu_slots: pl.DataFrame, cut_energy: pl.LazyFrame, held_cells: pl.DataFrame
) -> pl.DataFrame:
    """The table energy_slot."""
    attributed = attribution.attribute_energy(
        gpu_slots.lazy(), cut_energy, held_cells.lazy(), fleet.devices.lazy()
    ).collect()
    powers = fleet.usual_powers
    if powers is None:
        powers = attribution.find_usual_powers(attributed.lazy(), fleet.devices.lazy()).collect()
    filled = attribution.fill_unread_time(attributed.lazy(), powers.lazy())
    return attribution.add_bounds(filled, fleet.counter_ppm, fleet.power_ppm).collect()


def _divide_host_energy(
    fleet: Fleet, host_readings: pl.DataFrame, cut_cells: pl.DataFrame
) -> pl.LazyFrame:
    carriers = fleet.devices.lazy().filter(pl.col("place").is_not_null())
    return host.divide_among_gpus(host_readings.lazy(), carriers, cut_cells.lazy())


def _add_host_energy(
    fleet: Fleet, energy_slots: pl.DataFrame, host_cells: pl.LazyFrame, held_cells: pl.DataFrame
) -> pl.DataFrame:
    """Energy of devices with that of their hosts, what making them counts, and what they are."""
    with_hosts = host.add_host_energy(
        energy_slots.lazy(),
        host.attribute_host_energy(host_cells, held_cells.lazy()),
        measured_ppm=fleet.rapl_ppm,
        modelled_low_ppm=fleet.modelled_low_ppm,
        modelled_high_ppm=fleet.modelled_high_ppm,
    ).join(
        fleet.devices.lazy().select("gpu_key", "host", "site", "is_gpu", "host_group"),
        on="gpu_key",
        how="left",
        validate="m:1",
    )
    return embodied.add_embodied(with_hosts, fleet.embodied.lazy()).collect()


def read_host_readings(con: duckdb.DuckDBPyConnection, chosen: str = "") -> pl.DataFrame:
    """Readings of hosts `r`, as `transforms.host` takes them; `chosen` is SQL that chooses some."""
    return con.execute(f"SELECT r.* FROM host_reading AS r {chosen}").pl()


def _read_host_windows(con: duckdb.DuckDBPyConnection, wanted: pl.DataFrame) -> pl.DataFrame:
    """Readings that reach into the wanted slots of their host."""
    earliest = wanted.select(pl.col("first").min().fill_null(0)).item() * SLOT_US
    with register(con, wanted=wanted.select("host", "first", "last").unique()):
        return read_host_readings(
            con,
            f"SEMI JOIN wanted AS w ON w.host = r.host AND epoch_us(r.ts) > w.first * {SLOT_US} AND "
            f"epoch_us(r.ts) - r.span_us < (w.last + 1) * {SLOT_US} "
            f"WHERE r.ts > make_timestamptz({earliest})",
        )


def _measure_cells(
    con: duckdb.DuckDBPyConnection,
    stretches: pl.DataFrame,
    cut_cells: pl.DataFrame,
    fleet: Fleet,
) -> pl.LazyFrame:
    """Energy of the cells of slots that allocation borders cut, from their readings once more."""
    slots = cut_cells.select("gpu_key", "slot").unique()
    with temporary(con, cell=slots):
        query = select_cell_readings("ALL")
        inside = [
            energy.measure_intervals(readings.lazy(), fleet.rule, fleet.spans).collect()
            for readings in _chain_batches(stream_frames(con, query, rows=_BATCH))
        ]
    # Where a border falls into a slot whose readings were rolled up before.
    rolled_up = read_rolled_up(con, slots)
    inside.append(energy.spread_stretches(rolled_up.lazy()).collect())
    gpus = slots.lazy().select("gpu_key").unique()
    crossings = energy.measure_slot_crossings(
        stretches.lazy().join(gpus, on="gpu_key", how="semi"), fleet.rule, fleet.spans
    )
    intervals = pl.concat([*(part.lazy() for part in inside), crossings])
    return energy.compute_cell_energy(intervals, cut_cells.lazy())


_BATCH = 1 << 20
"""Readings held in memory at a time."""


def _chain_batches(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Batches of ordered rows, each after the last row of the one before."""
    last: pl.DataFrame | None = None
    for batch in batches:
        yield batch if last is None else pl.concat([last, batch])
        last = batch.tail(1)
