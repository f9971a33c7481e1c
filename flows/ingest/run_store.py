"""Runs through the gate, together with those stored, into the warehouse: a run that changed supersedes its stored revision."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.ingest.suites import configure_runs_suite
from flows.settings import Settings
from flows.sources.runs.table import Run
from flows.warehouse import registry
from flows.warehouse.frames import load_query, stage, temporary
from flows.warehouse.locks import transaction

_TIME = pl.Datetime("us", "UTC")
_RUN_ROW: dict[str, pl.DataType | type[pl.DataType]] = {
    "run_id": pl.String,
    "name": pl.String,
    "owner": pl.String,
    "run_model": pl.String,
    "started_at": _TIME,
    "ended_at": _TIME,
    "labels": pl.String,
}
_ALLOCATION_ROW: dict[str, pl.DataType | type[pl.DataType]] = {
    "run_id": pl.String,
    "gpu_uuid": pl.String,
    "from_ts": _TIME,
    "to_ts": _TIME,
    "share_ppm": pl.Int64,
    "place": pl.String,
}


def store_runs(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    runs: Sequence[Run],
    source: str,
    record: Callable[[int], None],
) -> int:
    """Check runs together with those stored; if they pass, store them in one transaction with what `record` writes.

    Args:
        con: The warehouse, open for writing.
        settings: The project.
        runs: What was read; without any, only `record` is called.
        source: The file, for the table and for messages.
        record: Writes what else belongs to the runs, given the number of those that are new or changed.

    Returns:
        The number of runs that are new or changed.

    Raises:
        BadInput: a check failed; nothing but the verdict was stored.
    """
    from expectations.gate import Gate, describe_result

    if not runs:
        with transaction(con):
            record(0)
        return 0
    stored = 0
    with _stage_runs(con, runs):
        verdict = Gate(con).run(configure_runs_suite(settings))
        with transaction(con):
            registry.record_verdict(con, verdict)
            if verdict.success:
                stored = _store_changed(con, source)
                record(stored)
    if not verdict.success:
        raise BadInput("; ".join(describe_result(r) for r in verdict.failures), where=source)
    return stored


@contextmanager
def _stage_runs(con: duckdb.DuckDBPyConnection, runs: Sequence[Run]) -> Iterator[None]:
    """Keep staging.run_allocation, what the gate sees, with the runs and allocations that come in, for a `with` block."""
    run_rows = [
        (
            run.run_id,
            run.name,
            run.owner,
            run.model,
            run.started_at,
            run.ended_at,
            json.dumps(run.labels, sort_keys=True),
        )
        for run in runs
    ]
    allocation_rows = [
        (run.run_id, held.gpu_uuid, held.from_ts, held.to_ts, held.share_ppm, held.place)
        for run in runs
        for held in run.allocations
    ]
    with stage(
        con,
        training_run=pl.DataFrame(run_rows, schema=_RUN_ROW, orient="row"),
        incoming_allocation=pl.DataFrame(allocation_rows, schema=_ALLOCATION_ROW, orient="row"),
        run_allocation=load_query("ingest/run_allocation"),
    ):
        yield


def _store_changed(con: duckdb.DuckDBPyConnection, source: str) -> int:
    """Insert new and changed runs, and supersede the revisions that they replace (inside the caller's transaction)."""
    with temporary(con, changed_run=load_query("ingest/changed_runs")):
        for table in ("training_run", "run_allocation"):
            con.execute(
                f"UPDATE {table} SET superseded_at = now() WHERE superseded_at IS NULL "
                "AND run_id IN (FROM changed_run)"
            )
        con.execute(
            "INSERT INTO run_allocation BY NAME "
            "SELECT * EXCLUDE (place), now() AS loaded_at "
            "FROM staging.incoming_allocation WHERE run_id IN (FROM changed_run)"
        )
        [(count,)] = con.execute(
            "INSERT INTO training_run BY NAME "
            "SELECT *, $source AS source_name, now() AS loaded_at "
            "FROM staging.training_run WHERE run_id IN (FROM changed_run)",
            {"source": source},
        ).fetchall()
    return int(count)
