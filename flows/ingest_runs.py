"""Training runs and their allocations: read, gate together with what is stored, revise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import duckdb
import polars as pl

from expectations import runs as runs_suite
from flows import catalogue
from flows.catalogue import Outcome
from flows.errors import BadInput
from flows.ingest_gpu import Progress, no_progress
from flows.settings import Settings
from flows.sources import runs as runs_source
from flows.sources.files import expand, sha256
from flows.sources.runs import Gpus, Run
from flows.warehouse import disk_errors, transaction, writing

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
    """Load run tables (docs/formats.md). A run that changed supersedes its stored revision.

    Raises:
        UsageError: a time without zone, and none given.
        WarehouseError: the disk or the warehouse failed.
    """
    outcomes = []
    with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
        catalogue.declare_gpus(con, settings)
        for path in expand(paths):
            progress(path)
            digest = hashlib.sha256(f"{sha256(path)} runs {tz}".encode()).hexdigest()
            if digest in catalogue.known(con):
                outcomes.append(Outcome(str(path), digest, "known"))
                continue
            gpus = Gpus(tuple(con.execute("SELECT gpu_uuid, host, gpu_index FROM gpu").fetchall()))
            try:
                runs = runs_source.read(path, gpus, tz, settings.work / "staging")
                outcomes.append(_load(con, settings, path, digest, runs))
            except BadInput as error:
                outcomes.append(
                    catalogue.quarantine(con, settings, path, digest, "runs", str(error))
                )
    return outcomes


def _load(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, runs: list[Run]
) -> Outcome:
    from expectations.gate import Gate, describe

    _stage(con, runs)
    verdict = Gate(con).run(runs_suite.suite(max_days=settings.gate.max_run_days))
    inserted = 0
    with transaction(con):
        catalogue.record_verdict(con, verdict)
        if verdict.success:
            inserted = _promote(con, path)
            catalogue.record_file(
                con,
                segment_id=digest,
                source_name=str(path),
                source_format="runs",
                verdict="loaded",
                rows_read=len(runs),
                rows_loaded=inserted,
                rows_duplicate=len(runs) - inserted,
                first_ts=min(run.started_at for run in runs),
                last_ts=max(run.ended_at or run.started_at for run in runs),
            )
    for table in ("training_run", "run_allocation", "incoming_allocation"):
        con.execute(f"DROP TABLE staging.{table}")
    if not verdict.success:
        raise BadInput("; ".join(describe(r) for r in verdict.failures), where=str(path))
    return Outcome(str(path), digest, "loaded", len(runs), inserted, len(runs) - inserted)


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
        con.register("incoming", frame.to_arrow())
        con.execute(f"CREATE OR REPLACE TABLE staging.{name} AS FROM incoming")
        con.unregister("incoming")
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


def _promote(con: duckdb.DuckDBPyConnection, path: Path) -> int:
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
        {"source": str(path)},
    ).fetchall()
    return int(inserted)
