"""Grid series and generation mixes: read, gate, and keep every revision (bitemporal)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import duckdb
import polars as pl

from expectations import grid as grid_suites
from flows.errors import BadInput, UsageError
from flows.files import expand_paths, hash_file
from flows.ingest.gpu import Progress, no_progress
from flows.settings import Settings
from flows.sources.grid import reader as grid_source
from flows.sources.grid.layouts import Options
from flows.sources.grid.series import GridData
from flows.warehouse import registry
from flows.warehouse.frames import register
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_exclusively, store_of

_TABLES = {
    "grid_intensity": (
        ["zone", "signal", "feed"],
        ["intensity_g_per_kwh", "source", "is_estimated", "valid_to"],
        "zone, valid_from, valid_to, signal, intensity_g_per_kwh, NULL, NULL, source, is_estimated",
    ),
    "grid_mix": (
        ["zone", "fuel", "feed"],
        ["generation_kw", "source", "is_estimated", "valid_to"],
        "zone, valid_from, valid_to, fuel, generation_kw, source, is_estimated",
    ),
}
"""Table -> what identifies a series, what may be revised, and the columns to insert."""


def ingest_grid(
    settings: Settings,
    paths: Iterable[str | Path],
    options: Options | None = None,
    layout: str = "auto",
    source: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load files of grid data (docs/formats.md).

    A value that differs from the stored one supersedes it; both are kept. Files already loaded
    with the same options are left alone; bad ones go to quarantine.

    Raises:
        UsageError: zone, time zone or source is missing or unknown.
        WarehouseError: the disk or the warehouse failed.
    """
    options = options or Options()
    if source and source not in settings.grid_sources:
        raise UsageError(
            f"no grid source {source!r} in wattledger.toml", remedy="See docs/formats.md"
        )
    mapping = settings.grid_sources.get(source)
    outcomes = []
    with open_exclusively(store_of(settings), "grid") as con:
        for path in expand_paths(paths):
            progress(path)
            # The same bytes read with other options are other data.
            said = f"{hash_file(path)} {options} {layout} {source}"
            digest = hashlib.sha256(said.encode()).hexdigest()
            if registry.find_loaded(con, [digest]):
                outcomes.append(Outcome(str(path), digest, "known"))
                continue
            try:
                data = grid_source.read(path, options, layout, settings.work / "staging", mapping)
                outcomes.append(_load(con, settings, path, digest, data))
            except BadInput as error:
                outcomes.append(
                    registry.quarantine_file(con, settings, path, digest, "grid", str(error))
                )
    return outcomes


def load_fetched(settings: Settings, path: Path) -> tuple[Outcome, bool]:
    """Load a kept answer of a provider, and say whether it told anything new.

    One that only confirms what is stored leaves no trace in the catalogue: its file can go.

    Raises:
        BadInput: it can't be read or the gate refused it.
    """
    digest = hash_file(path)
    with open_exclusively(store_of(settings), "grid") as con:
        data = grid_source.read(path, Options(), "auto", settings.work / "staging")
        table, frame = _table_of(data)
        if not _differences(con, table, frame):
            return Outcome(str(path), digest, "known", data.rows_read), False
        return _load(con, settings, path, digest, data), True


def _table_of(data: GridData) -> tuple[str, pl.DataFrame]:
    """Where the rows belong, with the feed that they come from."""
    table, frame = (
        ("grid_mix", data.mix) if data.mix is not None else ("grid_intensity", data.intensity)
    )
    assert frame is not None
    return table, frame.with_columns(feed=pl.lit(data.feed))


def _differences(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> int:
    """Rows that are not stored as they are."""
    series, revised, _ = _TABLES[table]
    same = " AND ".join(
        f"s.{name} IS NOT DISTINCT FROM n.{name}" for name in (*series, "valid_from", *revised)
    )
    with register(con, incoming=frame):
        [(count,)] = con.execute(
            f"SELECT count(*) FROM incoming AS n WHERE NOT EXISTS (FROM {table} AS s "
            f"WHERE s.superseded_at IS NULL AND {same})"
        ).fetchall()
    return int(count)


def _load(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    digest: str,
    data: GridData,
) -> Outcome:
    from expectations.gate import Gate, describe

    table, frame = _table_of(data)
    _stage(con, table, frame)
    suite = (
        grid_suites.build_mix_suite()
        if table == "grid_mix"
        else grid_suites.build_intensity_suite(max_g_per_kwh=settings.gate.max_intensity_g_per_kwh)
    )
    verdict = Gate(con).run(suite)
    with transaction(con):
        registry.record_verdict(con, verdict)
        if verdict.success:
            inserted = _promote(con, table)
            registry.record_file(
                con,
                registry.File(
                    segment_id=digest,
                    source_name=str(path),
                    source_format=f"grid:{data.layout}",
                    verdict="loaded",
                    rows_read=data.rows_read,
                    rows_loaded=inserted,
                    rows_duplicate=data.duplicates,
                    first_ts=frame.select(pl.col("valid_from").min()).item(),
                    last_ts=frame.select(pl.col("valid_to").max()).item(),
                ),
            )
    con.execute(f"DROP TABLE staging.{table}")
    if not verdict.success:
        raise BadInput("; ".join(describe(r) for r in verdict.failures), where=str(path))
    return Outcome(
        str(path),
        digest,
        "loaded",
        data.rows_read,
        inserted,
        data.duplicates,
        warnings=[describe(result) for result in verdict.warnings],
    )


def _stage(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    with register(con, incoming=frame):
        con.execute(f"CREATE OR REPLACE TABLE staging.{table} AS FROM incoming")


def _promote(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """Insert what is new, supersede what changed (inside the caller's transaction)."""
    series, revised, columns = _TABLES[table]
    same = " AND ".join(f"s.{c} = n.{c}" for c in (*series, "valid_from"))
    equal = " AND ".join(f"s.{c} IS NOT DISTINCT FROM n.{c}" for c in revised)
    current = f"{table} AS s"
    con.execute(
        f"""
        UPDATE {current} SET superseded_at = now() FROM staging.{table} AS n
        WHERE s.superseded_at IS NULL AND {same} AND NOT ({equal})
        """
    )
    [(inserted,)] = con.execute(
        f"""
        INSERT INTO {table}
        SELECT {columns}, now(), NULL, feed FROM staging.{table} AS n
        WHERE NOT EXISTS (
            SELECT 1 FROM {current} WHERE s.superseded_at IS NULL AND {same}
        )
        """
    ).fetchall()
    return int(inserted)
