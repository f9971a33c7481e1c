"""Training runs and their allocations: read, gate together with what is stored, revise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

from expectations import runs as runs_suite
from flows.errors import BadInput
from flows.files import expand_paths, hash_file, is_in_spool, open_plain_text, read_first_line
from flows.ingest import codecarbon as ingest_codecarbon
from flows.ingest.progress import Progress, no_progress
from flows.settings import Settings
from flows.sources.runs import codecarbon, records, sacct
from flows.sources.runs import table as runs_source
from flows.sources.runs.table import Gpus, Run
from flows.warehouse import registry
from flows.warehouse.frames import register
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_exclusively, store_of
from transforms.constants import NO_GPU
from wattledger.runs.records import Record, make_record

_T = pl.Datetime("us", "UTC")
_RUNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "run_id": pl.String,
    "name": pl.String,
    "owner": pl.String,
    "run_model": pl.String,
    "started_at": _T,
    "ended_at": _T,
    "labels": pl.String,
}
_ALLOCATIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    "run_id": pl.String,
    "gpu_uuid": pl.String,
    "from_ts": _T,
    "to_ts": _T,
    "share_ppm": pl.Int64,
    "place": pl.String,
}


def ingest_runs(
    settings: Settings,
    paths: Iterable[str | Path],
    tz: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load run tables, run records, accounting and histories (docs/formats.md).

    A run that changed supersedes its stored revision. Of a collector's spool, only run records are
    taken.

    Raises:
        UsageError: a time without zone, and none given.
        WarehouseError: the disk or the warehouse failed.
    """
    outcomes = []
    noted: list[Path] = []
    with open_exclusively(store_of(settings), "runs") as con:
        registry.declare_gpus(con, settings)
        for path in expand_paths(paths):
            if is_in_spool(path) and path.parent.name != "runs":
                continue
            progress(path)
            if records.is_record(path):
                noted.append(path)
                continue
            gpus = _gpus(con)
            content = hash_file(path)
            header = read_first_line(path)
            accounting = sacct.is_sacct(header)
            # What can be read from accounting depends on the GPUs that are known by then.
            known = f" {gpus.devices}" if accounting else ""
            digest = hashlib.sha256(f"{content} runs {tz}{known}".encode()).hexdigest()
            if registry.find_loaded(con, [digest]):
                outcomes.append(Outcome(str(path), digest, "known"))
                continue
            try:
                if accounting:
                    outcomes.append(_load_jobs(con, settings, path, digest, gpus, tz))
                elif codecarbon.is_emissions(header):
                    outcomes.append(_load_codecarbon(con, settings, path, digest, tz))
                else:
                    runs = runs_source.read(path, gpus, tz, settings.work / "staging")
                    outcomes.append(_load(con, settings, path, digest, runs))
            except BadInput as error:
                outcomes.append(
                    registry.quarantine_file(con, settings, path, digest, "runs", str(error))
                )
        outcomes += _load_records(con, settings, noted)
    return outcomes


def _gpus(con: duckdb.DuckDBPyConnection) -> Gpus:
    """The GPUs that run tables can name."""
    found = con.execute(
        "SELECT gpu_uuid, host, gpu_index FROM gpu WHERE model IS DISTINCT FROM ? ORDER BY ALL",
        [NO_GPU],
    ).fetchall()
    return Gpus(tuple(found))


def _recorder(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    digest: str,
    source_format: str,
    runs: list[Run],
    rows: int | None = None,
) -> Callable[[int], None]:
    """What writes the catalogue row of a file of runs, once it is known how many are new."""
    read = len(runs) if rows is None else rows

    def record(inserted: int) -> None:
        registry.record_file(
            con,
            registry.File(
                segment_id=digest,
                source_name=str(path),
                source_format=source_format,
                verdict="loaded",
                rows_read=read,
                rows_loaded=inserted,
                rows_duplicate=len(runs) - inserted,
                rows_skipped=read - len(runs),
                first_ts=min((run.started_at for run in runs), default=None),
                last_ts=max((run.ended_at or run.started_at for run in runs), default=None),
            ),
        )

    return record


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
        BadInput: a line can't be understood, or the gate refuses.
    """
    with open_plain_text(path, settings.work / "staging") as plain:
        jobs = sacct.read(path, plain, gpus, tz)

    store = _recorder(con, path, digest, "sacct", jobs.runs, jobs.rows)
    if jobs.runs:
        inserted = _gated(con, settings, jobs.runs, store, str(path))
    else:
        inserted = 0
        with transaction(con):
            store(0)
    return Outcome(
        str(path),
        digest,
        "loaded",
        jobs.rows,
        inserted,
        len(jobs.runs) - inserted,
        jobs.rows - len(jobs.runs),
        warnings=jobs.warnings(),
    )


def _load_codecarbon(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, tz: str
) -> Outcome:
    def store_runs(runs: list[Run], gpus: list[registry.Gpu]) -> int:
        record = _recorder(con, path, digest, "codecarbon", runs)

        def store(inserted: int) -> None:
            registry.add_gpus(con, gpus)
            record(inserted)

        return _gated(con, settings, runs, store, str(path))

    return ingest_codecarbon.as_runs(settings, path, digest, tz, store_runs)


def _load_records(
    con: duckdb.DuckDBPyConnection, settings: Settings, paths: list[Path]
) -> list[Outcome]:
    """Load run records, all at once; if the gate refuses, run by run, to find those at fault."""
    outcomes: list[Outcome] = []
    digests = [hash_file(path) for path in paths]
    known = registry.find_loaded(con, digests)
    fresh: dict[str, list[tuple[Path, str, Record]]] = {}
    for path, digest in zip(paths, digests, strict=True):
        if digest in known:
            outcomes.append(Outcome(str(path), digest, "known"))
            continue
        known.add(digest)
        try:
            record = records.read(path)
        except BadInput as error:
            outcomes.append(
                registry.quarantine_file(con, settings, path, digest, "runs", str(error))
            )
            continue
        fresh.setdefault(record.run_id, []).append((path, digest, record))
    if not fresh:
        return outcomes
    try:
        together = [one for found in fresh.values() for one in found]
        return outcomes + _store_records(con, settings, together)
    except BadInput:
        for found in fresh.values():
            try:
                outcomes += _store_records(con, settings, found)
            except BadInput as error:
                outcomes += [
                    registry.quarantine_file(con, settings, path, digest, "runs", str(error))
                    for path, digest, _ in found
                ]
    return outcomes


def _store_records(
    con: duckdb.DuckDBPyConnection, settings: Settings, fresh: list[tuple[Path, str, Record]]
) -> list[Outcome]:
    """Store records and the runs that they change, in one transaction.

    Raises:
        BadInput: the gate refuses the runs; nothing was stored.
    """
    stored = {
        key: make_record(json.loads(text))
        for key, text in con.execute("SELECT record_id, record FROM run_record").fetchall()
    }
    newer: dict[str, tuple[Path, Record]] = {}
    for path, _, record in fresh:
        last = (
            newer[record.record_id][1]
            if record.record_id in newer
            else stored.get(record.record_id)
        )
        if last is None or records.supersedes(record, last):
            newer[record.record_id] = (path, record)
    every = list({**stored, **{key: record for key, (_, record) in newer.items()}}.values())
    ids = records.find_related_runs(every, {record.run_id for _, record in newer.values()})
    runs = records.build_runs(every, ids)
    gpus = {
        held.gpu_uuid: registry.Gpu(held.gpu_uuid, record.host, held.gpu_index, held.model)
        for record in every
        if record.run_id in ids
        for held in records.list_devices(record)
    }

    files = []
    for path, digest, record in fresh:
        used = record.record_id in newer and newer[record.record_id][0] == path
        files.append(
            registry.File(
                segment_id=digest,
                source_name=str(path),
                source_format="run-record",
                verdict="loaded",
                rows_read=1,
                rows_loaded=int(used),
                rows_duplicate=int(not used),
                first_ts=datetime.fromisoformat(record.started_at),
                last_ts=datetime.fromisoformat(record.ended_at or record.started_at),
            )
        )

    def store(_: int) -> None:
        registry.add_gpus(con, list(gpus.values()))
        for key, (path, record) in newer.items():
            con.execute("DELETE FROM run_record WHERE record_id = ?", [key])
            con.execute(
                "INSERT INTO run_record VALUES (?, ?, ?, ?, ?, ?, ?, ?, now())",
                [
                    key,
                    record.run_id,
                    record.host,
                    record.started_at,
                    record.ended_at,
                    record.exit_code,
                    json.dumps(asdict(record), sort_keys=True),
                    str(path),
                ],
            )
        registry.record_files(con, files)

    if runs:
        _gated(con, settings, runs, store, str(fresh[0][0]))
    else:
        with transaction(con):
            store(0)
    return [file.as_outcome() for file in files]


def _load(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, runs: list[Run]
) -> Outcome:
    store = _recorder(con, path, digest, "runs", runs)
    inserted = _gated(con, settings, runs, store, str(path))
    return Outcome(str(path), digest, "loaded", len(runs), inserted, len(runs) - inserted)


def _gated(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    runs: list[Run],
    store: Callable[[int], None],
    source: str,
) -> int:
    """Check runs together with those stored; if they pass, store them and call `store`, at once.

    Returns the number of runs that are new or changed.

    Raises:
        BadInput: a check failed; nothing but the verdict was stored.
    """
    from expectations.gate import Gate, describe

    _stage(con, runs)
    verdict = Gate(con).run(runs_suite.build_runs_suite(max_days=settings.gate.max_run_days))
    inserted = 0
    with transaction(con):
        registry.record_verdict(con, verdict)
        if verdict.success:
            inserted = _promote(con, source)
            store(inserted)
    for table in ("training_run", "run_allocation", "incoming_allocation"):
        con.execute(f"DROP TABLE staging.{table}")
    if not verdict.success:
        raise BadInput("; ".join(describe(r) for r in verdict.failures), where=source)
    return inserted


def _stage(con: duckdb.DuckDBPyConnection, runs: list[Run]) -> None:
    """staging.run_allocation: all allocations as they would stand after loading."""
    incoming = pl.DataFrame(
        [
            (
                r.run_id,
                r.name,
                r.owner,
                r.model,
                r.started_at,
                r.ended_at,
                json.dumps(r.labels, sort_keys=True),
            )
            for r in runs
        ],
        schema=_RUNS,
        orient="row",
    )
    allocations = pl.DataFrame(
        [
            (r.run_id, a.gpu_uuid, a.from_ts, a.to_ts, a.share_ppm, a.place)
            for r in runs
            for a in r.allocations
        ],
        schema=_ALLOCATIONS,
        orient="row",
    )
    for name, frame in (("training_run", incoming), ("incoming_allocation", allocations)):
        with register(con, incoming=frame):
            con.execute(f"CREATE OR REPLACE TABLE staging.{name} AS FROM incoming")
    con.execute(
        """
        CREATE OR REPLACE TABLE staging.run_allocation AS
        FROM staging.incoming_allocation
        UNION ALL BY NAME
        SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm::BIGINT AS share_ppm, 'stored' AS place
        FROM run_allocation AS a
        WHERE superseded_at IS NULL
            AND NOT EXISTS (FROM staging.training_run AS n WHERE n.run_id = a.run_id)
        """
    )


def _promote(con: duckdb.DuckDBPyConnection, source: str) -> int:
    """Insert new and changed runs, supersede the revisions they replace."""
    columns = ", ".join(_RUNS)
    held = "run_id, gpu_uuid, from_ts, to_ts, share_ppm"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE changed AS
        SELECT run_id FROM (
            SELECT {columns} FROM staging.training_run
            EXCEPT SELECT {columns} FROM training_run WHERE superseded_at IS NULL
        )
        UNION
        SELECT run_id FROM (
            (SELECT {held} FROM staging.incoming_allocation
             EXCEPT SELECT {held} FROM run_allocation WHERE superseded_at IS NULL)
            UNION ALL
            (SELECT {held} FROM run_allocation AS a WHERE superseded_at IS NULL
                AND EXISTS (FROM staging.training_run AS n WHERE n.run_id = a.run_id)
             EXCEPT SELECT {held} FROM staging.incoming_allocation)
        )
        """
    )
    for table in ("training_run", "run_allocation"):
        con.execute(
            f"UPDATE {table} SET superseded_at = now() WHERE superseded_at IS NULL "
            "AND run_id IN (FROM changed)"
        )
    con.execute(
        f"INSERT INTO run_allocation SELECT {held}, now(), NULL "
        "FROM staging.incoming_allocation WHERE run_id IN (FROM changed)"
    )
    [(inserted,)] = con.execute(
        f"INSERT INTO training_run SELECT {columns}, $source, now(), NULL "
        "FROM staging.training_run WHERE run_id IN (FROM changed)",
        {"source": source},
    ).fetchall()
    return int(inserted)
