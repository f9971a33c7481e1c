"""Run records of the nodes: stored as they are, with the runs that they change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import name_for_people
from flows.ingest.run_store import store_runs
from flows.ingest.slurm_runs import find_told_again
from flows.settings import Settings
from flows.sources.runs import records
from flows.sources.verdict import identify_file, judge_file
from flows.warehouse import registry
from flows.warehouse.frames import insert
from flows.warehouse.registry import Gpu, Outcome
from wattledger.runs.records import Record, make_record


@dataclass(frozen=True)
class _RecordFile:
    path: Path
    digest: str
    record: Record


def load_records(
    con: duckdb.DuckDBPyConnection, settings: Settings, paths: Sequence[Path]
) -> list[Outcome]:
    """Load run records, all at once; if the gate refuses, run by run, to find those at fault."""
    outcomes: list[Outcome] = []
    hosts: dict[str, str] = dict(con.execute("SELECT gpu_uuid, host FROM gpu").fetchall())
    digests: dict[Path, str] = {}
    for path in paths:
        try:
            digests[path] = identify_file(path)
        except BadInput as error:
            outcomes.append(registry.refuse_unread(path, error))
    loaded = registry.find_loaded(con, list(digests.values()))
    by_run: dict[str, list[_RecordFile]] = {}
    for path, digest in digests.items():
        if digest in loaded:
            outcomes.append(Outcome(name_for_people(path), digest, "known"))
            continue
        loaded.add(digest)
        try:
            with judge_file(path):
                record = records.read(path)
                _refuse_foreign_gpu(path, record, hosts)
        except BadInput as error:
            outcomes.append(_quarantine(con, settings, path, digest, error))
            continue
        hosts |= {held.gpu_uuid: record.host for held in record.gpus if held.gpu_uuid not in hosts}
        by_run.setdefault(record.run_id, []).append(_RecordFile(path, digest, record))
    if not by_run:
        return outcomes
    try:
        together = [file for files in by_run.values() for file in files]
        return outcomes + _store_records(con, settings, together)
    except BadInput:
        for files in by_run.values():
            try:
                outcomes += _store_records(con, settings, files)
            except BadInput as error:
                outcomes += [
                    _quarantine(con, settings, file.path, file.digest, error) for file in files
                ]
    return outcomes


def _refuse_foreign_gpu(path: Path, record: Record, hosts: dict[str, str]) -> None:
    if reason := records.find_foreign_gpu(record, hosts):
        raise BadInput(
            reason,
            where=name_for_people(path),
            remedy="If the GPU was moved, correct its host in the registry; else the record is another "
            "host's, or copied",
        )


def _quarantine(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, error: BadInput
) -> Outcome:
    return registry.quarantine_file(con, settings, path, digest, "runs", str(error))


def _store_records(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Sequence[_RecordFile]
) -> list[Outcome]:
    """Store records and the runs that they change, in one transaction.

    Raises:
        BadInput: the gate refuses the runs; nothing was stored.
    """
    stored = {
        record_id: make_record(json.loads(text))
        for record_id, text in con.execute("SELECT record_id, record FROM run_record").fetchall()
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
    rows = [
        _describe_file(file, is_used=newer.get(file.record.record_id) is file) for file in files
    ]

    def record(_: set[str]) -> None:
        registry.add_gpus(con, list(gpus.values()))
        con.execute(
            "DELETE FROM run_record WHERE record_id IN (SELECT unnest($ids))", {"ids": list(newer)}
        )
        insert(con, "run_record", [_row_of(file) for file in newer.values()], loaded_at="now()")
        registry.record_files(con, rows)

    store_runs(con, settings, runs, str(files[0].path), record, withdrawn=list(replaced))
    outcomes = [row.as_outcome() for row in rows]
    outcomes[0].warnings += [
        f"run {old} of Slurm's accounting is the same job as run {new}, whose records name the GPUs: "
        "it counts once, as they tell it"
        for old, new in sorted(replaced.items())
    ]
    return outcomes


def _find_newer(files: Sequence[_RecordFile], stored: dict[str, Record]) -> dict[str, _RecordFile]:
    """The last of the files of each record that supersede what is stored, by record."""
    newer: dict[str, _RecordFile] = {}
    for file in files:
        record_id = file.record.record_id
        last = newer[record_id].record if record_id in newer else stored.get(record_id)
        if last is None or records.supersedes(file.record, last):
            newer[record_id] = file
    return newer


def _describe_file(file: _RecordFile, *, is_used: bool) -> registry.File:
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


def _row_of(file: _RecordFile) -> dict[str, object]:
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
    }
