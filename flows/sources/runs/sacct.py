"""Slurm accounting: jobs and what they held, from `sacct --parsable2` (docs/formats.md).

sacct says how many GPUs of a node a job had, not which. A job that had all of them held each whole.
One that had some held, in expectation, that part of each; the label `shares_assumed` says so. Records
of `wattledger run` name the GPUs: load one or the other for a job.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path

from flows.errors import BadInput, locate
from flows.sources.runs.table import Allocation, Gpus, Run
from flows.times import parse_time
from transforms.constants import PPM

XDMOD_FIELDS = [
    "jobid",
    "jobidraw",
    "cluster",
    "partition",
    "qos",
    "account",
    "group",
    "gid",
    "user",
    "uid",
    "submit",
    "eligible",
    "start",
    "end",
    "elapsed",
    "exitcode",
    "state",
    "nnodes",
    "ncpus",
    "reqcpus",
    "reqmem",
    "reqtres",
    "alloctres",
    "timelimit",
    "nodelist",
    "jobname",
]
"""Fields of a file without a header: the 26 that accounting tools ask for, in this order."""
NEEDED = ("jobid", "start", "end", "state", "alloctres", "nodelist")

_NEVER_RAN = {"PENDING", "REVOKED"}
_GOES_ON = {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "STOPPED", "SIGNALING"}
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "TIMEOUT",
    "LAUNCH_FAILED",
    "RECONFIG_FAIL",
}


@dataclass
class Jobs:
    """The jobs of a file that held GPUs, and what was left out."""

    runs: list[Run] = field(default_factory=list)
    rows: int = 0
    without_gpus: int = 0
    never_ran: int = 0
    steps: int = 0
    unknown_hosts: dict[str, int] = field(default_factory=dict)
    """Host without known GPUs -> jobs on it that were left out."""

    @property
    def skipped(self) -> int:
        return self.without_gpus + self.never_ran + self.steps

    def warnings(self) -> list[str]:
        if not self.unknown_hosts:
            return []
        names = sorted(self.unknown_hosts)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return [
            f"jobs left out because no GPU of their hosts is known ({', '.join(names[:5])}{more}): "
            "load the readings of these hosts or declare them under [[gpu]], then load this again"
        ]


def is_sacct(header: str) -> bool:
    """Whether the first line of a file is sacct's: fields between bars, with or without names."""
    fields = [name.strip().lower() for name in header.split("|")]
    return ("jobid" in fields and len(fields) > 1) or len(fields) == len(XDMOD_FIELDS)


def read(path: Path, plain: Path, gpus: Gpus, tz: str) -> Jobs:
    """Read the jobs that held GPUs.

    Args:
        path: The file, for messages.
        plain: Its text.
        gpus: The GPUs that are known.
        tz: The zone of its times; empty if such times are refused.

    Raises:
        BadInput: a field is missing, or a value cannot be understood, with its place.
        UsageError: a time without zone, and none given.
    """
    jobs = Jobs()
    for number, row in _read_rows(path, plain):
        jobs.rows += 1
        _add(jobs, row, number, path, gpus, tz)
    return jobs


def _read_rows(path: Path, plain: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with plain.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)
        names: list[str] | None = None
        for number, fields in enumerate(reader, 1):
            if not fields:
                continue
            lowered = [name.strip().lower() for name in fields]
            if "jobid" in lowered:
                names = lowered
                if missing := [name for name in NEEDED if name not in names]:
                    raise BadInput(
                        f"no field {missing[0]!r}",
                        where=locate(path, number),
                        remedy=f"Ask sacct for --format={','.join(NEEDED)},cluster,user,jobname",
                    )
                continue
            if names is None:
                names = XDMOD_FIELDS
            if len(fields) == len(names) + 1 and fields[-1] == "":
                # --parsable ends lines with a bar, --parsable2 does not.
                fields = fields[:-1]
            if len(fields) != len(names):
                raise BadInput(
                    f"{len(fields)} fields, expected {len(names)}",
                    where=locate(path, number),
                    remedy="Use sacct --parsable2 with its header; a bar inside a job name breaks it",
                )
            yield number, dict(zip(names, fields, strict=True))


def _add(jobs: Jobs, row: Mapping[str, str], number: int, path: Path, gpus: Gpus, tz: str) -> None:
    """Add the job of a row, or count why it is left out."""
    if "." in row["jobid"]:
        # A step's time and GPUs are within its job's.
        jobs.steps += 1
        return
    span = _parse_span(row, number, path, tz)
    if span is None:
        jobs.never_ran += 1
        return
    count = count_gpus(row["alloctres"])
    if count == 0:
        jobs.without_gpus += 1
        return
    by_host = {host: _find_gpus(gpus, host) for host in expand_nodelist(row["nodelist"])}
    unknown = [host for host, uuids in by_host.items() if not uuids]
    if unknown or not by_host:
        for host in unknown or ["none assigned"]:
            jobs.unknown_hosts[host] = jobs.unknown_hosts.get(host, 0) + 1
        return
    start, end = span
    run = _build_run(row, start, end)
    for host, share in _divide_gpus(count, by_host).items():
        if share < PPM:
            run.labels["shares_assumed"] = "true"
        run.allocations += [
            Allocation(uuid, start, end, share, f"row {number}") for uuid in by_host[host]
        ]
    jobs.runs.append(run)


def _parse_span(
    row: Mapping[str, str], number: int, path: Path, tz: str
) -> tuple[datetime, datetime | None] | None:
    """Start and end of a job, which has none while it goes on; None where it never ran.

    Raises:
        BadInput: an unknown state, or times that do not go together.
        UsageError: a time without zone, and none given.
    """
    state = row["state"].split(" ")[0].rstrip("+").upper()
    if state not in _NEVER_RAN | _GOES_ON | _ENDED:
        raise BadInput(
            "unknown state",
            where=locate(path, number, "State", row["state"]),
            remedy="If a newer Slurm has it, please report it; else fix the line",
        )
    place = f"{path}, row {number}"
    start = _parse_time(row["start"], "Start", place, tz)
    end = None if state in _GOES_ON else _parse_time(row["end"], "End", place, tz)
    if state in _NEVER_RAN or start is None or end == start:
        return None
    if end is None and state in _ENDED:
        raise BadInput(
            "an ended job without an end",
            where=locate(path, number, "End", row["end"]),
            remedy="Ask sacct again; the accounting may lag behind",
        )
    if end is not None and end < start:
        raise BadInput(
            "the job ends before it starts",
            where=locate(path, number, "End", row["end"]),
            remedy="Check the line",
        )
    return start, end


def _parse_time(text: str, column: str, place: str, tz: str) -> datetime | None:
    return None if text in ("", "Unknown", "None") else parse_time(text, column, place, tz)


def _build_run(row: Mapping[str, str], start: datetime, end: datetime | None) -> Run:
    """A job as a run, without its allocations."""
    return Run(
        f"{row.get('cluster') or 'slurm'}-{row['jobid']}",
        row.get("jobname") or None,
        row.get("user") or None,
        None,
        start,
        end,
        {
            f"slurm_{name}": row[name]
            for name in ("account", "partition", "qos", "state", "exitcode", "nnodes")
            if row.get(name)
        },
    )


def _find_gpus(gpus: Gpus, host: str) -> list[str]:
    """GPUs of a host; Slurm may know it by its short name and the ledger by its long one."""
    return gpus.find(host, "all") or next(
        (gpus.find(full, "all") for full in gpus.find_full_names(host)), []
    )


def _divide_gpus(count: int, by_host: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Share of each GPU of each host that a job with `count` GPUs held, in ppm.

    GPUs are divided among hosts as evenly as their sizes allow, as Slurm does.
    """
    free = {host: len(uuids) for host, uuids in by_host.items()}
    taken: dict[str, int] = defaultdict(int)
    for _ in range(min(count, sum(free.values()))):
        host = max(free, key=lambda name: (free[name] > 0, -taken[name]))
        free[host] -= 1
        taken[host] += 1
    return {host: taken[host] * PPM // len(uuids) for host, uuids in by_host.items() if taken[host]}


def count_gpus(tres: str) -> int:
    """GPUs in a text of trackable resources: the total, or else the sum of the types."""
    total, typed = 0, 0
    for part in tres.split(","):
        name, _, value = part.partition("=")
        if name == "gres/gpu":
            total += int(value or 0)
        elif name.startswith("gres/gpu:"):
            typed += int(value or 0)
    return total or typed


def expand_nodelist(nodelist: str) -> list[str]:
    """The hosts of a Slurm node list: `n[01-03,7],gpu2-[a,b]` and the like."""
    if nodelist in ("", "None assigned", "(null)"):
        return []
    # Split at commas outside of brackets.
    hosts = []
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        parts = re.split(r"\[([^\]]*)\]", entry)
        choices = [_expand_range(part) if i % 2 else [part] for i, part in enumerate(parts)]
        hosts += ["".join(choice) for choice in product(*choices)]
    return hosts


def _expand_range(text: str) -> list[str]:
    """What is between brackets: `01-03,7` -> 01, 02, 03, 7."""
    names = []
    for part in text.split(","):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if span is None:
            names.append(part)
            continue
        width = len(span[1])
        names += [f"{n:0{width}d}" for n in range(int(span[1]), int(span[2]) + 1)]
    return names
