"""Training runs and their allocations, from tables, Slurm's accounting, codecarbon's history and run records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import (
    expand_paths,
    find_matching,
    is_in_spool,
    name_for_people,
    open_plain_text,
    read_bounded,
)
from flows.ingest.codecarbon import import_history, settle_history
from flows.ingest.progress import Progress, no_progress
from flows.ingest.run_records import load_records
from flows.ingest.run_store import store_runs
from flows.ingest.slurm_runs import settle_jobs
from flows.rows import count_of
from flows.settings import Settings
from flows.sources.runs import codecarbon, records, sacct
from flows.sources.runs import table as run_table
from flows.sources.runs.record_files import find_user, has_collector
from flows.sources.runs.run import Gpus, KnownGpu, RunsRead
from flows.sources.verdict import identify_file, judge_file
from flows.times import describe_span, parse_zone
from flows.warehouse import registry
from flows.warehouse.registry import Gpu, Outcome
from flows.warehouse.store import open_exclusively, store_of
from transforms.constants import NO_GPU, PPM
from wattledger.runs.records import MAX_BYTES
from wattledger.spool.spool import RUNS

_HEAD_LINES = 20
"""Lines in which a header is looked for: programs write messages before it."""


def ingest_runs(
    settings: Settings,
    paths: Iterable[str | Path],
    tz: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load run tables, run records, accounting and histories (docs/formats.md).

    A run that changed supersedes its stored revision. Of a collector's spool, only run records are
    taken. Whatever is wrong with one file is that file's verdict.

    Args:
        settings: The project.
        paths: Files, folders and patterns.
        tz: Time zone of times that name none.
        progress: Called with each file.

    Returns:
        What became of each file.

    Raises:
        UsageError: an unknown time zone.
        WarehouseError: the disk or the warehouse failed.
    """
    if tz:
        parse_zone(tz)
    outcomes = []
    record_files: list[Path] = []
    with open_exclusively(store_of(settings), "runs") as con:
        registry.declare_gpus(con, settings)
        for path in _expand(paths):
            # Elsewhere, `runs/2024/table.json` may be anything.
            is_users = find_user(path) is not None and has_collector(path.parents[2])
            if is_in_spool(path) and path.parent.name != RUNS and not is_users:
                continue
            progress(path)
            if path.suffix == ".json" and (is_users or _is_record(path)):
                record_files.append(path)
            else:
                outcomes.append(_load_file(con, settings, path, tz))
        outcomes += load_records(con, settings, record_files)
    return outcomes


def add_user_folders(patterns: Iterable[str | Path]) -> list[str]:
    """Patterns of run records; where those of older versions lie in a spool, those in folders of users, too."""
    added = []
    for pattern in map(str, patterns):
        added.append(pattern)
        if pattern.endswith(f"{RUNS}/*.json"):
            added.append(pattern.removesuffix("*.json") + "*/*.json")
    return list(dict.fromkeys(added))


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    """Files of runs, with those that `add_user_folders` adds; one of the two patterns may find nothing."""
    files: dict[Path, None] = {}
    for path in paths:
        patterns = add_user_folders([path])
        found = [file for one in patterns if _exists(one) for file in expand_paths([one])]
        files.update(dict.fromkeys(found or expand_paths([path])))
    return list(files)


def _exists(pattern: str) -> bool:
    return Path(pattern).exists() or bool(find_matching(pattern))


def _is_record(path: Path) -> bool:
    """Whether a .json file is a run record; a larger one is a table, and what cannot be read says so elsewhere."""
    try:
        return records.is_record(read_bounded(path, MAX_BYTES))
    except (BadInput, OSError):
        return False


def _load_file(con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, tz: str) -> Outcome:
    """Load a file with runs, of whatever kind; one that cannot be used goes to quarantine."""
    gpus = _list_gpus(con)
    try:
        content = identify_file(path)
    except BadInput as error:
        return registry.refuse_unread(path, error)
    # What can be read from accounting depends on the GPUs that are known by then.
    digest, with_gpus = (
        hashlib.sha256(f"{content} runs {tz}{known}".encode()).hexdigest()
        for known in ("", f" {gpus.devices}")
    )
    # A file is of one kind, so it is known by one of them at most.
    if loaded := registry.find_loaded(con, [digest, with_gpus]):
        return Outcome(name_for_people(path), loaded.pop(), "known")
    try:
        with judge_file(path), open_plain_text(path, settings.work / "staging") as plain:
            with plain.open(encoding="utf-8-sig", errors="replace") as file:
                head = [line[:100_000].rstrip("\n") for line in islice(file, _HEAD_LINES)]
            share = settings.ingest.max_bad_rows_share
            read: RunsRead | codecarbon.HistoryRead
            if sacct.is_sacct(head):
                digest = with_gpus
                read, kind = sacct.read(path, plain, gpus, tz, share), "sacct"
            elif any(codecarbon.is_emissions(line) for line in head[:1]):
                read, kind = codecarbon.read(path, plain, tz, share), "codecarbon"
            else:
                read, kind = run_table.read(path, plain, gpus, tz, share), "runs"
        return _store(con, settings, path, digest, kind, read, tz)
    except BadInput as error:
        return registry.quarantine_file(con, settings, path, digest, "runs", str(error))


def _list_gpus(con: duckdb.DuckDBPyConnection) -> Gpus:
    """The GPUs that run tables can name."""
    rows = con.execute(
        "SELECT gpu_uuid, host, gpu_index, model FROM gpu WHERE model IS DISTINCT FROM $none "
        "ORDER BY ALL",
        {"none": NO_GPU},
    ).fetchall()
    return Gpus(tuple(KnownGpu(*row) for row in rows))


def _store(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    digest: str,
    kind: str,
    read: RunsRead | codecarbon.HistoryRead,
    tz: str,
) -> Outcome:
    """Store the runs of a file, GPUs that only they name, and the file's row in the registry.

    Raises:
        BadInput: the gate refuses; nothing but the verdict was stored.
    """
    devices: Sequence[Gpu] = ()
    warnings: list[str] = []
    if isinstance(read, codecarbon.HistoryRead):
        warnings += settle_history(con, read)
        devices, runs = import_history(settings, path, digest, read.measured)
        read = RunsRead(read.faults, runs, read.rows, read.warnings)
    elif kind == "sacct":
        read.runs, warnings = settle_jobs(con, read.runs, read.faults)
    file = registry.File(digest, name_for_people(path), kind, "loaded", rows_read=read.rows)

    def describe(stored: set[str]) -> registry.File:
        refused = set(read.faults.rows["row_no"])
        sound = [run for run in read.runs if not refused & set(run.rows)]
        loaded = sum(len(run.rows) for run in sound if run.run_id in stored)
        return replace(
            file,
            rows_loaded=loaded,
            rows_duplicate=sum(len(run.rows) for run in sound) - loaded,
            rows_skipped=sum(read.faults.skipped.values()),
            first_ts=min((run.started_at for run in sound), default=None),
            last_ts=max((run.ended_at or run.started_at for run in sound), default=None),
        )

    def record(stored: set[str]) -> None:
        registry.add_gpus(con, devices)
        registry.record_file(con, describe(stored))
        registry.quarantine_rows(con, digest, read.faults.rows)

    stored = store_runs(con, settings, read.runs, str(path), record, read.faults)
    outcome = registry.add_row_faults(describe(stored).as_outcome(), read.faults)
    outcome.warnings += [*read.warnings, *warnings]
    outcome.understood = _describe(read, tz)
    return outcome


def _describe(read: RunsRead, tz: str) -> list[str]:
    """What was understood, for people to check: when runs were, on how many GPUs, for how long."""
    refused = set(read.faults.rows["row_no"])
    runs = [run for run in read.runs if not refused & set(run.rows)]
    if not runs:
        return []
    now = datetime.now(UTC)
    last = max(run.ended_at or min(now, run.started_at) for run in runs)
    held = [gpu for run in runs for gpu in run.allocations]
    hours = sum(
        ((gpu.to_ts or now) - gpu.from_ts).total_seconds() / 3600 * gpu.share_ppm / PPM
        for gpu in held
    )
    going_on = sum(run.ended_at is None for run in runs)
    sentence = (
        f"{count_of(len(runs), 'run')} on {count_of(len({gpu.gpu_uuid for gpu in held}), 'GPU')}, "
        f"{describe_span(min(run.started_at for run in runs), last)}, {hours:,.4g} GPU-hours"
    )
    if going_on:
        sentence += f"; {going_on:,} go on"
    return [
        sentence,
        *([f"times without a zone were read in {tz}"] if tz else []),
        *read.understood,
    ]
