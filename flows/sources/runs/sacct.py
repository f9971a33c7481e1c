"""Slurm accounting: jobs and what they held, from `sacct --parsable2` or `--json` (docs/formats.md).

Records of one job, which a requeue or a change of its size began anew, are one run with several
allocations. sacct says how many GPUs of a node a job had, not which (`slurm_gpus`). Records of
`wattledger run` name the GPUs: where both tell of a job, they count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows import times
from flows.errors import BadInput, UsageError
from flows.rows import ANOTHER_ROW, MAX_BAD_SHARE, RowFaults
from flows.sources.runs.run import SHARES_ASSUMED, Allocation, Gpus, Run, RunsRead
from flows.sources.runs.sacct_rows import is_sacct, read_rows
from flows.sources.runs.slurm_gpus import TooManyGpus, count_gpus, divide_gpus, find_hosts

__all__ = ["JobSpan", "is_sacct", "is_same_job", "read"]

_NEVER_RAN = {"PENDING", "REVOKED", "RESV_DEL_HOLD"}
_GOES_ON = {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "STOPPED", "SIGNALING"}
_COMES_AGAIN = {
    "BOOT_FAIL",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "SPECIAL_EXIT",
}
"""After these, Slurm may begin the job anew."""
_ENDED = {
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "OUT_OF_MEMORY",
    "STAGE_OUT",
    "TIMEOUT",
} | _COMES_AGAIN - {"RESIZING"}

_REQUEUE_WITHIN = timedelta(days=30)
"""How long a job that was requeued may wait, at most, for its next record to be of the same job."""
_RESUBMIT_WITHIN = timedelta(minutes=10)
"""How long Slurm knows a job that has ended (MinJobAge is 5 minutes), so that it can be requeued by hand."""
_SAME_ID_WITHIN = timedelta(days=1)
"""The same where the time of the submission is not told: ids come again after 67 million jobs, or a reset."""

_WITHOUT_GPUS = "jobs without GPUs"
_NEVER = "jobs that never ran"
_UNKNOWN_HOSTS = "jobs on hosts without known GPUs"
_TOO_MANY = "jobs with more GPUs than are known on their hosts"
_PARTS = "jobs with shards or MPS of GPUs, whose size is not told"


@dataclass(frozen=True)
class JobSpan:
    """What tells whether two records with one id are of one job.

    Attributes:
        user: Who submitted it.
        name: The job's name.
        submitted_at: When; None where it is not told.
        started_at: When it began to run.
        ended_at: When it ended; None where it goes on.
        state: Slurm's word for how it ended.
    """

    user: str
    name: str
    submitted_at: datetime | None
    started_at: datetime
    ended_at: datetime | None
    state: str


def is_same_job(earlier: JobSpan, later: JobSpan) -> bool:
    """Whether a record continues the one before it with the same id, or is of another job: ids come again."""
    if earlier.user != later.user and earlier.user and later.user:
        return False
    if earlier.started_at == later.started_at:
        return True
    begins = later.submitted_at or later.started_at
    if earlier.ended_at is None or begins <= earlier.ended_at:
        # No id is given away while its job is known.
        return (
            earlier.ended_at is not None or later.started_at - earlier.started_at < _REQUEUE_WITHIN
        )
    wait = begins - earlier.ended_at
    if earlier.state in _COMES_AGAIN:
        return wait <= _REQUEUE_WITHIN
    if earlier.name != later.name and earlier.name and later.name:
        return False
    return wait <= (_RESUBMIT_WITHIN if later.submitted_at else _SAME_ID_WITHIN)


@dataclass
class _Job:
    """One record of a job that held GPUs."""

    rows: list[int]
    key: tuple[str, str]
    span: JobSpan
    fields: Mapping[str, str]
    shares: dict[str, int]
    is_assumed: bool


@dataclass
class _Reading:
    """What is being made of a file."""

    path: Path
    gpus: Gpus
    tz: str
    faults: RowFaults
    jobs: dict[tuple[str, str], list[_Job]] = field(default_factory=lambda: defaultdict(list))
    refused: set[tuple[str, str]] = field(default_factory=set)
    unknown_hosts: dict[str, int] = field(default_factory=dict)
    too_many: list[str] = field(default_factory=list)
    foreign_types: dict[str, int] = field(default_factory=dict)


def read(
    path: Path, plain: Path, gpus: Gpus, tz: str, max_share: float = MAX_BAD_SHARE
) -> RunsRead:
    """Read the jobs that held GPUs.

    Args:
        path: The file, for messages.
        plain: Its text.
        gpus: The GPUs that are known.
        tz: The zone of its times; empty if such times are refused.
        max_share: Part of the rows that may be bad.

    Raises:
        BadInput: a field is missing, or too many rows cannot be understood.
    """
    reading = _Reading(path, gpus, tz, RowFaults(path, max_share))
    rows = 0
    for number, row in read_rows(path, plain, reading.faults):
        rows += 1
        if row is not None:
            _add(reading, row, number)
    runs = [run for key, jobs in reading.jobs.items() for run in _join_jobs(reading, key, jobs)]
    reading.faults.check(rows)
    whole = [run for run in runs if find_key(run) not in reading.refused]
    for run in runs:
        if find_key(run) in reading.refused:
            for number in run.rows:
                reading.faults.add(number, ANOTHER_ROW, "JobID", run.run_id)
    return RunsRead(reading.faults, whole, rows, _list_warnings(reading, whole), [])


def _add(reading: _Reading, row: Mapping[str, str], number: int) -> None:
    """Add the job of a row, or count why it is left out, or set it aside."""
    faults = reading.faults
    job_id = row["jobid"].strip()
    key = (row.get("cluster", "").strip(), job_id)
    if "." in job_id:
        # A step's time and GPUs are within its job's.
        faults.skip("job steps")
        return
    try:
        if not re.fullmatch(r"[0-9]+(?:_(?:[0-9]+|\[[^\]|]*\]))?(?:\+[0-9]+)?", job_id):
            raise BadInput("not a job id", where=f"row {number}, column 'JobID', value {job_id!r}")
        span = _parse_span(row, number, reading)
        if span is None:
            faults.skip(_NEVER)
            return
        job = _divide(reading, row, number, key, span)
    except (BadInput, UsageError) as error:
        faults.add_error(number, error)
        reading.refused.add(key)
        return
    if job is not None:
        reading.jobs[key].append(job)


def _divide(
    reading: _Reading, row: Mapping[str, str], number: int, key: tuple[str, str], span: JobSpan
) -> _Job | None:
    """The job of a row with the share of each GPU that it held; None where it is left out, which is counted.

    Raises:
        BadInput: its GPUs or nodes cannot be understood.
    """
    faults = reading.faults

    def refuse(error: ValueError, column: str) -> BadInput:
        value = row[column.lower()][:80]
        return BadInput(
            str(error),
            where=f"row {number}, column {column!r}, value {value!r}",
            remedy="Check the row; GPUs that are missing can be declared under [[gpu]]",
        )

    try:
        counts = count_gpus(row["alloctres"])
    except ValueError as error:
        raise refuse(error, "AllocTRES") from None
    if not counts.total:
        faults.skip(_PARTS if counts.has_parts else _WITHOUT_GPUS)
        return None
    try:
        by_host, unknown = find_hosts(reading.gpus, row["nodelist"])
    except ValueError as error:
        raise refuse(error, "NodeList") from None
    if unknown or not by_host:
        for host in unknown or ["none assigned"]:
            reading.unknown_hosts[host] = reading.unknown_hosts.get(host, 0) + 1
        faults.skip(_UNKNOWN_HOSTS)
        return None
    try:
        held = divide_gpus(counts, by_host)
    except TooManyGpus as error:
        reading.too_many.append(f"job {key[1]} on {', '.join(list(by_host)[:3])}: {error}")
        faults.skip(_TOO_MANY)
        return None
    except ValueError as error:
        raise refuse(error, "AllocTRES") from None
    for name in held.foreign_types:
        reading.foreign_types[name] = reading.foreign_types.get(name, 0) + 1
    return _Job([number], key, span, row, held.shares, held.is_assumed)


def _parse_span(row: Mapping[str, str], number: int, reading: _Reading) -> JobSpan | None:
    """When a job ran; None where it never did.

    Raises:
        BadInput: an unknown state, or times that do not go together.
    """
    place = f"row {number}"
    state = (row["state"].split() or [""])[0].rstrip("+").upper()
    if state not in _NEVER_RAN | _GOES_ON | _ENDED:
        raise BadInput(
            "unknown state",
            where=f"{place}, column 'State', value {row['state'][:80]!r}",
            remedy="If a newer Slurm has it, please report it; else fix the line",
        )
    if state in _NEVER_RAN:
        return None
    elapsed, suspended = _parse_elapsed(row, "elapsed"), _parse_elapsed(row, "suspended")
    whole = None if elapsed is None else elapsed + (suspended or timedelta())
    start, end = times.parse_span(
        ("Start", _read_time(row, "start")),
        ("End", "" if state in _GOES_ON else _read_time(row, "end")),
        place,
        reading.tz,
        whole,
    )
    if start is None or end == start:
        if elapsed and start is None:
            raise BadInput(
                "a job that ran without a start",
                where=f"{place}, column 'Start', value {row['start']!r}",
                remedy="Ask sacct again",
            )
        return None
    if end is None and state in _ENDED:
        raise BadInput(
            "an ended job without an end",
            where=f"{place}, column 'End', value {row['end'][:80]!r}",
            remedy="Ask sacct again; the accounting may lag behind",
        )
    _check_span(row, place, (start, end), whole, is_suspended=suspended is None)
    submitted = times.list_moments(_read_time(row, "submit"), "Submit", place, reading.tz)
    return JobSpan(
        row.get("user", ""),
        row.get("jobname", ""),
        submitted[0] if submitted else None,
        start,
        end,
        state,
    )


def _check_span(
    row: Mapping[str, str],
    place: str,
    span: tuple[datetime, datetime | None],
    elapsed: timedelta | None,
    *,
    is_suspended: bool,
) -> None:
    """Refuse times that cannot be, or that contradict the duration told beside them.

    Args:
        row: The fields.
        place: The row, for messages.
        span: Start and end.
        elapsed: The duration, where it is told.
        is_suspended: Whether the job may have been suspended for a time that is not told.
    """
    start, end = span
    for column, moment in (("Start", start), ("End", end)):
        if moment is not None and not times.is_believable(moment):
            raise BadInput(
                times.UNBELIEVABLE,
                where=f"{place}, column {column!r}, value {row[column.lower()]!r}",
                remedy="Check the line, and the clock that recorded",
            )
    if end is None:
        return
    where = f"{place}, column 'End', value {row['end']!r}"
    if end < start:
        raise BadInput("the job ends before it starts", where=where, remedy="Check the line")
    if elapsed is None:
        return
    over = (end - start - elapsed).total_seconds()
    is_clock_change = abs(abs(over) - 3600) <= _TOLERANCE_S
    if over < -_TOLERANCE_S or (over > _TOLERANCE_S and (is_clock_change or not is_suspended)):
        raise BadInput(
            f"it is {end - start} from start to end, but the elapsed time is {elapsed}",
            where=where,
            remedy="Check --tz, and whether Start and End are of one clock",
        )


_TOLERANCE_S = 5


def _read_time(row: Mapping[str, str], column: str) -> str:
    """A time as text; empty where there is none. SLURM_TIME_FORMAT=%s writes seconds since 1970."""
    text = row.get(column, "").strip()
    if re.fullmatch(r"[0-9]{9,10}", text):
        return datetime.fromtimestamp(int(text), UTC).isoformat()
    return "" if text in ("Unknown", "None", "N/A", "0") else text


def _parse_elapsed(row: Mapping[str, str], column: str) -> timedelta | None:
    """A duration: `[DD-[HH:]]MM:SS[.mmm]`, or seconds in the raw column; None where it is not told."""
    raw = row.get(f"{column}raw", "").strip()
    if re.fullmatch(r"[0-9]{1,10}", raw):
        return timedelta(seconds=int(raw))
    parts = re.fullmatch(
        r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})(?:\.[0-9]+)?",
        row.get(column, "").strip(),
    )
    if parts is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _join_jobs(reading: _Reading, key: tuple[str, str], jobs: Sequence[_Job]) -> list[Run]:
    """Join the records of one job id into runs: one, or several where the id came again."""
    joined: list[list[_Job]] = []
    for job in sorted(jobs, key=lambda job: (job.span.started_at, job.rows)):
        last = joined[-1][-1] if joined else None
        if last is None or not is_same_job(last.span, job.span):
            joined.append([job])
        elif last.span.started_at == job.span.started_at:
            # sacct was asked while the job ran, and again later.
            newer, older = (last, job) if _tells_more(last, job) else (job, last)
            contradicts = older.span.ended_at and older.span.ended_at != newer.span.ended_at
            if contradicts or (older.shares != newer.shares and older.span.ended_at):
                _refuse_contradiction(reading, key, job)
            last.rows += job.rows
            newer.rows = last.rows
            joined[-1][-1] = newer
        else:
            if last.span.ended_at is None or last.span.ended_at > job.span.started_at:
                _refuse_contradiction(reading, key, job)
            joined[-1].append(job)
    runs = [_build_run(key, attempts) for attempts in joined]
    for run in runs[1:]:
        run.run_id = name_again(run)
    return runs


def _tells_more(one: _Job, other: _Job) -> bool:
    """Whether a record is newer than another one of the same start: it has ended, or ended later."""
    ends = one.span.ended_at, other.span.ended_at
    return ends[0] is not None and (ends[1] is None or ends[0] >= ends[1])


def _refuse_contradiction(reading: _Reading, key: tuple[str, str], job: _Job) -> None:
    reading.faults.add(
        job.rows[-1],
        "two records of one job tell of the same time",
        "JobID",
        key[1],
        "Ask sacct again; if two clusters number alike, with the field Cluster",
    )
    reading.refused.add(key)


def name_job(cluster: str, job_id: str) -> str:
    """The id of the run that a job is; `wattledger run` within the job names it likewise."""
    return f"{cluster or 'slurm'}-{job_id}"


def find_key(run: Run) -> tuple[str, str]:
    """Cluster and job id of a run that is a job."""
    return run.labels.get("slurm_cluster", ""), run.labels["slurm_job"]


def name_again(run: Run) -> str:
    """The name of a run whose job id is also another job's: with its start."""
    return f"{name_job(*find_key(run))}-{run.started_at:%Y%m%dT%H%M%SZ}"


def _build_run(key: tuple[str, str], attempts: Sequence[_Job]) -> Run:
    """A job as a run, with the GPUs that each of its attempts held."""
    first, last = attempts[0], attempts[-1]
    fields = last.fields
    labels = {
        f"slurm_{name}": fields[name]
        for name in ("account", "partition", "qos", "state", "exitcode", "nnodes")
        if fields.get(name)
    }
    labels["slurm_job"] = key[1]
    if key[0]:
        labels["slurm_cluster"] = key[0]
    raw = fields.get("jobidraw") or (key[1] if key[1].isdigit() else "")
    if raw:
        labels["slurm_job_id"] = raw
    if first.span.submitted_at:
        labels["slurm_submit"] = first.span.submitted_at.isoformat()
    if len(attempts) > 1:
        labels["slurm_attempts"] = str(len(attempts))
    if any(job.is_assumed for job in attempts):
        labels[SHARES_ASSUMED] = "true"
    return Run(
        name_job(*key),
        fields.get("jobname") or None,
        fields.get("user") or None,
        None,
        first.span.started_at,
        last.span.ended_at,
        labels,
        [
            Allocation(uuid, job.span.started_at, job.span.ended_at, share, f"row {job.rows[-1]}")
            for job in attempts
            for uuid, share in job.shares.items()
            if share
        ],
        [row for job in attempts for row in job.rows],
    )


def _list_warnings(reading: _Reading, runs: Sequence[Run]) -> list[str]:
    """What people should know of the file, as sentences."""
    warnings = []
    if names := sorted(reading.unknown_hosts):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        warnings.append(
            f"jobs left out because no GPU of their hosts is known ({', '.join(names[:5])}{more}): "
            "load the readings of these hosts or declare them under [[gpu]], then load this again"
        )
    if reading.too_many:
        warnings.append(
            f"{len(reading.too_many):,} jobs left out because they held more GPUs than are known "
            f"({reading.too_many[0]}): load all readings of these hosts, then load this again"
        )
    if reading.foreign_types:
        names = [f"{name}: {count:,} jobs" for name, count in sorted(reading.foreign_types.items())]
        warnings.append(
            "types of GPUs that are no model known here were taken for the only model of their "
            f"hosts ({'; '.join(names[:5])})"
        )
    if assumed := sum(SHARES_ASSUMED in run.labels for run in runs):
        warnings.append(
            f"{assumed:,} jobs held some of the GPUs of their hosts, and which is not told: each GPU "
            f"counts with that part (label {SHARES_ASSUMED}); run records would name them"
        )
    return warnings
