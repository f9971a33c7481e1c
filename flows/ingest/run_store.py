"""Runs through the gate, together with those stored, into the warehouse: a run that changed supersedes its stored revision."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import polars as pl

from expectations.checks import Result
from flows.errors import BadInput
from flows.ingest.suites import configure_runs_suite
from flows.rows import RowFaults
from flows.settings import Settings
from flows.sources.runs.run import Allocation, Run
from flows.warehouse import registry
from flows.warehouse.frames import load_query, stage, temporary
from flows.warehouse.locks import MOMENT, transaction

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
    record: Callable[[set[str]], None],
    faults: RowFaults | None = None,
    withdrawn: Sequence[str] = (),
) -> set[str]:
    """Check runs together with those stored; if they pass, store them in one transaction with what `record` writes.

    Args:
        con: The warehouse, open for writing.
        settings: The project.
        runs: What was read; without any, only `record` is called.
        source: The file, for the table and for messages.
        record: Writes what else belongs to the runs, given the ids of those that are new or changed.
        faults: Takes the rows of runs that fail, where they are few and the others pass without them;
            without it, all runs fail together.
        withdrawn: Stored runs that others of these take the place of.

    Returns:
        The ids of the runs that are new or changed.

    Raises:
        BadInput: a check failed; nothing but the verdict was stored.
    """
    from expectations.gate import Gate, describe_result

    if not runs:
        with transaction(con):
            record(set())
        return set()
    stored: set[str] = set()
    with _stage_runs(con, runs, withdrawn):
        verdict = Gate(con).run(configure_runs_suite(settings))
        with transaction(con):
            registry.record_verdict(con, verdict)
            if verdict.success:
                stored = _store_changed(con, source)
                record(stored)
    if verdict.success:
        return stored
    reasons = _find_runs_at_fault(runs, verdict.failures)
    if faults is not None and _set_aside(runs, reasons, faults):
        sound = [run for run in runs if run.run_id not in reasons]
        return store_runs(con, settings, sound, source, record, withdrawn=withdrawn)
    raise BadInput("; ".join(describe_result(r) for r in verdict.failures), where=source)


def _find_runs_at_fault(runs: Sequence[Run], failures: Sequence[Result]) -> dict[str, str]:
    """Runs that come in and break a check -> its sentence; empty where not all of them are known."""
    reasons: dict[str, str] = {}
    by_gpu: dict[str, list[tuple[Run, Allocation]]] = defaultdict(list)
    for run in runs:
        for held in run.allocations:
            by_gpu[held.gpu_uuid].append((run, held))
    for result in failures:
        if not result.rows or len(result.rows) < result.unexpected:
            return {}
        for row in result.rows:
            at = row.get("at_time")
            involved = (
                {
                    run.run_id
                    for run, held in by_gpu[row["gpu_uuid"]]
                    if held.from_ts <= at and (held.to_ts is None or at < held.to_ts)
                }
                if at is not None
                else {row["run_id"]}
            )
            for run_id in involved:
                reasons.setdefault(run_id, result.check.statement)
    incoming = {run.run_id for run in runs}
    return {run_id: reason for run_id, reason in reasons.items() if run_id in incoming}


def _set_aside(runs: Sequence[Run], reasons: Mapping[str, str], faults: RowFaults) -> bool:
    """Set the rows of runs at fault aside, unless they are too many, or all."""
    at_fault = [run for run in runs if run.run_id in reasons]
    rows = sum(len(run.rows) for run in at_fault)
    allowed = faults.count_allowed(sum(len(run.rows) for run in runs))
    if not at_fault or len(at_fault) == len(runs) or (rows > allowed and len(at_fault) > 1):
        return False
    for run in at_fault:
        for row_no in run.rows:
            faults.add(row_no, f"{reasons[run.run_id]} - not so", "run_id", run.run_id)
    return True


@contextmanager
def _stage_runs(
    con: duckdb.DuckDBPyConnection, runs: Sequence[Run], withdrawn: Sequence[str]
) -> Iterator[None]:
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
        withdrawn_run=pl.DataFrame({"run_id": list(withdrawn)}, schema={"run_id": pl.String}),
        incoming_allocation=pl.DataFrame(allocation_rows, schema=_ALLOCATION_ROW, orient="row"),
        run_allocation=load_query("ingest/run_allocation"),
    ):
        yield


def _store_changed(con: duckdb.DuckDBPyConnection, source: str) -> set[str]:
    """Insert new and changed runs, and supersede the revisions that they replace (inside the caller's transaction)."""
    with temporary(con, changed_run=load_query("ingest/changed_runs")):
        changed = {run_id for (run_id,) in con.execute("FROM changed_run").fetchall()}
        for table in ("training_run", "run_allocation"):
            con.execute(
                f"UPDATE {table} SET superseded_at = {MOMENT} WHERE superseded_at IS NULL "
                "AND run_id IN (FROM changed_run UNION ALL FROM staging.withdrawn_run)"
            )
        con.execute(
            "INSERT INTO run_allocation BY NAME "
            f"SELECT * EXCLUDE (place), {MOMENT} AS loaded_at "
            "FROM staging.incoming_allocation WHERE run_id IN (FROM changed_run)"
        )
        con.execute(
            "INSERT INTO training_run BY NAME "
            f"SELECT *, $source AS source_name, {MOMENT} AS loaded_at "
            "FROM staging.training_run WHERE run_id IN (FROM changed_run)",
            {"source": source},
        )
    return changed
