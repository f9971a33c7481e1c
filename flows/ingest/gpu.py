"""GPU readings: staged, profiled, gated and stored; each file exactly once, or in quarantine with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.files import expand_paths, is_in_spool, look_at, name_for_people
from flows.ingest import host
from flows.ingest.attestations import Attestations
from flows.ingest.gpu_clean import clean_values, needs_cleaning, set_nameless_aside
from flows.ingest.gpu_compare import stage_profiles
from flows.ingest.gpu_gate import check_profiles, explain_failures, set_rows_aside
from flows.ingest.gpu_profile import (
    PowerBounds,
    describe_readings,
    find_damage,
    group_files,
    read_profiles,
)
from flows.ingest.gpu_store import store_segments
from flows.ingest.progress import Progress, no_progress
from flows.settings import Settings
from flows.sources.gpu import reader as gpu_source
from flows.sources.gpu import segments
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import Staged
from flows.sources.verdict import identify_file, judge_file
from flows.warehouse import registry
from flows.warehouse.registry import Outcome
from flows.warehouse.store import explain_disk_errors, open_for_writing, store_of
from wattledger.spool.attest import ATTESTATION

_BATCH, _BYTES = 2048, 1 << 30
"""Files that go through the gate together, and how large they may be in all: one validation costs the same for one
or many."""
_THREADS = 3
"""Files that are looked at side by side."""


def ingest_gpu(
    settings: Settings,
    paths: Iterable[str | Path],
    options: Options | None = None,
    source: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load files of GPU readings (docs/formats.md).

    Of a collector's spool, only finished segments are taken. Good files are loaded, bad ones go to quarantine
    with the reason, and files that are loaded already (by content, whatever their name) are left alone.

    Args:
        settings: The project.
        paths: Files, folders and patterns.
        options: What the files do not say of themselves.
        source: Name of a [sources] table of wattledger.toml that describes the files.
        progress: Called with each file.

    Returns:
        What became of each file.

    Raises:
        UsageError: an option or setting is missing or wrong; nothing was loaded from that file on.
        WarehouseError: the disk or the warehouse failed; what was reported loaded is stored.
    """
    files = [
        path
        for path in expand_paths(paths)
        if path.suffix == ".parquet" or not (is_in_spool(path) or path.name.endswith(ATTESTATION))
    ]
    options = options or Options()
    gpu_source.check_options(settings, options, source)
    outcomes: list[Outcome] = []
    with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
        registry.declare_gpus(con, settings)
        for batch in _split_batches(files):
            outcomes += _load_batch(con, settings, batch, options, source, progress)
    return outcomes


def _split_batches(files: Iterable[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in files:
        batch.append(path)
        size += path.lstat().st_size
        if len(batch) == _BATCH or size > _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass
class _Batch:
    """Files that go through the gate together, and what has become of them so far."""

    con: duckdb.DuckDBPyConnection
    settings: Settings
    files: Sequence[Path]
    outcomes: dict[Path, Outcome] = field(default_factory=dict)
    staged: dict[str, Staged] = field(default_factory=dict)
    """Digest -> file of GPU readings."""
    hosts: dict[str, Path] = field(default_factory=dict)
    """Digest -> file of energy of CPU and memory."""
    waiting: set[Path] = field(default_factory=set)
    """Files that are loaded when others of the batch are."""
    sayings: dict[Path, list[str]] = field(default_factory=dict)
    """What else is to be said of a file: a key that was seen for the first time."""
    cleaned: list[Staged] = field(default_factory=list)
    """Files of which some rows were set aside, so that they go through the gate again."""

    def refuse(
        self, path: Path, digest: str, suite: str, reason: str, source_format: str = ""
    ) -> None:
        if look_at(path) is None:
            self.outcomes[path] = registry.refuse_unread(path, BadInput(reason))
            return
        self.outcomes[path] = registry.quarantine_file(
            self.con, self.settings, path, digest, suite, reason, source_format
        )


def _load_batch(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    files: Sequence[Path],
    options: Options,
    source: str,
    progress: Progress,
    *,
    waited: bool = False,
) -> list[Outcome]:
    """Load files together; `waited`: they had to wait for others once already."""
    batch = _Batch(con, settings, files)
    [(newest_key,)] = con.execute("SELECT coalesce(max(segment_key), 0) FROM segment").fetchall()
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            _stage_files(batch, pool, options, source, progress)
            profiles = _profile_files(batch, pool, list(batch.staged.values()))
            if profiles:
                _gate_and_store(batch, profiles, newest_key)
            if batch.cleaned:
                profiles = _profile_files(batch, pool, batch.cleaned)
                _gate_and_store(batch, profiles, newest_key, again=True)
        if batch.hosts:
            batch.outcomes |= host.load_host_segments(con, settings, batch.hosts)
    finally:
        for staged in batch.staged.values():
            _remove_staged(staged)
    waiting = [path for path in files if path in batch.waiting]
    # Of files that overlap even then (a log that grows, kept every hour), each waits for the one before.
    for part in [[path] for path in waiting] if waited else [waiting] if waiting else []:
        outcomes = _load_batch(con, settings, part, options, source, no_progress, waited=True)
        batch.outcomes |= dict(zip(part, outcomes, strict=True))
    for path, sentences in batch.sayings.items():
        batch.outcomes[path].warnings += sentences
    return [batch.outcomes[path] for path in files]


def _identify(path: Path) -> str | BadInput:
    """The digest of a file, or why it has none."""
    try:
        return identify_file(path)
    except BadInput as error:
        return error


def _stage_files(
    batch: _Batch, pool: ThreadPoolExecutor, options: Options, source: str, progress: Progress
) -> None:
    """Read files that are new into their staged form; refuse those that cannot be read."""
    seen = {path: look_at(path) for path in batch.files}
    digests = list(pool.map(_identify, batch.files))
    attestations = Attestations(batch.con, batch.settings.root / "fetched")
    loaded = registry.find_loaded(batch.con, [d for d in digests if isinstance(d, str)])
    for path, digest in zip(batch.files, digests, strict=True):
        progress(path)
        if isinstance(digest, BadInput):
            batch.outcomes[path] = registry.refuse_unread(path, digest)
        elif digest in loaded:
            batch.outcomes[path] = Outcome(name_for_people(path), digest, "known")
        elif digest in batch.staged or digest in batch.hosts:
            batch.waiting.add(path)
        elif path.suffix == ".parquet" and not source and segments.is_host_segment(path):
            try:
                with judge_file(path):
                    batch.sayings[path] = attestations.check(path, digest)
            except BadInput as error:
                batch.refuse(path, digest, "attestation", str(error), host.FORMAT)
            else:
                batch.hosts[digest] = path
        else:
            try:
                with judge_file(path):
                    staged = gpu_source.stage(path, batch.settings, options, source, digest)
                    if staged.own:
                        staged.seen = seen[path]
                        batch.sayings[path] = attestations.check(path, digest)
            except BadInput as error:
                batch.refuse(path, digest, "reader", str(error))
            else:
                batch.staged[digest] = staged
    holes = [str(hole) for hole in attestations.save()]
    if holes:
        batch.sayings.setdefault(batch.files[-1], []).extend(holes)


def _profile_files(
    batch: _Batch, pool: ThreadPoolExecutor, files: Sequence[Staged]
) -> list[tuple[Staged, pl.DataFrame]]:
    """Look at the readings of staged files, several files side by side; refuse those that are damaged."""
    groups = list(group_files(files))
    profiles: list[tuple[Staged, pl.DataFrame]] = []
    for group, results in zip(groups, pool.map(read_profiles, groups), strict=True):
        for staged, profile in zip(group, results, strict=True):
            if isinstance(profile, BadInput) and staged.own:
                profile = _set_nameless_aside(batch, staged, profile)
            if not isinstance(profile, BadInput) and needs_cleaning(profile):
                profile = _clean(batch, staged, profile)
            if isinstance(profile, BadInput):
                batch.refuse(staged.source, staged.segment_id, "reader", str(profile))
            else:
                profiles.append((staged, profile))
    return profiles


def _set_nameless_aside(batch: _Batch, staged: Staged, fault: BadInput) -> pl.DataFrame | BadInput:
    """Try a segment again without its few readings that name no GPU, host or time."""
    try:
        is_changed = set_nameless_aside(staged, batch.settings.work / "staging")
    except duckdb.Error:
        return fault
    except BadInput as error:
        return error
    return read_profiles([staged])[0] if is_changed else fault


def _clean(batch: _Batch, staged: Staged, profile: pl.DataFrame) -> pl.DataFrame | BadInput:
    """Take values for unknown that stand for missing ones, and look at the file again if there were any."""
    try:
        is_changed = clean_values(staged, batch.settings.work / "staging")
    except duckdb.Error:
        if (fault := find_damage(staged)) is None:
            raise
        return fault
    return read_profiles([staged])[0] if is_changed else profile


def _gate_and_store(
    batch: _Batch,
    profiles: Sequence[tuple[Staged, pl.DataFrame]],
    newest_key: int,
    *,
    again: bool = False,
) -> None:
    """Compare staged files with the store, run the suite on them, and store those that pass.

    Where only some rows of a file fail, they are set aside, and the file is `cleaned` for a second try
    (`again`), which is the last.
    """
    con, bounds = batch.con, PowerBounds(batch.settings)
    understood = {
        staged.segment_id: describe_readings(profile, staged.blanks) for staged, profile in profiles
    }
    with stage_profiles(con, profiles, bounds) as comparison:
        for digest, fault in comparison.refused.items():
            batch.refuse(batch.staged[digest].source, digest, "reader", str(fault))
        batch.waiting |= {batch.staged[digest].source for digest in comparison.waiting}
        faults = check_profiles(con, batch.settings)
        for digest, failures in faults.failures.items():
            staged = batch.staged[digest]
            if not again and set_rows_aside(con, batch.settings, staged, failures):
                batch.cleaned.append(staged)
                continue
            reason = explain_failures(con, batch.settings, staged, failures)
            batch.refuse(staged.source, digest, "readings", reason, staged.format)
        left_out = {*comparison.refused, *comparison.waiting, *faults.failures}
        good = [staged for staged, _ in profiles if staged.segment_id not in left_out]
        for staged, outcome in store_segments(con, good, newest_key):
            if isinstance(outcome, BadInput):
                batch.refuse(staged.source, staged.segment_id, "reader", str(outcome))
            elif outcome is None:
                batch.waiting.add(staged.source)
            else:
                outcome.warnings += faults.warnings.get(staged.segment_id, [])
                outcome.understood = understood.get(staged.segment_id, [])
                batch.outcomes[staged.source] = outcome


def _remove_staged(staged: Staged) -> None:
    """Remove what was written for staging; a segment is read where it is."""
    if not staged.own:
        staged.path.unlink(missing_ok=True)
