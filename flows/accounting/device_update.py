"""Tables of what devices drew, brought up to date: slots of GPUs and hosts, their sums, and whether these add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import duckdb
import polars as pl

from flows.accounting.changes import NOT_COMPUTED
from flows.accounting.computation import Computation
from flows.accounting.energy import Meter, MeteredSlots, read_host_readings
from flows.accounting.fleet import Fleet
from flows.accounting.tables import (
    add_slot_start,
    delete_rows,
    replace_rows,
    slot_start,
    write_rows,
)
from flows.warehouse.frames import register, temporary
from transforms import attribution, changes, host
from transforms.attribution import METERED
from transforms.constants import SLOT_US
from transforms.schema import TABLES

PART = 1_000_000
"""Cells (a device in a slot) that are computed at once: some 500 MB."""


@dataclass(frozen=True)
class UpdatedDevices:
    """What became of the devices."""

    slots: int
    """Slots of GPUs that were computed."""
    sites: pl.DataFrame
    """Sites and slots (site, slot) whose energy may have changed."""


def update_devices(computation: Computation, windows: pl.DataFrame, meter: Meter) -> UpdatedDevices:
    """Meter the devices in some windows, and write what they drew in place of what stands there.

    Args:
        computation: The computation.
        windows: `transforms.changes.WINDOW` columns, merged.
        meter: Who meters the parts into which the windows are cut.

    Returns:
        How much was computed, and where.
    """
    con, fleet = computation.con, computation.fleet
    used = con.execute("FROM computed_power").pl()
    first = _meter_windows(con, replace(fleet, usual_powers=used), windows, meter)
    powers = _find_usual_powers(con, fleet)
    delete_rows(con, "computed_power", used.select("run_id", "gpu_key"))
    write_rows(con, "computed_power", powers)
    # New readings of a run also change what stands in for those that it lacks elsewhere.
    columns = powers.columns
    changed = pl.concat(
        [powers.join(used, on=columns, how="anti"), used.join(powers, on=columns, how="anti")]
    )
    again = _find_filled_windows(con, fleet, changed.select("run_id", "gpu_key").unique())
    if again.is_empty():
        return first
    second = _meter_windows(con, replace(fleet, usual_powers=powers), again, meter)
    return UpdatedDevices(
        first.slots + second.slots, pl.concat([first.sites, second.sites]).unique()
    )


def _find_usual_powers(con: duckdb.DuckDBPyConnection, fleet: Fleet) -> pl.DataFrame:
    """`transforms.attribution.find_usual_powers` of all runs, from what they drew in sum."""
    energy = con.execute("FROM device_energy WHERE kind = 'run'").pl()
    powers = attribution.find_usual_powers(energy.lazy(), fleet.devices.lazy())
    return powers.sort("run_id", "gpu_key").collect()


def _find_filled_windows(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, runs: pl.DataFrame
) -> pl.DataFrame:
    """Windows of the slots in which runs (run_id, gpu_key) held time without readings."""
    with register(con, filled_run=runs):
        slots = con.execute(
            f"SELECT DISTINCT t.gpu_key, epoch_us(t.slot_start) // {SLOT_US} AS slot FROM energy_slot AS t "
            "SEMI JOIN filled_run USING (run_id, gpu_key) WHERE t.kind = 'run' AND t.filled_us > 0"
        ).pl()
    windows = slots.join(fleet.devices, on="gpu_key", validate="m:1").select(
        "host_group", first="slot", last="slot"
    )
    return changes.merge_windows(windows.unique())


def _meter_windows(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, windows: pl.DataFrame, meter: Meter
) -> UpdatedDevices:
    sizes = fleet.devices.group_by("host_group").agg(devices=pl.len().cast(pl.Int64))
    parts = changes.cut_into_parts(windows, sizes, PART)
    slots = 0
    sites = [pl.DataFrame(schema={"site": pl.String, "slot": pl.Int64})]
    energy = [con.execute("FROM device_energy LIMIT 0").pl()]
    for part, metered in meter.meter_parts(con, fleet, parts):
        replaced = _replace_part(con, fleet, part, metered)
        slots += metered.gpu_slot.height
        sites += [replaced.sites, metered.site_energy_slot.select("site", "slot")]
        energy += [sum_device_energy(metered), replaced.energy]
    _add_device_energy(con, pl.concat(energy))
    return UpdatedDevices(slots, pl.concat(sites).unique())


@dataclass(frozen=True)
class _Replaced:
    """What a part held before it was replaced."""

    sites: pl.DataFrame
    """Its sites and slots."""
    energy: pl.DataFrame
    """Its energy in the columns of device_energy, negative, to be taken off."""


def _replace_part(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, windows: pl.DataFrame, metered: MeteredSlots
) -> _Replaced:
    """Write what the devices of a part drew in place of what stands there."""
    part = fleet.devices.join(windows, on="host_group").select(
        "gpu_key",
        "host",
        "host_group",
        first_start=slot_start("first"),
        last_start=slot_start("last"),
    )
    with temporary(con, part=part):
        replaced = _Replaced(_read_sites(con), _read_energy_to_take_off(con))
        for table, frame, key in (
            ("gpu_slot", metered.gpu_slot, "gpu_key"),
            ("energy_slot", metered.energy_slot, "gpu_key"),
            ("host_slot", metered.host_slot, "host"),
            ("host_energy_slot", metered.host_energy_slot, "host"),
            ("site_energy_slot", metered.site_energy_slot, "host_group"),
        ):
            con.execute(
                f"DELETE FROM {table} AS t WHERE EXISTS "
                f"(FROM part AS p WHERE {_IN_PART.format(key=key)})"
            )
            write_rows(con, table, add_slot_start(frame))
    return replaced


_IN_PART = "p.{key} = t.{key} AND t.slot_start BETWEEN p.first_start AND p.last_start"
"""SQL: a row of `t` is of a device in the temporary table `part`."""


def _read_sites(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    return con.execute(
        f"SELECT DISTINCT site, epoch_us(slot_start) // {SLOT_US} AS slot FROM site_energy_slot AS t "
        f"SEMI JOIN part AS p ON {_IN_PART.format(key='host_group')}"
    ).pl()


def _read_energy_to_take_off(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    # The columns of METERED and _OF_RUNS, by what is summed.
    sums = [
        f"SELECT {what}, gpu_key, -count(*) AS slots, {_sum_negative(METERED)}, {filled} "
        f"FROM {table} AS t SEMI JOIN part AS p ON {_IN_PART.format(key='gpu_key')} GROUP BY ALL"
        for table, what, filled in (
            (
                "gpu_slot",
                "'metered' AS kind, NULL AS run_id",
                ", ".join(f"0::BIGINT AS {name}" for name in _OF_RUNS),
            ),
            ("energy_slot", "kind, run_id", _sum_negative(_OF_RUNS)),
        )
    ]
    return con.execute(" UNION ALL ".join(sums)).pl()


_OF_RUNS = ("filled_mj", "filled_us", "held_us")
"""What is summed of energy that somebody held, beside `METERED`."""


def _sum_negative(columns: Iterable[str]) -> str:
    return ", ".join(f"-sum({name})::BIGINT AS {name}" for name in columns)


def sum_device_energy(metered: MeteredSlots) -> pl.DataFrame:
    """Sum what GPUs drew, and who held it, over slots: the table device_energy."""
    drawn = metered.gpu_slot.select(
        pl.lit("metered").alias("kind"),
        pl.lit(None, pl.String).alias("run_id"),
        "gpu_key",
        *METERED,
        **dict.fromkeys(_OF_RUNS, pl.lit(0, pl.Int64)),
    )
    held = metered.energy_slot.select(drawn.columns)
    return _sum_by_device(pl.concat([drawn, held]).with_columns(slots=pl.lit(1, pl.Int64)))


def _sum_by_device(energy: pl.DataFrame) -> pl.DataFrame:
    sums = ["slots", *METERED, *_OF_RUNS]
    return (
        energy.group_by("kind", "run_id", "gpu_key")
        .agg(pl.col(sums).sum())
        .select("kind", "run_id", "gpu_key", *sums)
    )


def _add_device_energy(con: duckdb.DuckDBPyConnection, change: pl.DataFrame) -> None:
    """Add to device_energy what became more and what became less, and check the sums of these GPUs anew."""
    change = _sum_by_device(change.select(TABLES["device_energy"].columns))
    same = "c.kind = t.kind AND c.gpu_key = t.gpu_key AND c.run_id IS NOT DISTINCT FROM t.run_id"
    with register(con, change=change):
        stored = con.execute(
            f"SELECT t.* FROM device_energy AS t SEMI JOIN change AS c ON {same}"
        ).pl()
        con.execute(f"DELETE FROM device_energy AS t WHERE EXISTS (FROM change AS c WHERE {same})")
    energy = _sum_by_device(pl.concat([stored, change])).filter(pl.col("slots") != 0)
    write_rows(con, "device_energy", energy)
    gpus = change.select("gpu_key").unique()
    with register(con, changed_gpu=gpus):
        energy = con.execute(
            "SELECT t.* FROM device_energy AS t SEMI JOIN changed_gpu USING (gpu_key)"
        ).pl()
    replace_rows(con, "conservation", gpus, check_device_energy(energy))


def check_device_energy(energy: pl.DataFrame) -> pl.DataFrame:
    """Check that who held energy held what was metered: the table conservation, from device_energy."""
    metered = pl.col("kind") == "metered"
    return attribution.check_conservation(
        energy.lazy().filter(metered), energy.lazy().filter(~metered)
    ).collect()


def update_hosts_without_devices(con: duckdb.DuckDBPyConnection) -> None:
    """Keep what hosts drew of which no device is known yet; it is in no figure."""
    hosts = con.execute(
        f"SELECT DISTINCT host FROM host_reading WHERE {NOT_COMPUTED} "
        "AND host NOT IN (SELECT host FROM gpu)"
    ).pl()
    with register(con, unknown_host=hosts):
        readings = read_host_readings(con, "SEMI JOIN unknown_host USING (host)")
    delete_rows(con, "host_slot", hosts)
    slots = host.sum_host_slots(readings.lazy()).collect()
    write_rows(con, "host_slot", add_slot_start(slots))
