"""Energy of devices in slots and who holds it, from the readings in the warehouse.

What is computed here concerns one device or one host at a time, so a fleet can be cut into parts
(`transforms.changes`) that are computed one after the other, or on many machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl

from flows.accounting import stretches
from flows.errors import SettingsError
from flows.factors import Factor, embodied_factors, for_model, scalar
from flows.settings import Settings
from flows.warehouse.frames import register
from transforms import attribution, changes, embodied, energy, footprint, host
from transforms.constants import BOUNDS, NO_GPU, PPM, SLOT_US
from transforms.energy import GapRule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fleet:
    """What the figures take each device to be, and who held it; readings apart."""

    devices: pl.DataFrame
    """gpu_key, host, site, is_gpu, host_group, place and count among the carriers of the host's energy (null
    for those that carry none), idle_mw, limit_mw."""
    made: pl.DataFrame
    """The table gpu_embodied, with model and server."""
    held: pl.DataFrame
    """`transforms.attribution.close_allocations`."""
    sites: pl.DataFrame
    """The tables site and zone, joined."""
    rule: GapRule
    counter_ppm: int
    power_ppm: int
    rapl_ppm: int
    modelled_low_ppm: int
    modelled_high_ppm: int

    def of_groups(self, groups: pl.Series) -> Fleet:
        """What concerns some host groups alone."""
        devices = self.devices.filter(pl.col("host_group").is_in(groups.implode()))
        return replace(
            self,
            devices=devices,
            made=self.made.join(devices, on="gpu_key", how="semi"),
            held=self.held.join(devices, on="gpu_key", how="semi"),
        )


@dataclass(frozen=True)
class Metered:
    """What devices drew, by slot, and who held them; slots are numbers but for gpu_slot."""

    gpu_slot: pl.DataFrame
    energy_slot: pl.DataFrame
    host_slot: pl.DataFrame
    host_energy_slot: pl.DataFrame
    site_energy: pl.DataFrame
    """`transforms.footprint.sum_by_site` by host group."""


def gap_rule(settings: Settings) -> GapRule:
    """How long a step between readings may be, as [readings] says."""
    return GapRule(
        int(settings.readings.max_gap_s * 1_000_000),
        int(settings.readings.max_bridge_s * 1_000_000),
    )


def last_reading(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """Time of the last reading of all; a run without an end goes on until then."""
    [(last,)] = con.execute(
        "SELECT max(p.last_ts) FROM segment_profile AS p JOIN segment AS s USING (segment_id) "
        "WHERE s.verdict = 'loaded'"
    ).fetchall()
    return last if isinstance(last, datetime) else None


def fleet(con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]) -> Fleet:
    """The fleet as the warehouse and the settings describe it now."""
    modelled = next(f for f in factors if f.factor == "host_model_ratio")
    devices = _devices(con).join(_limits(con, factors), on="gpu_key")
    return Fleet(
        devices=changes.assign_host_groups(devices.lazy()).collect().sort("gpu_key"),
        made=_embodied(con, factors),
        held=_held(con, last_reading(con)),
        sites=con.execute(
            "SELECT s.*, z.loss, z.loss_low, z.loss_high FROM site AS s JOIN zone AS z USING (zone)"
        ).pl(),
        rule=gap_rule(settings),
        counter_ppm=round(scalar(factors, "meter_tolerance", "counter") * PPM),
        power_ppm=round(scalar(factors, "meter_tolerance", "power") * PPM),
        rapl_ppm=round(scalar(factors, "meter_tolerance", "rapl") * PPM),
        modelled_low_ppm=round(modelled.low * PPM),
        modelled_high_ppm=round(modelled.high * PPM),
    )


def metered(con: duckdb.DuckDBPyConnection, of: Fleet, windows: pl.DataFrame) -> Metered:
    """What a part of the fleet drew and who held it, in some windows (`transforms.changes.WINDOW`)."""
    of = of.of_groups(windows["host_group"].unique())
    cells = of.devices.select("gpu_key", "host", "host_group", "is_gpu").join(
        windows, on="host_group"
    )
    known = stretches.around(con, cells.filter("is_gpu").select("gpu_key", "first", "last"))
    with register(con, given=known):
        con.execute("CREATE OR REPLACE TEMP TABLE context AS FROM given")
    partials = stretches.partials(
        con,
        of.rule,
        "SEMI JOIN context AS c ON c.gpu_key = p.gpu_key AND "
        "(p.slot BETWEEN c.first AND c.last OR p.slot = c.before OR p.slot = c.after)",
    )
    con.execute("DROP TABLE context")
    return of_partials(con, of, partials, _host_readings(con, cells), cells)


def of_partials(
    con: duckdb.DuckDBPyConnection,
    of: Fleet,
    partials: pl.DataFrame,
    host_readings: pl.DataFrame,
    cells: pl.DataFrame | None = None,
) -> Metered:
    """The same from stretches of readings and energy of hosts.

    `cells`: gpu_key, host, first and last slot that are wanted; of the rest not all need be there.
    """
    held = of.held.lazy()
    wanted: pl.LazyFrame | None = None
    if cells is not None:
        held = _clipped(held, cells.lazy())
        wanted = (
            cells.lazy()
            .with_columns(slot=pl.int_ranges("first", pl.col("last") + 1))
            .explode("slot")
            .select("gpu_key", "host", "slot")
        )

    def only(frame: pl.LazyFrame, key: str = "gpu_key") -> pl.LazyFrame:
        if wanted is None:
            return frame
        return frame.join(wanted.select(key, "slot").unique(), on=[key, "slot"], how="semi")

    with_slot = energy.compute_gpu_slots(partials.lazy(), of.rule).with_columns(slot=slot_number())
    by_slot = only(with_slot).collect()
    cut = attribution.cut_slots(held).collect()
    held_cells = attribution.list_held_cells(held, cut.lazy()).collect().lazy()
    shared = attribution.attribute_energy(
        by_slot.lazy(), _cut_energy(con, partials, cut, of.rule), held_cells, of.devices.lazy()
    ).collect()
    bounded = attribution.add_bounds(shared.lazy(), of.counter_ppm, of.power_ppm).collect()

    carriers = of.devices.lazy().filter(pl.col("place").is_not_null())
    by_host = host.attribute_host_energy(
        only(host.divide_among_gpus(host_readings.lazy(), carriers, cut.lazy())), held_cells
    )
    with_hosts = host.add_host_energy(
        bounded.lazy(),
        by_host,
        measured_ppm=of.rapl_ppm,
        modelled_low_ppm=of.modelled_low_ppm,
        modelled_high_ppm=of.modelled_high_ppm,
    ).join(
        of.devices.lazy().select("gpu_key", "host", "site", "is_gpu", "host_group"),
        on="gpu_key",
        how="left",
    )
    whole = embodied.add_embodied(with_hosts, of.made.lazy()).collect().lazy()
    at_sites = footprint.sum_by_site(whole, "host_group").collect()
    sites = sites_at(of.sites, at_sites)
    return Metered(
        gpu_slot=by_slot,
        energy_slot=bounded,
        host_slot=only(host.sum_host_slots(host_readings.lazy()), "host").collect(),
        host_energy_slot=footprint.compute_host_slots(whole, sites.lazy()).collect(),
        site_energy=at_sites,
    )


def _clipped(held: pl.LazyFrame, cells: pl.LazyFrame) -> pl.LazyFrame:
    """The parts of spans that lie in the wanted slots; slot borders cut nothing."""
    return (
        held.join(cells.select("gpu_key", "first", "last"), on="gpu_key")
        .with_columns(
            from_us=pl.max_horizontal("from_us", pl.col("first") * SLOT_US),
            to_us=pl.min_horizontal("to_us", (pl.col("last") + 1) * SLOT_US),
        )
        .filter(pl.col("to_us") > pl.col("from_us"))
        .drop("first", "last")
    )


def slot_number() -> pl.Expr:
    """The number of the slot that begins at slot_start."""
    return pl.col("slot_start").to_physical() // SLOT_US


def _held(con: duckdb.DuckDBPyConnection, as_of: datetime | None) -> pl.DataFrame:
    """Allocations in force; a run without an end goes on until the last reading of all."""
    last_us = 0 if as_of is None else (as_of - _EPOCH) // timedelta(microseconds=1)
    allocations = con.execute(
        "SELECT run_id, gpu_key, from_ts, to_ts, share_ppm FROM run_allocation "
        "JOIN gpu USING (gpu_uuid) WHERE superseded_at IS NULL"
    ).pl()
    return attribution.close_allocations(allocations.lazy(), last_us).collect()


def host_readings_of(con: duckdb.DuckDBPyConnection, among: str = "") -> pl.DataFrame:
    """Readings of hosts `r`, as `transforms.host` takes them."""
    return con.execute(f"SELECT r.* FROM host_reading AS r {among}").pl()


def _host_readings(con: duckdb.DuckDBPyConnection, cells: pl.DataFrame) -> pl.DataFrame:
    """Those that reach into the wanted slots of their host."""
    wanted = cells.select("host", "first", "last").unique()
    with register(con, given=wanted):
        earliest = cells.select(pl.col("first").min().fill_null(0)).item() * SLOT_US
        return host_readings_of(
            con,
            f"SEMI JOIN given AS g ON g.host = r.host AND epoch_us(r.ts) > g.first * {SLOT_US} AND "
            f"epoch_us(r.ts) - r.span_us < (g.last + 1) * {SLOT_US} "
            f"WHERE r.ts > make_timestamptz({earliest})",
        )


def _cut_energy(
    con: duckdb.DuckDBPyConnection, partials: pl.DataFrame, cut: pl.DataFrame, rule: GapRule
) -> pl.LazyFrame:
    """Energy of the slots that allocation borders cut, from their readings once more."""
    inside = [
        energy.measure_intervals(batch.lazy(), rule).collect()
        for batch in _gpu_batches(con, stretches.of_cells(con, cut, "ALL"))
    ]
    # Where a border falls into a slot whose readings were rolled up before.
    inside.append(
        energy.spread_stretches(
            stretches.rolled_up(
                con, "SEMI JOIN cell ON cell.gpu_key = p.gpu_key AND cell.slot = p.slot"
            ).lazy()
        ).collect()
    )
    gpus = cut.lazy().select("gpu_key").unique()
    between = energy.measure_slot_crossings(partials.lazy().join(gpus, on="gpu_key", how="semi"), rule)
    return energy.compute_cell_energy(pl.concat([*(i.lazy() for i in inside), between]), cut.lazy())


def _gpu_batches(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[pl.DataFrame]:
    """Batches of an ordered query; each starts with the last row of the one before."""
    last: pl.DataFrame | None = None
    for batch in stretches.batches(con, query):
        yield batch if last is None else pl.concat([last, batch])
        last = batch.tail(1)


def _devices(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Every device with its host, site and model; and, where it carries a part of its host's energy, which.

    A host's energy is divided among its GPUs, or else goes to its host device.
    """
    return con.execute(
        """
        SELECT gpu_key, host, site, model, is_gpu,
            CASE WHEN carries THEN row_number() OVER w - 1 END AS place,
            CASE WHEN carries THEN count(*) OVER (PARTITION BY host, carries) END AS count
        FROM (
            SELECT gpu_key, host, site, model, model IS DISTINCT FROM $none AS is_gpu,
                is_gpu OR NOT bool_or(is_gpu) OVER (PARTITION BY host) AS carries
            FROM gpu JOIN host USING (host)
        ) WINDOW w AS (PARTITION BY host, carries ORDER BY gpu_key)
        """,
        {"none": NO_GPU},
    ).pl()


def _limits(con: duckdb.DuckDBPyConnection, factors: Sequence[Factor]) -> pl.DataFrame:
    gpus = con.execute("SELECT gpu_key, model FROM gpu ORDER BY gpu_key").fetchall()
    models = {model for _, model in gpus}
    idle = {m: round(for_model(factors, "gpu_idle_w", m).low * 1000) for m in models}
    limit = {m: round(for_model(factors, "gpu_limit_w", m).high * 1000) for m in models}
    return pl.DataFrame(
        [(key, idle[model], limit[model]) for key, model in gpus],
        schema={"gpu_key": pl.Int32, "idle_mw": pl.Int64, "limit_mw": pl.Int64},
        orient="row",
    )


def _embodied(con: duckdb.DuckDBPyConnection, factors: Sequence[Factor]) -> pl.DataFrame:
    """What making each device and its part of the server counts, per hour held."""
    kinds = con.execute(
        """
        SELECT gpu_key, model, last(s.server ORDER BY s.valid_from NULLS FIRST) AS server,
            coalesce(
                last(s.gpus_per_server ORDER BY s.valid_from NULLS FIRST), any_value(seen)
            ) AS gpus_per_server
        FROM (
            SELECT gpu_key, host, model,
                greatest(1, count(*) FILTER (model IS DISTINCT FROM $none) OVER (PARTITION BY host))
                    AS seen
            FROM gpu
        ) JOIN host AS h USING (host) LEFT JOIN site AS s ON s.site = h.site
        GROUP BY gpu_key, model ORDER BY gpu_key
        """,
        {"none": NO_GPU},
    ).pl()
    scopes = kinds.select("model", "server").unique()
    found = []
    for model, server in scopes.iter_rows():
        row: dict[str, Any] = {"model": model, "server": server}
        for name, factor in embodied_factors(factors, model, server).items():
            row |= {name: factor.value, f"{name}_low": factor.low, f"{name}_high": factor.high}
        found.append(row)
    names = [f"{name}{bound}" for name in embodied.INPUTS for bound in BOUNDS]
    described = pl.DataFrame(
        found, schema={"model": pl.String, "server": pl.String, **dict.fromkeys(names, pl.Float64)}
    )
    return embodied.compute_hourly_rates(
        kinds.lazy().join(described.lazy(), on=["model", "server"], nulls_equal=True)
    ).collect()


def sites_at(sites: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """One row per site and slot that is asked for (site, slot), with the settings valid then.

    Raises:
        SettingsError: there are none, or two.
    """
    needed = asked.select("site", "slot").unique()
    found = (
        needed.join(sites, on="site", how="left")
        .with_columns(start=start("slot"))
        .filter(
            (pl.col("valid_from").is_null() | (pl.col("valid_from") <= pl.col("start")))
            & (pl.col("valid_to").is_null() | (pl.col("valid_to") > pl.col("start")))
        )
        .drop("start", "valid_from", "valid_to")
    )
    doubled = found.filter(found.select("site", "slot").is_duplicated())
    missing = needed.join(found, on=["site", "slot"], how="anti")
    for frame, what in ((doubled, "is described twice for"), (missing, "is not described for")):
        if frame.height:
            when = datetime.fromtimestamp(frame["slot"][0] * SLOT_US / 1e6, UTC)
            raise SettingsError(
                f"site {frame['site'][0]!r} {what} {when:%Y-%m-%dT%H:%MZ}",
                where="wattledger.toml",
                remedy="Adjust valid_from and valid_to of its [[site]] entries",
            )
    return found


def start(column: str) -> pl.Expr:
    """The time at which a slot begins."""
    return pl.from_epoch(pl.col(column) * SLOT_US, "us").dt.replace_time_zone("UTC")
