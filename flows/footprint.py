"""Compute the candidate: energy, carbon and water of every run, from what the warehouse holds.

Reads, calls the pure transforms, writes. The formulas are in `transforms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl

from flows import catalogue, digests, pieces
from flows.alternatives import alternatives_of
from flows.configuration import configure
from flows.errors import SettingsError
from flows.factor_use import factor_use
from flows.factors import Factor, effective, embodied_factors, for_model, scalar
from flows.settings import WEEKDAYS, Settings
from flows.signals import Known, slot_signals
from flows.warehouse import disk_errors, rows, transaction, writing
from transforms import attribution, embodied, energy, footprint, host, market
from transforms.energy import GapRule
from transforms.schemas import BOUNDS, NO_GPU, PPM, SLOT_US, TABLES
from transforms.sensitivity import sensitivity

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Computed:
    """What a computation found."""

    readings: int
    runs: int
    slots: int
    as_of: datetime | None


def compute(settings: Settings, progress: Callable[[int], None] = lambda rows: None) -> Computed:
    """Recompute the candidate figures from everything in the warehouse.

    Replaces all tables of `candidate` in one transaction.

    Raises:
        SettingsError: a host belongs to no site, or site periods overlap.
        BadInput: a site's zone has no grid data and no fallback.
        WarehouseError: the disk or the warehouse failed.
    """
    rule = gap_rule(settings)
    with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
        catalogue.declare_gpus(con, settings)
        factors = effective(settings)
        # Settings and figures change together, or not at all.
        with transaction(con):
            configure(con, settings, factors)
            pieces.keep(con, rule, progress)
            partials = pieces.partials(con, rule)
            tables = candidate(con, settings, factors, partials, rule)
            for name, frame in tables.items():
                con.execute(f"DELETE FROM {name}")
                con.register("computed", frame.select(TABLES[name].columns).to_arrow())
                con.execute(f"INSERT INTO {name} FROM computed")
                con.unregister("computed")
            con.execute("DELETE FROM computation")
            con.execute(
                "INSERT INTO computation VALUES (now(), ?, ?, ?)",
                [digests.METHOD_VERSION, digests.inputs(con), digests.factors(con)],
            )
        [(readings,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
        as_of = last_reading(con)
    return Computed(
        readings,
        tables["run_footprint"].filter(pl.col("kind") == "run").height,
        tables["gpu_slot"].height,
        as_of,
    )


def last_reading(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """Time of the last reading of all; a run without an end goes on until then."""
    [(last,)] = con.execute(
        "SELECT max(p.last_ts) FROM segment_profile AS p JOIN segment AS s USING (segment_id) "
        "WHERE s.verdict = 'loaded'"
    ).fetchall()
    return last if isinstance(last, datetime) else None


def gap_rule(settings: Settings) -> GapRule:
    """How long a step between readings may be, as [readings] says."""
    return GapRule(
        int(settings.readings.max_gap_s * 1_000_000),
        int(settings.readings.max_bridge_s * 1_000_000),
    )


def candidate(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    partials: pl.DataFrame,
    rule: GapRule,
    grid_used: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """All candidate tables, by name, from partial slots and what the warehouse holds.

    `grid_used`: energy from the grid by site and slot (site, slot, grid_mj), over which contracts are
    divided, where the warehouse holds only a part of it.
    """
    slots = energy.gpu_slots(partials.lazy(), rule).collect()
    as_of = last_reading(con)
    held = _held(con, as_of)
    cut = attribution.cut_cells(held).collect()
    by_slot = slots.lazy().with_columns(slot=_slot_number())
    cells = attribution.held_cells(held, cut.lazy())
    shared = attribution.attribute(
        by_slot, _cut_energy(con, partials, cut, rule), cells, _limits(con, factors)
    ).collect()
    bounded = attribution.with_bounds(
        shared.lazy(),
        round(scalar(factors, "meter_tolerance", "counter") * PPM),
        round(scalar(factors, "meter_tolerance", "power") * PPM),
    ).collect()
    conserved = attribution.conservation(by_slot, shared.lazy()).collect()

    host_readings = _lazy(con, "FROM host_reading")
    by_host = host.attribute(host.cells(host_readings, _carriers(con), cut.lazy()), cells)
    modelled = next(f for f in factors if f.factor == "host_model_ratio")
    with_hosts = host.with_hosts(
        bounded.lazy(),
        by_host,
        measured_ppm=round(scalar(factors, "meter_tolerance", "rapl") * PPM),
        modelled_low_ppm=round(modelled.low * PPM),
        modelled_high_ppm=round(modelled.high * PPM),
    ).join(_devices(con), on="gpu_key", how="left")
    made = _embodied(con, factors)
    whole = embodied.embodied(with_hosts, made.lazy()).collect().lazy()
    at_sites = footprint.by_site(whole).collect()
    sites = _sites(con, at_sites)
    known = Known(con, settings, factors)
    signals, sources = slot_signals(known, sites.select("zone", "slot").unique())
    facility = footprint.facility_slots(at_sites.lazy(), sites.lazy()).collect()
    used = facility.lazy().group_by("site", "slot").agg(pl.col("grid_mj").sum())
    contract_slots, contracted = _contracts(con, used if grid_used is None else grid_used.lazy())
    # Once: the sensitivity goes over it many times.
    priced = market.prices(at_sites.lazy(), _tariffs(con)).collect().lazy()
    by_run = footprint.footprint_slots(
        facility.lazy(), signals.lazy(), contracted.lazy(), priced
    ).collect()
    devices = bounded.lazy().join(_devices(con).filter("is_gpu"), on="gpu_key", how="semi")
    gpus = devices.group_by("kind", "run_id").agg(gpus=pl.col("gpu_key").n_unique())
    totals = footprint.run_totals(by_run.lazy(), gpus).collect()

    return {
        "gpu_slot": slots,
        "host_energy_slot": _with_start(footprint.host_slots(whole, sites.lazy()).collect()),
        "host_slot": _with_start(host.host_slots(host_readings).collect()),
        "energy_slot": _with_start(bounded),
        "slot_signal": _with_start(signals),
        "slot_source": _with_start(sources),
        "contract_slot": _with_start(contract_slots),
        "footprint_slot": _with_start(by_run),
        "run_footprint": totals.with_columns(
            _start("first_slot").alias("first_slot"), _start("last_slot").alias("last_slot")
        ),
        "gpu_embodied": made,
        "conservation": conserved,
        "run_alternative": alternatives_of(known, by_run, as_of),
        "run_sensitivity": sensitivity(
            at_sites.lazy(), sites.lazy(), signals.lazy(), contracted.lazy(), priced
        ).collect(),
        "factor_use": factor_use(known, by_run, sources, shared, made),
    }


def _slot_number() -> pl.Expr:
    return pl.col("slot_start").to_physical() // SLOT_US


def _start(column: str) -> pl.Expr:
    return pl.from_epoch(pl.col(column) * SLOT_US, "us").dt.replace_time_zone("UTC")


def _with_start(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(slot_start=_start("slot"))


def _lazy(con: duckdb.DuckDBPyConnection, query: str, values: Any = None) -> pl.LazyFrame:
    return con.execute(query, values).pl().lazy()


def _contracts(
    con: duckdb.DuckDBPyConnection, used: pl.LazyFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What contracts cover, by contract and slot, and summed by site and slot."""
    contracts = _lazy(
        con,
        "SELECT * EXCLUDE (share), CAST(floor(share * 1000000) AS BIGINT) AS share_ppm, "
        "epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us FROM contract",
    )
    deliveries = _lazy(
        con,
        "SELECT contract, epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us, "
        "energy_kwh FROM contract_delivery",
    )
    covered = market.contract_slots(used, contracts, deliveries).collect()
    return covered, market.contracted(covered.lazy(), contracts).collect()


def _held(con: duckdb.DuckDBPyConnection, as_of: datetime | None) -> pl.LazyFrame:
    """Allocations in force; a run without an end goes on until the last reading of all."""
    last_us = 0 if as_of is None else (as_of - _EPOCH) // timedelta(microseconds=1)
    allocations = _lazy(
        con,
        "SELECT run_id, gpu_key, from_ts, to_ts, share_ppm FROM run_allocation "
        "JOIN gpu USING (gpu_uuid) WHERE superseded_at IS NULL",
    )
    return attribution.spans(allocations, last_us)


def _cut_energy(
    con: duckdb.DuckDBPyConnection, partials: pl.DataFrame, cut: pl.DataFrame, rule: GapRule
) -> pl.LazyFrame:
    """Energy of the slots that allocation borders cut, from their readings once more."""
    inside = [
        energy.intervals(batch.lazy(), rule).collect()
        for batch in _gpu_batches(con, pieces.of_cells(con, cut, "ALL"))
    ]
    # Where a border falls into a slot whose readings were rolled up before.
    inside.append(
        energy.stretch_intervals(
            pieces.rolled_up(con).lazy().join(cut.lazy(), on=["gpu_key", "slot"], how="semi")
        ).collect()
    )
    gpus = cut.lazy().select("gpu_key").unique()
    between = energy.border_intervals(partials.lazy().join(gpus, on="gpu_key", how="semi"), rule)
    return energy.cell_energy(pl.concat([*(i.lazy() for i in inside), between]), cut.lazy())


def _gpu_batches(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[pl.DataFrame]:
    """Batches of an ordered query; each starts with the last row of the one before."""
    last: pl.DataFrame | None = None
    for batch in pieces.batches(con, query):
        yield batch if last is None else pl.concat([last, batch])
        last = batch.tail(1)


def _devices(con: duckdb.DuckDBPyConnection) -> pl.LazyFrame:
    """Every device with its site, and whether it is a GPU."""
    return _lazy(
        con,
        "SELECT gpu_key, host, site, model IS DISTINCT FROM $none AS is_gpu FROM gpu JOIN host USING (host)",
        {"none": NO_GPU},
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
    return embodied.hourly(
        kinds.lazy().join(described.lazy(), on=["model", "server"], nulls_equal=True)
    ).collect()


def _tariffs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Tariffs in order, as `transforms.market.prices` takes them."""
    found = rows(
        con,
        "SELECT *, epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us FROM tariff "
        "ORDER BY position",
    )
    for one in found:
        one["weekdays"] = [WEEKDAYS.index(day) + 1 for day in one["weekdays"].split()]
    return found


def _carriers(con: duckdb.DuckDBPyConnection) -> pl.LazyFrame:
    """The devices among which each host's energy is divided: its GPUs, or else its host device."""
    return _lazy(
        con,
        """
        SELECT gpu_key, host, row_number() OVER w - 1 AS place, count(*) OVER (PARTITION BY host)
            AS count
        FROM (
            SELECT gpu_key, host, model IS DISTINCT FROM $none AS is_gpu,
                bool_or(model IS DISTINCT FROM $none) OVER (PARTITION BY host) AS has_gpus
            FROM gpu
        ) WHERE is_gpu OR NOT has_gpus WINDOW w AS (PARTITION BY host ORDER BY gpu_key)
        """,
        {"none": NO_GPU},
    )


def _limits(con: duckdb.DuckDBPyConnection, factors: Sequence[Factor]) -> pl.LazyFrame:
    gpus = con.execute("SELECT gpu_key, model FROM gpu ORDER BY gpu_key").fetchall()
    models = {model for _, model in gpus}
    idle = {m: round(for_model(factors, "gpu_idle_w", m).low * 1000) for m in models}
    limit = {m: round(for_model(factors, "gpu_limit_w", m).high * 1000) for m in models}
    return pl.LazyFrame(
        [(key, idle[model], limit[model]) for key, model in gpus],
        schema={"gpu_key": pl.Int32, "idle_mw": pl.Int64, "limit_mw": pl.Int64},
        orient="row",
    )


def _sites(con: duckdb.DuckDBPyConnection, at_sites: pl.DataFrame) -> pl.DataFrame:
    """One row per site and slot that has energy, with the settings valid then."""
    needed = at_sites.select("site", "slot").unique()
    sites = _lazy(
        con,
        "SELECT s.*, z.loss, z.loss_low, z.loss_high FROM site AS s JOIN zone AS z USING (zone)",
    ).collect()
    found = (
        needed.join(sites, on="site", how="left")
        .with_columns(start=_start("slot"))
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
