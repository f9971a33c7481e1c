"""Grid series and generation mixes: read, gate, and keep every revision (bitemporal)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from flows.errors import BadInput, UsageError
from flows.files import expand_paths, hash_file, name_for_people
from flows.ingest.grid_report import describe_grid_data, warn_of_incomplete, warn_of_zones
from flows.ingest.progress import Progress, no_progress
from flows.ingest.suites import configure_grid_suite
from flows.settings import Settings
from flows.sources.grid import reader as grid_source
from flows.sources.grid.layouts import Options
from flows.sources.grid.series import GridData, Limits
from flows.sources.verdict import identify_file, judge_file
from flows.warehouse import registry
from flows.warehouse.frames import register, stage
from flows.warehouse.locks import MOMENT, transaction
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_exclusively, store_of


@dataclass(frozen=True)
class _Series:
    """A table of grid data: what identifies an interval, and what later files may revise.

    The same value under another source (a file by another name) revises nothing.
    """

    table: str
    key: tuple[str, ...]
    revised: tuple[str, ...]
    described: tuple[str, ...] = ("source",)


_INTENSITY = _Series(
    "grid_intensity",
    ("zone", "signal", "feed", "valid_from"),
    ("intensity_g_per_kwh", "is_estimated", "valid_to"),
)
_MIX = _Series(
    "grid_mix",
    ("zone", "fuel", "feed", "valid_from"),
    ("generation_kw", "is_estimated", "valid_to"),
)


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

    Args:
        settings: The project.
        paths: Files, folders and patterns.
        options: What the files do not say of themselves.
        layout: Name of their layout; `auto` recognises it.
        source: Name of a [grid_sources] table of wattledger.toml that describes the files.
        progress: Called with each file.

    Returns:
        What became of each file.

    Raises:
        UsageError: zone, time zone or source is missing or unknown.
        WarehouseError: the disk or the warehouse failed.
    """
    options = options or Options()
    if source and source not in settings.grid_sources:
        raise UsageError(
            f"no grid source {source!r} in wattledger.toml", remedy="See docs/formats.md"
        )
    grid_source.check_options(options)
    # The same bytes read with other options are other data.
    given = f"{options} {layout} {source}"

    def read(path: Path) -> GridData:
        mapping, scratch = settings.grid_sources.get(source), settings.work / "staging"
        return grid_source.read(path, options, layout, scratch, mapping, set_limits(settings))

    outcomes = []
    with open_exclusively(store_of(settings), "grid") as con:
        for path in expand_paths(paths):
            progress(path)
            outcomes.append(_load_file(con, settings, path, given, read))
        loaded = [outcome for outcome in outcomes if outcome.verdict == "loaded"]
        if loaded:
            loaded[-1].warnings += warn_of_zones(con, settings)
    return outcomes


def _load_file(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    given: str,
    read: Callable[[Path], GridData],
) -> Outcome:
    """Load a file that is new; one that cannot be used goes to quarantine."""
    try:
        content = identify_file(path)
    except BadInput as error:
        return registry.refuse_unread(path, error)
    digest = hashlib.sha256(f"{content} {given}".encode()).hexdigest()
    if registry.find_loaded(con, [digest]):
        return Outcome(name_for_people(path), digest, "known")
    try:
        with judge_file(path):
            data = read(path)
        return _load(con, settings, path, digest, data)
    except BadInput as error:
        return registry.quarantine_file(con, settings, path, digest, "grid", str(error))


def set_limits(settings: Settings) -> Limits:
    """What is believed of a file of grid data."""
    return Limits(settings.ingest.max_bad_rows_share, settings.gate.max_intensity_g_per_kwh)


def load_fetched(settings: Settings, path: Path) -> tuple[Outcome, bool]:
    """Load a kept answer of a provider, and say whether it holds anything new.

    One that only confirms what is stored leaves no trace in the registry: its file can go.

    Raises:
        BadInput: it cannot be read, or the gate refuses it.
    """
    digest = hash_file(path)
    with open_exclusively(store_of(settings), "grid") as con:
        with judge_file(path):
            data = grid_source.read(
                path, Options(), "auto", settings.work / "staging", limits=set_limits(settings)
            )
        if not _count_new(con, data):
            known = Outcome(
                name_for_people(path),
                digest,
                "known",
                data.rows_read,
                rows_duplicate=data.rows.height + data.duplicates,
                rows_skipped=sum(data.faults.skipped.values()),
            )
            return registry.add_row_faults(known, data.faults), False
        return _load(con, settings, path, digest, data), True


def _series_of(data: GridData) -> _Series:
    return _INTENSITY if data.mix is None else _MIX


def _count_new(con: duckdb.DuckDBPyConnection, data: GridData) -> int:
    """Count the rows that are not stored as they are."""
    series = _series_of(data)
    same = " AND ".join(
        f"s.{name} IS NOT DISTINCT FROM n.{name}" for name in (*series.key, *series.revised)
    )
    with register(con, new_rows=data.rows.with_columns(feed=pl.lit(data.feed))):
        [(count,)] = con.execute(
            f"SELECT count(*) FROM new_rows AS n WHERE NOT EXISTS (FROM {series.table} AS s "
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
    """Check grid data and, if it passes, store it with its row in the registry.

    Raises:
        BadInput: a check failed; nothing but the verdict was stored.
    """
    from expectations.gate import Gate, describe_result

    series, rows = _series_of(data), data.rows.with_columns(feed=pl.lit(data.feed))
    with stage(con, **{series.table: rows}):
        verdict = Gate(con).run(configure_grid_suite(settings, series.table))
        with transaction(con):
            registry.record_verdict(con, verdict)
            if verdict.success:
                new = _store(con, series)
                file = registry.File(
                    segment_id=digest,
                    source_name=name_for_people(path),
                    source_format=f"grid:{data.layout}",
                    verdict="loaded",
                    rows_read=data.rows_read,
                    rows_loaded=new,
                    rows_duplicate=rows.height - new + data.duplicates,
                    rows_skipped=sum(data.faults.skipped.values()),
                    first_ts=rows.select(pl.col("valid_from").min()).item(),
                    last_ts=rows.select(pl.col("valid_to").max()).item(),
                )
                registry.record_file(con, file)
                registry.quarantine_rows(con, digest, data.faults.rows)
    if not verdict.success:
        raise BadInput("; ".join(describe_result(r) for r in verdict.failures), where=str(path))
    outcome = registry.add_row_faults(file.as_outcome(), data.faults)
    outcome.understood = describe_grid_data(data)
    outcome.warnings += [
        *data.warnings,
        *(describe_result(result) for result in verdict.warnings),
        *warn_of_incomplete(con, settings, data),
    ]
    return outcome


def _store(con: duckdb.DuckDBPyConnection, series: _Series) -> int:
    """Supersede what the staged rows change, and insert what is new (inside the caller's transaction)."""
    columns = ", ".join((*series.key, *series.revised, *series.described))
    same = " AND ".join(f"s.{name} = n.{name}" for name in series.key)
    equal = " AND ".join(f"s.{name} IS NOT DISTINCT FROM n.{name}" for name in series.revised)
    con.execute(
        f"""
        UPDATE {series.table} AS s SET superseded_at = {MOMENT} FROM staging.{series.table} AS n
        WHERE s.superseded_at IS NULL AND {same} AND NOT ({equal})
        """
    )
    [(count,)] = con.execute(
        f"""
        INSERT INTO {series.table} BY NAME
        SELECT {columns}, {MOMENT} AS fetched_at FROM staging.{series.table} AS n
        WHERE NOT EXISTS (
            SELECT 1 FROM {series.table} AS s WHERE s.superseded_at IS NULL AND {same}
        )
        """
    ).fetchall()
    return int(count)
