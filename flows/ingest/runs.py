"""Training runs and their allocations, from tables, Slurm's accounting, codecarbon's history and run records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import expand_paths, hash_file, is_in_spool, open_plain_text, read_first_line
from flows.ingest.codecarbon import import_history
from flows.ingest.progress import Progress, no_progress
from flows.ingest.run_records import load_records
from flows.ingest.run_store import store_runs
from flows.settings import Settings
from flows.sources.runs import codecarbon, records, sacct
from flows.sources.runs import table as run_table
from flows.sources.runs.table import Gpus, Run
from flows.warehouse import registry
from flows.warehouse.registry import Gpu, Outcome
from flows.warehouse.store import open_exclusively, store_of
from transforms.constants import NO_GPU


def ingest_runs(
    settings: Settings,
    paths: Iterable[str | Path],
    tz: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load run tables, run records, accounting and histories (docs/formats.md).

    A run that changed supersedes its stored revision. Of a collector's spool, only run records are
    taken.

    Args:
        settings: The project.
        paths: Files, folders and patterns.
        tz: Time zone of times that name none.
        progress: Called with each file.

    Returns:
        What became of each file.

    Raises:
        UsageError: a time without zone, and none given.
        WarehouseError: the disk or the warehouse failed.
    """
    outcomes = []
    record_files: list[Path] = []
    with open_exclusively(store_of(settings), "runs") as con:
        registry.declare_gpus(con, settings)
        for path in expand_paths(paths):
            if is_in_spool(path) and path.parent.name != "runs":
                continue
            progress(path)
            if records.is_record(path):
                record_files.append(path)
            else:
                outcomes.append(_load_file(con, settings, path, tz))
        outcomes += load_records(con, settings, record_files)
    return outcomes


def _load_file(con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, tz: str) -> Outcome:
    """Load a file with runs, of whatever kind; one that cannot be used goes to quarantine."""
    gpus = _list_gpus(con)
    header = read_first_line(path)
    is_accounting = sacct.is_sacct(header)
    # What can be read from accounting depends on the GPUs that are known by then.
    devices = f" {gpus.devices}" if is_accounting else ""
    digest = hashlib.sha256(f"{hash_file(path)} runs {tz}{devices}".encode()).hexdigest()
    if registry.find_loaded(con, [digest]):
        return Outcome(str(path), digest, "known")
    try:
        if is_accounting:
            return _load_jobs(con, settings, path, digest, gpus, tz)
        if codecarbon.is_emissions(header):
            runs, devices_of_runs = import_history(settings, path, digest, tz)
            file = _describe_file(path, digest, "codecarbon", runs)
            return _store_file(con, settings, file, runs, devices_of_runs)
        runs = run_table.read(path, gpus, tz, settings.work / "staging")
        return _store_file(con, settings, _describe_file(path, digest, "runs", runs), runs)
    except BadInput as error:
        return registry.quarantine_file(con, settings, path, digest, "runs", str(error))


def _list_gpus(con: duckdb.DuckDBPyConnection) -> Gpus:
    """The GPUs that run tables can name."""
    rows = con.execute(
        "SELECT gpu_uuid, host, gpu_index FROM gpu WHERE model IS DISTINCT FROM $none ORDER BY ALL",
        {"none": NO_GPU},
    ).fetchall()
    return Gpus(tuple(rows))


def _load_jobs(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    digest: str,
    gpus: Gpus,
    tz: str,
) -> Outcome:
    """Load Slurm jobs; those without GPUs, or on hosts whose GPUs are not known, are left out.

    Raises:
        BadInput: a line cannot be understood, or the gate refuses.
    """
    with open_plain_text(path, settings.work / "staging") as plain:
        jobs = sacct.read(path, plain, gpus, tz)
    file = _describe_file(path, digest, "sacct", jobs.runs)
    file = replace(file, rows_read=jobs.rows, rows_skipped=jobs.rows - len(jobs.runs))
    outcome = _store_file(con, settings, file, jobs.runs)
    outcome.warnings = jobs.warnings()
    return outcome


def _describe_file(
    path: Path, digest: str, source_format: str, runs: Sequence[Run]
) -> registry.File:
    """The registry row of a file of runs, before it is known how many are new."""
    return registry.File(
        segment_id=digest,
        source_name=str(path),
        source_format=source_format,
        verdict="loaded",
        rows_read=len(runs),
        first_ts=min((run.started_at for run in runs), default=None),
        last_ts=max((run.ended_at or run.started_at for run in runs), default=None),
    )


def _store_file(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    file: registry.File,
    runs: Sequence[Run],
    gpus: Sequence[Gpu] = (),
) -> Outcome:
    """Store the runs of a file, GPUs that only they name, and the file's row in the registry.

    Raises:
        BadInput: the gate refuses; nothing but the verdict was stored.
    """

    def count(stored: int) -> registry.File:
        return replace(file, rows_loaded=stored, rows_duplicate=len(runs) - stored)

    def record(stored: int) -> None:
        registry.add_gpus(con, gpus)
        registry.record_file(con, count(stored))

    return count(store_runs(con, settings, runs, file.source_name, record)).as_outcome()
