"""Compute the candidate: energy, carbon and water of every run, from what the warehouse holds.

Readings pass through once, reduced to stretches within slots that are kept with them (`flows.accounting.stretches`). From these follow
the devices' energy (`flows.accounting.energy`), and from that, by site, the figures. Only what changed is computed again
(`flows.accounting.changes`); `candidate` computes everything at once, for verification and previews.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import duckdb
import polars as pl

from flows.accounting import changes as increment
from flows.accounting import energy as metering
from flows.accounting import stretches as pieces
from flows.accounting.alternatives import alternatives_of
from flows.accounting.energy import (
    Fleet,
    Metered,
    fleet,
    gap_rule,
    last_reading,
    sites_at,
    slot_number,
    start,
)
from flows.accounting.factor_use import factor_use
from flows.accounting.inputs import configure
from flows.accounting.intensity import Known, slot_signals
from flows.accounting.stretches import Progress
from flows.factors import Factor, effective
from flows.settings import WEEKDAYS, Settings
from flows.warehouse import registry
from flows.warehouse.digests import digest_factors, digest_inputs
from flows.warehouse.frames import query_rows, register
from flows.warehouse.locks import FIGURES, transaction
from flows.warehouse.store import open_exclusively, store_of
from transforms import METHOD_VERSION, attribution, changes, footprint, host, market
from transforms.attribution import METERED
from transforms.constants import SLOT_US
from transforms.energy import GapRule
from transforms.schema import TABLES
from transforms.sensitivity import compute_sensitivity


@dataclass(frozen=True)
class Computed:
    """What a computation found, and how much of it had to be computed."""

    readings: int
    runs: int
    slots: int
    as_of: datetime | None
    recomputed: int
    """Slots of GPUs that were computed again; `slots` are all of them."""


PART = 1_000_000
"""Cells (a device in a slot) that are computed at once: some 500 MB."""


class Engine(Protocol):
    """Where the heavy parts are computed: each concerns some files, or some devices and slots, alone."""

    def stretches(
        self,
        con: duckdb.DuckDBPyConnection,
        batches: Sequence[Sequence[int]],
        rule: GapRule,
        progress: Progress,
    ) -> Iterable[pl.DataFrame]:
        """The readings of batches of files (segment keys), reduced."""

    def metered(
        self, con: duckdb.DuckDBPyConnection, of: Fleet, parts: Sequence[pl.DataFrame]
    ) -> Iterable[tuple[pl.DataFrame, Metered]]:
        """Windows of a fleet, each with what its devices drew."""


class Here:
    """One after the other, in this process."""

    def stretches(
        self,
        con: duckdb.DuckDBPyConnection,
        batches: Sequence[Sequence[int]],
        rule: GapRule,
        progress: Progress,
    ) -> Iterator[pl.DataFrame]:
        for keys in batches:
            yield pieces.by_segment(con, pieces.among(keys), rule, progress)

    def metered(
        self, con: duckdb.DuckDBPyConnection, of: Fleet, parts: Sequence[pl.DataFrame]
    ) -> Iterator[tuple[pl.DataFrame, Metered]]:
        for windows in parts:
            yield windows, metering.metered(con, of, windows)


_HERE = Here()


def compute(
    settings: Settings,
    progress: Progress = lambda rows: None,
    engine: Engine = _HERE,
    *,
    everything: bool = False,
) -> Computed:
    """Bring the candidate figures up to date with everything in the warehouse.

    Changes all tables of `candidate` in one transaction: the figures are those of a computation from nothing, whatever
    was there before. With `everything` they are computed from nothing.

    Raises:
        SettingsError: a host belongs to no site, or site periods overlap.
        BadInput: a site's zone has no grid data and no fallback.
        WarehouseError: the disk or the warehouse failed.
    """
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        registry.declare_gpus(con, settings)
        factors = effective(settings)
        recomputed: int | None = None
        while recomputed is None:
            with transaction(con, FIGURES):
                pieces.keep(con, gap_rule(settings), progress, engine.stretches)
            # Settings and figures change together, or not at all.
            with transaction(con, FIGURES):
                if pieces.waiting(con).is_empty():
                    configure(con, settings, factors)
                    recomputed = _update(con, settings, factors, engine, everything=everything)
                    con.execute("DELETE FROM computation")
                    con.execute(
                        "INSERT INTO computation VALUES (now(), ?, ?, ?)",
                        [METHOD_VERSION, digest_inputs(con), digest_factors(con)],
                    )
        [(readings, slots, runs)] = con.execute(
            "SELECT (SELECT count(*) FROM gpu_reading), (SELECT count(*) FROM gpu_slot), "
            "(SELECT count(*) FROM run_footprint WHERE kind = 'run')"
        ).fetchall()
        return Computed(readings, runs, slots, last_reading(con), recomputed)


def _update(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    engine: Engine,
    *,
    everything: bool,
) -> int:
    """Compute again what changed; gives the number of slots of GPUs that this took."""
    of_what = increment.facts(con, settings)
    if everything or con.execute("SELECT facts FROM computed_facts").fetchall() != [(of_what,)]:
        increment.start_over(con)
    since = _since(con)
    of = fleet(con, settings, factors)
    windows = increment.changed(con, of)
    sizes = of.devices.group_by("host_group").agg(devices=pl.len().cast(pl.Int64))
    touched, use = [_no_cells()], [con.execute("FROM device_energy LIMIT 0").pl()]
    count = 0
    for part, found in engine.metered(con, of, changes.cut_into_parts(windows, sizes, PART)):
        count += found.gpu_slot.height
        before = _replace_part(con, of, part, found)
        touched += [before.touched, found.site_energy.select("site", "slot")]
        use += [_use(found.gpu_slot, found.energy_slot), before.use]
    _add_use(con, pl.concat(use))
    _update_strangers(con)
    _update_sites(con, settings, factors, of, pl.concat(touched).unique(), since)
    increment.remember(con, of, of_what, last_reading(con))
    return count


def _no_cells() -> pl.DataFrame:
    return pl.DataFrame(schema={"site": pl.String, "slot": pl.Int64})


def _since(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """When the candidate was computed; None where there is none."""
    found = con.execute(
        "SELECT computed_at FROM computation WHERE EXISTS (FROM computed_facts)"
    ).fetchall()
    return found[0][0] if found else None


# Devices --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Before:
    """What a part held before it was replaced."""

    touched: pl.DataFrame
    """Its sites and slots."""
    use: pl.DataFrame
    """Rows of device_energy to take off."""


def _replace_part(
    con: duckdb.DuckDBPyConnection, of: Fleet, windows: pl.DataFrame, found: Metered
) -> _Before:
    """Write what the devices of a part drew in place of what stands there."""
    chosen = of.devices.join(windows, on="host_group").with_columns(
        start("first").alias("first_start"), start("last").alias("last_start")
    )
    with register(
        con, given=chosen.select("gpu_key", "host", "host_group", "first_start", "last_start")
    ):
        con.execute("CREATE OR REPLACE TEMP TABLE part AS FROM given")
    # The columns of METERED and filled_mj, by what is summed.
    use = [
        f"SELECT {what}, gpu_key, -count(*) AS slots, {_negative(METERED)}, {filled} AS filled_mj "
        f"FROM {table} AS t SEMI JOIN part AS p ON {_IN_PART.format(key='gpu_key')} GROUP BY ALL"
        for table, what, filled in (
            ("gpu_slot", "'metered' AS kind, NULL AS run_id", "0::BIGINT"),
            ("energy_slot", "kind, run_id", "-sum(filled_mj)::BIGINT"),
        )
    ]
    before = con.execute(" UNION ALL ".join(use)).pl()
    touched = con.execute(
        f"SELECT DISTINCT site, epoch_us(slot_start) // {SLOT_US} AS slot FROM site_energy_slot AS t "
        f"SEMI JOIN part AS p ON {_IN_PART.format(key='host_group')}"
    ).pl()
    for table, frame, key in (
        ("gpu_slot", found.gpu_slot, "gpu_key"),
        ("energy_slot", _with_start(found.energy_slot), "gpu_key"),
        ("host_slot", _with_start(found.host_slot), "host"),
        ("host_energy_slot", _with_start(found.host_energy_slot), "host"),
        ("site_energy_slot", _with_start(found.site_energy), "host_group"),
    ):
        con.execute(
            f"DELETE FROM {table} AS t WHERE EXISTS "
            f"(FROM part AS p WHERE {_IN_PART.format(key=key)})"
        )
        _insert(con, table, frame)
    con.execute("DROP TABLE part")
    return _Before(touched, before)


_IN_PART = "p.{key} = t.{key} AND t.slot_start BETWEEN p.first_start AND p.last_start"


def _negative(columns: Iterable[str]) -> str:
    return ", ".join(f"-sum({name})::BIGINT AS {name}" for name in columns)


def _use(slots: pl.DataFrame, energy: pl.DataFrame) -> pl.DataFrame:
    """Rows of device_energy: what GPUs drew, and who held it."""
    metered = slots.select(
        pl.lit("metered").alias("kind"),
        pl.lit(None, pl.String).alias("run_id"),
        "gpu_key",
        *METERED,
        filled_mj=pl.lit(0, pl.Int64),
    )
    held = energy.select(metered.columns)
    return _summed(pl.concat([metered, held]).with_columns(slots=pl.lit(1, pl.Int64)))


def _summed(use: pl.DataFrame) -> pl.DataFrame:
    sums = ["slots", *METERED, "filled_mj"]
    return (
        use.group_by("kind", "run_id", "gpu_key")
        .agg(pl.col(sums).sum())
        .select("kind", "run_id", "gpu_key", *sums)
    )


def _add_use(con: duckdb.DuckDBPyConnection, change: pl.DataFrame) -> None:
    """Add to device_energy what became more and what became less, and hold the sums against each other."""
    change = _summed(change.select(TABLES["device_energy"].columns))
    with register(con, change=change):
        same = (
            "c.kind = t.kind AND c.gpu_key = t.gpu_key AND c.run_id IS NOT DISTINCT FROM t.run_id"
        )
        stored = con.execute(
            f"SELECT t.* FROM device_energy AS t SEMI JOIN change AS c ON {same}"
        ).pl()
        con.execute(f"DELETE FROM device_energy AS t WHERE EXISTS (FROM change AS c WHERE {same})")
    _insert(con, "device_energy", _summed(pl.concat([stored, change])).filter(pl.col("slots") != 0))
    with register(con, change=change.select("gpu_key").unique()):
        use = con.execute(
            "SELECT t.* FROM device_energy AS t SEMI JOIN change AS c USING (gpu_key)"
        ).pl()
        con.execute("DELETE FROM conservation WHERE gpu_key IN (SELECT gpu_key FROM change)")
    _insert(con, "conservation", _conserved(use))


def _conserved(use: pl.DataFrame) -> pl.DataFrame:
    metered = pl.col("kind") == "metered"
    return attribution.check_conservation(
        use.lazy().filter(metered), use.lazy().filter(~metered)
    ).collect()


def _update_strangers(con: duckdb.DuckDBPyConnection) -> None:
    """Hosts of which no device is known yet: what they drew is kept, and is in no figure."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE stranger AS SELECT DISTINCT host FROM host_reading "
        f"WHERE {increment.FRESH} AND host NOT IN (SELECT host FROM gpu)"
    )
    found = metering.host_readings_of(con, "SEMI JOIN stranger USING (host)")
    con.execute("DELETE FROM host_slot WHERE host IN (FROM stranger)")
    _insert(con, "host_slot", _with_start(host.sum_host_slots(found.lazy()).collect()))
    con.execute("DROP TABLE stranger")


# Sites -----------------------------------------------------------------------------------------------


def _update_sites(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    of: Fleet,
    touched: pl.DataFrame,
    since: datetime | None,
) -> None:
    """Figures of the sites and slots that were touched, or in which grid or contracts are others now."""
    known = Known(con, settings, factors)
    every = con.execute(
        f"SELECT DISTINCT site, epoch_us(slot_start) // {SLOT_US} AS slot FROM site_energy_slot"
    ).pl()
    sites = sites_at(of.sites, every)
    signals, sources = slot_signals(known, sites.select("zone", "slot").unique())
    other = _exchange(con, "slot_signal", signals, ["zone", "slot"])
    _exchange(con, "slot_source", sources, ["zone", "slot"])
    touched = pl.concat(
        [touched, sites.join(other, on=["zone", "slot"], how="semi").select("site", "slot")]
    ).unique()
    facility = _facility(con, sites, touched)
    used = pl.concat([_used(con, touched), _grid_used(facility)])
    contract_slots, contracted = _contracts(con, used.lazy())
    other = _exchange(con, "contract_slot", contract_slots, ["site", "slot"])
    more = other.join(touched, on=["site", "slot"], how="anti")
    facility = pl.concat([facility, _facility(con, sites, more)])
    touched = pl.concat([touched, more])

    priced = market.price_slots(facility.lazy(), _tariffs(con)).collect().lazy()
    by_run = footprint.compute_footprint_slots(
        facility.lazy(), signals.lazy(), contracted.lazy(), priced
    ).collect()
    changed = _replace_figures(con, touched, by_run)
    _update_runs(con, known, of, changed, sites, signals, sources, contracted, since)


def _facility(
    con: duckdb.DuckDBPyConnection, sites: pl.DataFrame, cells: pl.DataFrame
) -> pl.DataFrame:
    """`transforms.footprint.compute_facility_slots` of some sites and slots."""
    with register(con, cells=cells.with_columns(slot_start=start("slot"))):
        found = _site_energy(con, "SEMI JOIN cells USING (site, slot_start)")
    return footprint.compute_facility_slots(found.lazy(), sites.lazy()).collect()


def _site_energy(con: duckdb.DuckDBPyConnection, among: str) -> pl.DataFrame:
    parts = con.execute(f"SELECT t.* FROM site_energy_slot AS t {among}").pl()
    return footprint.sum_sites(parts.lazy().with_columns(slot=slot_number())).collect()


def _grid_used(facility: pl.DataFrame) -> pl.DataFrame:
    return facility.group_by("site", "slot").agg(pl.col("grid_mj").sum())


def _used(con: duckdb.DuckDBPyConnection, touched: pl.DataFrame) -> pl.DataFrame:
    """Energy from the grid at all other sites and slots, which contracts are divided over."""
    found = con.execute(
        f"SELECT site, epoch_us(slot_start) // {SLOT_US} AS slot, sum(grid_mj)::BIGINT AS grid_mj "
        "FROM footprint_slot WHERE EXISTS (FROM contract) GROUP BY ALL"
    ).pl()
    return found.join(touched, on=["site", "slot"], how="anti")


def _exchange(
    con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame, keys: list[str]
) -> pl.DataFrame:
    """Make a table hold a frame, touching only what differs; gives the keys of that."""
    columns = TABLES[table].columns
    now = _with_start(frame).select(columns)
    stored = con.execute(f"SELECT {', '.join(columns)} FROM {table}").pl()
    now = now.cast(dict(stored.schema))  # type: ignore[arg-type]
    names = ["slot_start" if key == "slot" else key for key in keys]
    other = pl.concat(
        [
            now.join(stored, on=columns, how="anti", nulls_equal=True).select(names),
            stored.join(now, on=columns, how="anti", nulls_equal=True).select(names),
        ]
    ).unique()
    if other.height:
        _delete(con, table, other)
        _insert(con, table, now.join(other, on=names, how="semi"))
    return other.with_columns(slot=slot_number()).select(keys)


def _replace_figures(
    con: duckdb.DuckDBPyConnection, touched: pl.DataFrame, by_run: pl.DataFrame
) -> pl.DataFrame:
    """Write figures in place of those of some sites and slots; gives the runs (kind, run_id) concerned."""
    cells = touched.select("site", slot_start=start("slot"))
    with register(con, cells=cells):
        before = con.execute(
            "SELECT DISTINCT kind, run_id FROM footprint_slot SEMI JOIN cells USING (site, slot_start)"
        ).pl()
    _delete(con, "footprint_slot", cells)
    _insert(con, "footprint_slot", _with_start(by_run))
    return pl.concat([before, by_run.select("kind", "run_id")]).unique()


def _update_runs(
    con: duckdb.DuckDBPyConnection,
    known: Known,
    of: Fleet,
    changed: pl.DataFrame,
    sites: pl.DataFrame,
    signals: pl.DataFrame,
    sources: pl.DataFrame,
    contracted: pl.DataFrame,
    since: datetime | None,
) -> None:
    """Totals and what else is said of whole runs, for those with other figures."""
    as_of = last_reading(con)
    with register(con, changed_run=changed):
        mine = "SEMI JOIN changed_run AS c ON c.kind = t.kind AND c.run_id IS NOT DISTINCT FROM t.run_id"
        by_run = (
            con.execute(f"SELECT t.* FROM footprint_slot AS t {mine}")
            .pl()
            .with_columns(slot=slot_number())
        )
        use = con.execute(f"SELECT t.* FROM device_energy AS t {mine}").pl()
        energy = _site_energy(con, mine + " WHERE t.kind = 'run'")
    totals = footprint.sum_runs(by_run.lazy(), _gpus(use.lazy(), of)).collect()
    priced = market.price_slots(energy.lazy(), _tariffs(con)).collect().lazy()
    moved = compute_sensitivity(
        energy.lazy(), sites.lazy(), signals.lazy(), contracted.lazy(), priced
    ).collect()
    for table, frame in (
        ("run_footprint", _with_ends(totals)),
        ("factor_use", factor_use(known, by_run, sources, use, of.made)),
    ):
        _delete(con, table, changed)
        _insert(con, table, frame)
    runs = changed.filter(kind="run").select("run_id")
    _delete(con, "run_sensitivity", runs)
    _insert(con, "run_sensitivity", moved)
    again = _alternatives_due(con, known, runs, since)
    _delete(con, "run_alternative", again)
    with register(con, again=again):
        slots = con.execute(
            "SELECT t.* FROM footprint_slot AS t SEMI JOIN again USING (run_id) WHERE t.kind = 'run'"
        ).pl()
    _insert(
        con,
        "run_alternative",
        alternatives_of(known, slots.with_columns(slot=slot_number()), as_of),
    )
    _exchange_embodied(con, of)


def _gpus(use: pl.LazyFrame, of: Fleet) -> pl.LazyFrame:
    """How many GPUs took part in each run."""
    return (
        use.join(of.devices.lazy().filter("is_gpu"), on="gpu_key", how="semi")
        .group_by("kind", "run_id")
        .agg(gpus=pl.col("gpu_key").n_unique())
    )


def _alternatives_due(
    con: duckdb.DuckDBPyConnection, known: Known, changed: pl.DataFrame, since: datetime | None
) -> pl.DataFrame:
    """Runs whose alternatives are others: their figures, their end, or the grid around them changed."""
    with register(con, changed_run=changed):
        return con.execute(
            """
            FROM changed_run
            UNION SELECT run_id FROM training_run WHERE $since::TIMESTAMPTZ IS NULL
                OR loaded_at > $since OR superseded_at > $since
                OR ended_at > coalesce((SELECT max(as_of) FROM computed_facts), '-infinity')
            UNION SELECT f.run_id FROM run_footprint AS f JOIN (
                SELECT min(valid_from) AS first, max(valid_to) AS last FROM (
                    SELECT valid_from, valid_to, fetched_at, superseded_at FROM grid_intensity UNION ALL
                    SELECT valid_from, valid_to, fetched_at, superseded_at FROM grid_mix)
                WHERE fetched_at > $since OR superseded_at > $since
            ) AS g ON f.first_slot - to_hours($hours) < g.last
                AND f.last_slot + to_hours($hours) + to_microseconds($slot_us) > g.first
            WHERE f.kind = 'run'
            """,
            {"since": since, "hours": known.settings.grid.shift_h, "slot_us": SLOT_US},
        ).pl()


def _exchange_embodied(con: duckdb.DuckDBPyConnection, of: Fleet) -> None:
    columns = TABLES["gpu_embodied"].columns
    stored = con.execute("FROM gpu_embodied").pl().select(columns)
    now = of.made.select(columns).cast(dict(stored.schema))  # type: ignore[arg-type]
    if not now.sort("gpu_key").equals(stored.sort("gpu_key")):
        con.execute("DELETE FROM gpu_embodied")
        _insert(con, "gpu_embodied", now)


def _insert(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    with register(con, computed=frame.select(TABLES[table].columns)):
        con.execute(f"INSERT INTO {table} FROM computed")


def _delete(con: duckdb.DuckDBPyConnection, table: str, keys: pl.DataFrame) -> None:
    """Delete the rows whose columns have the values of some row of `keys`."""
    same = " AND ".join(f"k.{name} IS NOT DISTINCT FROM t.{name}" for name in keys.columns)
    with register(con, keys=keys):
        con.execute(f"DELETE FROM {table} AS t WHERE EXISTS (FROM keys AS k WHERE {same})")


def _with_start(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(slot_start=start("slot"))


def _with_ends(totals: pl.DataFrame) -> pl.DataFrame:
    return totals.with_columns(
        start("first_slot").alias("first_slot"), start("last_slot").alias("last_slot")
    )


# All at once -----------------------------------------------------------------------------------------


def candidate(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    factors: Sequence[Factor],
    partials: pl.DataFrame,
    grid_used: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """All candidate tables that are published, by name, from stretches of readings and what the warehouse holds.

    `grid_used`: energy from the grid by site and slot (site, slot, grid_mj), over which contracts are
    divided, where the warehouse holds only a part of it.
    """
    of = fleet(con, settings, factors)
    found = metering.of_partials(con, of, partials, metering.host_readings_of(con))
    use = _use(found.gpu_slot, found.energy_slot)
    at_sites = footprint.sum_sites(found.site_energy.lazy()).collect()
    sites = sites_at(of.sites, at_sites)
    known = Known(con, settings, factors)
    signals, sources = slot_signals(known, sites.select("zone", "slot").unique())
    facility = footprint.compute_facility_slots(at_sites.lazy(), sites.lazy()).collect()
    used = _grid_used(facility) if grid_used is None else grid_used
    contract_slots, contracted = _contracts(con, used.lazy())
    # Once: the sensitivity goes over it many times.
    priced = market.price_slots(at_sites.lazy(), _tariffs(con)).collect().lazy()
    by_run = footprint.compute_footprint_slots(
        facility.lazy(), signals.lazy(), contracted.lazy(), priced
    ).collect()
    held = use.lazy().filter(pl.col("kind") != "metered")
    totals = footprint.sum_runs(by_run.lazy(), _gpus(held, of)).collect()
    return {
        "gpu_slot": found.gpu_slot,
        "host_energy_slot": _with_start(found.host_energy_slot),
        "host_slot": _with_start(found.host_slot),
        "energy_slot": _with_start(found.energy_slot),
        "slot_signal": _with_start(signals),
        "slot_source": _with_start(sources),
        "contract_slot": _with_start(contract_slots),
        "footprint_slot": _with_start(by_run),
        "run_footprint": _with_ends(totals),
        "gpu_embodied": of.made,
        "conservation": _conserved(use),
        "run_alternative": alternatives_of(known, by_run, last_reading(con)),
        "run_sensitivity": compute_sensitivity(
            at_sites.lazy(), sites.lazy(), signals.lazy(), contracted.lazy(), priced
        ).collect(),
        "factor_use": factor_use(known, by_run, sources, held.collect(), of.made),
    }


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
    covered = market.match_contracts(used, contracts, deliveries).collect()
    return covered, market.sum_contracts(covered.lazy(), contracts).collect()


def _tariffs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Tariffs in order, as `transforms.market.prices` takes them."""
    found = query_rows(
        con,
        "SELECT *, epoch_us(valid_from) AS first_us, epoch_us(valid_to) AS last_us FROM tariff "
        "ORDER BY position",
    )
    for one in found:
        one["weekdays"] = [WEEKDAYS.index(day) + 1 for day in one["weekdays"].split()]
    return found
