"""Run records of the nodes: stored as they are, with the runs that they change.

A record speaks for the host and the user that wrote it: what it claims of others is refused, and named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import name_for_people
from flows.ingest.record_owners import Owners
from flows.ingest.run_store import store_runs
from flows.ingest.slurm_runs import find_told_again
from flows.settings import Settings
from flows.sources.runs import records
from flows.sources.runs.record_files import (
    Bytes,
    RecordFile,
    find_host,
    is_vouched,
    limit_files,
    read_bytes,
    read_file,
)
from flows.sources.verdict import judge_file
from flows.warehouse import registry
from flows.warehouse.frames import insert
from flows.warehouse.locks import MOMENT
from flows.warehouse.registry import Gpu, Outcome
from wattledger.runs.records import Record, make_record

_MOST_KEPT, _MOST_NAMED = 64 << 10, 100
"""Bytes of a refused record that are kept, and refused records of one user that are named, in one load."""


def load_records(
    con: duckdb.DuckDBPyConnection, settings: Settings, paths: Sequence[Path]
) -> list[Outcome]:
    """Load run records, all at once; if the gate refuses, run by run, to find those at fault."""
    outcomes: list[Outcome] = []
    refusals = _Refusals(con, settings)
    kept, warnings = limit_files(list(paths))
    read: list[Bytes] = []
    for path in kept:
        try:
            with judge_file(path):
                read.append(read_bytes(path))
        except BadInput as error:
            outcomes += refusals.refuse(path, error)
    loaded = registry.find_loaded(con, [file.digest for file in read])
    owners = Owners(con)
    by_run: dict[str, list[RecordFile]] = {}
    for one in _vouched_first(read):
        if one.digest in loaded:
            outcomes.append(Outcome(name_for_people(one.path), one.digest, "known"))
            continue
        try:
            with judge_file(one.path):
                file = read_file(one)
                owners.refuse_foreign(file)
        except BadInput as error:
            outcomes += refusals.refuse(one.path, error, one)
            continue
        loaded.add(one.digest)
        by_run.setdefault(file.record.run_id, []).append(file)
    outcomes += refusals.count_others()
    outcomes += _store_all(con, settings, by_run, owners)
    if warnings and outcomes:
        outcomes[0].warnings += warnings
    return outcomes


def _vouched_first(read: Iterable[Bytes]) -> list[Bytes]:
    """Records of root before those of users: where both claim something, root's word counts."""
    return sorted(read, key=lambda one: (not is_vouched(one), str(one.path)))


def _store_all(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    by_run: dict[str, list[RecordFile]],
    owners: Owners,
) -> list[Outcome]:
    """Store the records of all runs together; where the gate refuses them, run by run."""
    if not by_run:
        return []
    outcomes: list[Outcome] = []
    try:
        together = [file for files in by_run.values() for file in files]
        return _store_records(con, settings, together, owners)
    except BadInput:
        for files in by_run.values():
            try:
                outcomes += _store_records(con, settings, files, owners)
            except BadInput as error:
                outcomes += [
                    _quarantine(con, settings, file.path, file.digest, error) for file in files
                ]
    return outcomes


class _Refusals:
    """Refused records, each with its reason; of one user no more than a person would read."""

    def __init__(self, con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
        self._con, self._settings = con, settings
        self._counts: Counter[Path] = Counter()

    def refuse(self, path: Path, error: BadInput, read: Bytes | None = None) -> list[Outcome]:
        """What became of a record; none where the user's others have used up all room."""
        if find_host(path):
            self._counts[path.parent] += 1
            if self._counts[path.parent] > _MOST_NAMED:
                return []
        if read is None or len(read.data) > _MOST_KEPT:
            return [registry.refuse_unread(path, error)]
        return [_quarantine(self._con, self._settings, path, read.digest, error)]

    def count_others(self) -> list[Outcome]:
        """One outcome for each user's folder of which not all refused files were named."""
        return [
            Outcome(
                name_for_people(folder),
                "",
                "quarantined",
                reason=f"{name_for_people(folder)}: {count - _MOST_NAMED:,} more files cannot be used",
            )
            for folder, count in self._counts.items()
            if count > _MOST_NAMED
        ]


def _quarantine(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, error: BadInput
) -> Outcome:
    return registry.quarantine_file(con, settings, path, digest, "runs", str(error))


def _store_records(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    files: Sequence[RecordFile],
    owners: Owners,
) -> list[Outcome]:
    """Store records and the runs that they change, in one transaction.

    Raises:
        BadInput: the gate refuses the runs; nothing was stored.
    """
    stored = {
        record_id: make_record(json.loads(text))
        for record_id, text in con.execute("SELECT record_id, record FROM run_record").fetchall()
        if record_id not in owners.withdrawn
    }
    newer = _find_newer(files, stored)
    current = {**stored, **{record_id: file.record for record_id, file in newer.items()}}
    every = list(current.values())
    run_ids = records.find_related_runs(every, {file.record.run_id for file in newer.values()})
    runs = records.build_runs(every, run_ids)
    gpus = {
        held.gpu_uuid: Gpu(held.gpu_uuid, record.host, held.gpu_index, held.model)
        for record in every
        if record.run_id in run_ids
        for held in records.list_devices(record)
    }
    replaced = find_told_again(con, [file.record for file in newer.values()])
    replaced = {old: new for old, new in replaced.items() if owners.may_replace(old, files, new)}
    rows = [
        _describe_file(file, is_used=newer.get(file.record.record_id) is file) for file in files
    ]

    def record(_: set[str]) -> None:
        registry.add_gpus(con, list(gpus.values()))
        con.execute(
            "DELETE FROM run_record WHERE record_id IN (SELECT unnest($ids))",
            {"ids": list(newer)},
        )
        insert(con, "run_record", [_row_of(file) for file in newer.values()], loaded_at=MOMENT)
        registry.record_files(con, rows)

    store_runs(con, settings, runs, str(files[0].path), record, withdrawn=list(replaced))
    outcomes = [row.as_outcome() for row in rows]
    outcomes[0].warnings += [
        f"run {old} of Slurm's accounting is the same job as run {new}, whose records name the GPUs: "
        "it counts once, as they tell it"
        for old, new in sorted(replaced.items())
    ]
    outcomes[0].warnings += owners.explain_withdrawn(files)
    return outcomes


def _find_newer(files: Sequence[RecordFile], stored: dict[str, Record]) -> dict[str, RecordFile]:
    """The last of the files of each record that supersede what is stored, by record."""
    newer: dict[str, RecordFile] = {}
    for file in files:
        record_id = file.record.record_id
        last = newer[record_id].record if record_id in newer else stored.get(record_id)
        if last is None or records.supersedes(file.record, last):
            newer[record_id] = file
    return newer


def _describe_file(file: RecordFile, *, is_used: bool) -> registry.File:
    return registry.File(
        segment_id=file.digest,
        source_name=name_for_people(file.path),
        source_format="run-record",
        verdict="loaded",
        rows_read=1,
        rows_loaded=int(is_used),
        rows_duplicate=int(not is_used),
        first_ts=datetime.fromisoformat(file.record.started_at),
        last_ts=datetime.fromisoformat(file.record.ended_at or file.record.started_at),
    )


def _row_of(file: RecordFile) -> dict[str, object]:
    record = file.record
    return {
        "record_id": record.record_id,
        "run_id": record.run_id,
        "host": record.host,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "exit_code": record.exit_code,
        "record": json.dumps(asdict(record), sort_keys=True),
        "source_name": name_for_people(file.path),
        "owner_uid": file.origin.owner_uid,
        "is_vouched": file.origin.is_vouched,
        "record_sha256": file.digest,
    }
