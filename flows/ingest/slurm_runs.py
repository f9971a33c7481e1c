"""Jobs of Slurm's accounting beside what is stored of them: joined to earlier records of the same job, told apart
from other jobs with the same id, and left to the run records where these tell of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb

from flows.ingest.record_owners import is_user
from flows.rows import RowFaults
from flows.sources.runs.run import Allocation, Run
from flows.sources.runs.sacct import JobSpan, find_key, is_same_job, name_again, name_job
from flows.warehouse.frames import load_query, query_rows
from wattledger.runs.records import Record

_TOLD_BY_RECORDS = "jobs that run records tell, which name the GPUs"
_FOREVER = datetime.max.replace(tzinfo=UTC)


def settle_jobs(
    con: duckdb.DuckDBPyConnection, runs: Sequence[Run], faults: RowFaults
) -> tuple[list[Run], list[str]]:
    """Settle jobs with what is stored.

    Args:
        con: The warehouse.
        runs: Jobs as accounting tells them.
        faults: Counts the rows of jobs that are left to run records.

    Returns:
        The jobs to store, under their ids and with their earlier attempts, and sentences for people.
    """
    left, warnings = _leave_to_records(con, runs, faults)
    names = sorted({name_job(*find_key(run)) for run in left})
    stored: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in query_rows(con, load_query("ingest/job_runs"), {"names": names}):
        stored[row["job_name"]].append(row)
    for run in left:
        candidates = stored[name_job(*find_key(run))]
        same = next((row for row in candidates if _is_same(row, run)), None)
        if same is not None:
            run.run_id = same["run_id"]
            warnings += _keep_attempts(con, run)
        elif any(row["run_id"] == run.run_id for row in candidates):
            run.run_id = name_again(run)
    return left, warnings


def _is_same(row: dict[str, Any], run: Run) -> bool:
    """Whether a stored run is of the same job; one from elsewhere is where it has the id and the time."""
    if not row["is_job"]:
        return row["run_id"] == run.run_id and _overlaps(row, run)
    submitted = datetime.fromisoformat(row["submitted_at"]) if row["submitted_at"] else None
    stored = JobSpan(
        row["owner"] or "",
        row["name"] or "",
        submitted,
        row["started_at"],
        row["ended_at"],
        row["state"].split(" ")[0],
    )
    told = run.labels.get("slurm_submit")
    incoming = JobSpan(
        run.owner or "",
        run.name or "",
        datetime.fromisoformat(told) if told else None,
        run.started_at,
        run.ended_at,
        run.labels.get("slurm_state", "").split(" ")[0],
    )
    pair = (stored, incoming) if stored.started_at <= incoming.started_at else (incoming, stored)
    return is_same_job(*pair)


def _overlaps(row: dict[str, Any], run: Run) -> bool:
    return bool(
        row["started_at"] < (run.ended_at or _FOREVER)
        and run.started_at < (row["ended_at"] or _FOREVER)
    )


def _keep_attempts(con: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Add the stored attempts of a job that the file does not tell: sacct shows but the last one unless asked."""
    told = {held.from_ts for held in run.allocations}
    first, last = min(told), max(told)
    rows = query_rows(
        con,
        "SELECT gpu_uuid, from_ts, to_ts, share_ppm FROM run_allocation "
        "WHERE superseded_at IS NULL AND run_id = $run_id ORDER BY from_ts, gpu_uuid",
        {"run_id": run.run_id},
    )
    kept = [row for row in rows if row["from_ts"] not in told]
    warnings = []
    for row in kept:
        if row["to_ts"] is None or (row["from_ts"] < first < row["to_ts"]):
            # It was running when it was loaded, and has begun anew since.
            row["to_ts"] = first
            warnings.append(
                f"an earlier attempt of {run.run_id} was still running when it was loaded: it counts until "
                f"{first:%Y-%m-%d %H:%M:%S} UTC; ask sacct with --duplicates for its end"
            )
    kept = [row for row in kept if row["to_ts"] <= first or row["from_ts"] >= last]
    run.allocations += [
        Allocation(row["gpu_uuid"], row["from_ts"], row["to_ts"], row["share_ppm"], "stored")
        for row in kept
    ]
    if kept:
        run.labels["slurm_attempts"] = str(len({held.from_ts for held in run.allocations}))
        run.started_at = min(held.from_ts for held in run.allocations)
        if run.ended_at is not None:
            run.ended_at = max(run.ended_at, *(row["to_ts"] for row in kept))
    return warnings[:1]


def _leave_to_records(
    con: duckdb.DuckDBPyConnection, runs: Sequence[Run], faults: RowFaults
) -> tuple[list[Run], list[str]]:
    """Leave out the jobs that stored run records tell."""
    jobs = [name for run in runs for name in _list_job_names(run)]
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in query_rows(con, load_query("ingest/job_records"), {"jobs": jobs}):
        for name in {row["job_id"], row["array_id"]} - {None}:
            records[name].append(row)
    left: list[Run] = []
    warnings: list[str] = []
    for run in runs:
        found = [
            row
            for name in _list_job_names(run)
            for row in records[name]
            if _is_same_cluster(row["cluster"], find_key(run)[0])
            and _overlaps(row, run)
            and (row["is_vouched"] is not False or is_user(row["owner_uid"], run.owner))
        ]
        if not found:
            left.append(run)
            continue
        faults.skip(_TOLD_BY_RECORDS, len(run.rows))
        named = {gpu["gpu_uuid"] for row in found for gpu in json.loads(row["record"])["gpus"]}
        held = sum(share.share_ppm for share in run.allocations) / 1e6
        warnings.append(
            f"job {find_key(run)[1]} is told by run records already (run {found[0]['run_id']}, "
            f"{len(named)} GPUs; accounting says {held:g}) and counts once"
        )
    return left, _shorten(warnings)


def _list_job_names(run: Run) -> set[str]:
    return {run.labels["slurm_job"], run.labels.get("slurm_job_id", run.labels["slurm_job"])}


def _is_same_cluster(one: str, other: str) -> bool:
    return not one or not other or one == other


def find_told_again(con: duckdb.DuckDBPyConnection, records: Iterable[Record]) -> dict[str, str]:
    """Stored runs of Slurm's accounting whose jobs run records now tell under another id.

    Args:
        con: The warehouse.
        records: What comes in.

    Returns:
        Run id -> id of the run that takes its place.
    """
    by_job: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        job, array = record.slurm.get("SLURM_JOB_ID"), record.slurm.get("SLURM_ARRAY_JOB_ID")
        for name in {
            job,
            f"{array}_{record.slurm.get('SLURM_ARRAY_TASK_ID', '')}" if array else job,
        }:
            if name:
                by_job[name].append(record)
    replaced: dict[str, str] = {}
    if not by_job:
        return replaced
    for row in query_rows(con, load_query("ingest/runs_of_jobs"), {"jobs": list(by_job)}):
        for record in [*by_job[row["job"]], *by_job[row["job_id"]]]:
            cluster = record.slurm.get("SLURM_CLUSTER_NAME", "")
            begin = datetime.fromisoformat(record.started_at)
            end = datetime.fromisoformat(record.ended_at) if record.ended_at else _FOREVER
            overlaps = begin < (row["ended_at"] or _FOREVER) and row["started_at"] < end
            if (
                overlaps
                and _is_same_cluster(cluster, row["cluster"])
                and record.run_id != row["run_id"]
            ):
                replaced[row["run_id"]] = record.run_id
    return replaced


def _shorten(sentences: list[str], most: int = 5) -> list[str]:
    """The first sentences, and how many more there are."""
    more = len(sentences) - most
    return [*sentences[:most], f"and {more:,} more such jobs"] if more > 0 else sentences
