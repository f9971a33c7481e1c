"""Runs from the records that `wattledger run` and `wattledger.track` leave on the nodes.

One file per launched process; records of one run id become one run. A GPU that several ranks of a run
saw is held once. Where runs together claim more than a GPU at the same time, each gets its part in
proportion: nothing better is known, and the label `shares_assumed` says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flows.errors import BadInput
from flows.files import name_for_people
from flows.sources.runs.run import Allocation, Run, is_same_host
from flows.sources.runs.slurm_gpus import expand_nodelist
from flows.times import UNBELIEVABLE, is_believable
from transforms.constants import NO_GPU, PPM
from wattledger.readings import Held
from wattledger.runs.records import FORMAT_KEY, Record, parse_record

ASSUMED = "shares_assumed"
_OPEN = datetime.max.replace(tzinfo=UTC)
_LABELS = {
    "slurm": ("SLURM_JOB_ID", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION", "SLURM_CLUSTER_NAME"),
    "kubernetes": ("namespace",),
}
_TOLD = ("slurm_", ASSUMED)
"""How labels begin that users cannot give their runs."""


@dataclass(frozen=True)
class Claim:
    """A GPU, or an instance of it, that one process of a run could use."""

    run_id: str
    gpu_uuid: str
    instance: str
    share_ppm: int
    start: datetime
    end: datetime


class Holding(NamedTuple):
    """What a run held of a GPU over a span of time."""

    run_id: str
    gpu_uuid: str
    start: datetime
    end: datetime
    share_ppm: int
    is_assumed: bool
    """The runs together claimed more than the GPU, and each got its part in proportion."""


def is_record(data: bytes) -> bool:
    """Whether the bytes of a .json file are a run record (and not a run table)."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError, MemoryError):
        # Whatever else reads it will say so.
        return False
    return isinstance(content, dict) and FORMAT_KEY in content


def parse(data: bytes, path: Path) -> Record:
    """A record from the bytes of its file, checked for what runs are built from.

    Raises:
        BadInput: something is missing or impossible.
    """
    try:
        record = parse_record(data)
        begin, end = parse_span(record)
        if end < begin:
            raise ValueError(f"it ends ({record.ended_at}) before it starts ({record.started_at})")
        if not is_believable(begin) or not (end == _OPEN or is_believable(end)):
            raise ValueError(f"{UNBELIEVABLE} ({record.started_at} to {record.ended_at})")
        for held in record.gpus:
            if not 0 < held.share_ppm <= PPM:
                raise ValueError(f"share_ppm {held.share_ppm} of {held.gpu_uuid}")
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            str(error), where=name_for_people(path), remedy="Copy the file again"
        ) from None
    return record


def find_foreign_gpu(record: Record, hosts: Mapping[str, str], *, is_vouched: bool = True) -> str:
    """Why a record cannot be believed that claims a GPU of another host than its own; empty where none does.

    A job on several hosts may: the scheduler's node list says so. A user's own record may not, and it
    claims only GPUs of which readings have told.

    Args:
        record: The record.
        hosts: UUID -> host of GPUs that are known.
        is_vouched: Whether root or the operator wrote it.
    """
    allowed = [record.host]
    with suppress(ValueError):
        allowed += expand_nodelist(record.slurm.get("SLURM_JOB_NODELIST", "")) if is_vouched else []
    for held in record.gpus:
        by_name = held.gpu_uuid.rpartition("/")[0]
        owner = hosts.get(held.gpu_uuid, by_name or (record.host if is_vouched else ""))
        if not owner:
            return (
                f"it claims GPU {held.gpu_uuid}, which no reading of {record.host} tells of yet: "
                "it is loaded when one does"
            )
        if not any(is_same_host(owner, host) for host in allowed):
            return (
                f"it claims GPU {held.gpu_uuid} of host {owner}, but was written on {record.host}"
            )
    return ""


def parse_span(record: Record) -> tuple[datetime, datetime]:
    """Start and end; a record without an end goes on."""
    begin = datetime.fromisoformat(record.started_at)
    end = datetime.fromisoformat(record.ended_at) if record.ended_at else _OPEN
    if begin.tzinfo is None or end.tzinfo is None:
        raise ValueError("a time without zone")
    return begin, end


def supersedes(new: Record, old: Record) -> bool:
    """Whether a state of a record comes after another one of the same record.

    A record that has ended stays so, and the later end counts.
    """
    if old.ended_at is None:
        return True
    return new.ended_at is not None and parse_span(new)[1] >= parse_span(old)[1]


def list_claims(records: Iterable[Record]) -> list[Claim]:
    """What the processes could use, and when."""
    return [
        Claim(record.run_id, held.gpu_uuid, held.instance, held.share_ppm, *parse_span(record))
        for record in records
        for held in list_devices(record)
    ]


def list_devices(record: Record) -> list[Held]:
    """The GPUs of a record; without any, its host stands for them."""
    return record.gpus or [make_host_device(record.host)]


def make_host_device(host: str) -> Held:
    """What a run without any GPU holds (docs/method.md, "Host")."""
    return Held(f"{host}/host", None, NO_GPU)


def find_related_runs(records: Sequence[Record], changed: Iterable[str]) -> set[str]:
    """The runs whose shares may depend on those of some runs: those at the same time on one GPU.

    Args:
        records: All records that there are.
        changed: The ids of the runs to begin with.

    Returns:
        The ids of all runs that they reach, `changed` included.
    """
    by_gpu: dict[str, list[Claim]] = defaultdict(list)
    by_run: dict[str, list[Claim]] = defaultdict(list)
    for claim in list_claims(records):
        by_gpu[claim.gpu_uuid].append(claim)
        by_run[claim.run_id].append(claim)
    reached, waiting = set(changed), list(changed)
    while waiting:
        for claim in by_run[waiting.pop()]:
            for other in by_gpu[claim.gpu_uuid]:
                overlaps = other.start < claim.end and claim.start < other.end
                if overlaps and other.run_id not in reached:
                    reached.add(other.run_id)
                    waiting.append(other.run_id)
    return reached


def divide_gpus(claims: Iterable[Claim]) -> Iterator[Holding]:
    """Who held what, from who could use what.

    On one GPU at one time, a run holds each instance once, however many ranks name it. Where the
    runs together claim more than the GPU, each gets its part of it in proportion.
    """
    by_gpu: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        if claim.end > claim.start:
            by_gpu[claim.gpu_uuid].append(claim)
    for uuid, on_gpu in sorted(by_gpu.items()):
        yield from _divide_gpu(uuid, on_gpu)


def _divide_gpu(uuid: str, claims: Sequence[Claim]) -> Iterator[Holding]:
    borders = sorted({moment for claim in claims for moment in (claim.start, claim.end)})
    latest: dict[str, Holding] = {}
    for start, end in pairwise(borders):
        shares = _divide(claim for claim in claims if claim.start <= start and claim.end >= end)
        for run_id, (share, assumed) in shares.items():
            before = latest.get(run_id)
            holding = Holding(run_id, uuid, start, end, share, assumed)
            if before is not None and before[3:] == (start, share, assumed):
                holding = holding._replace(start=before.start)
            elif before is not None:
                yield before
            latest[run_id] = holding
    for _, holding in sorted(latest.items()):
        yield holding


def _divide(present: Iterable[Claim]) -> dict[str, tuple[int, bool]]:
    """Shares of one GPU while nothing changes: run id -> (share_ppm, is_assumed)."""
    instances: dict[str, dict[str, int]] = defaultdict(dict)
    for claim in present:
        of_run = instances[claim.run_id]
        of_run[claim.instance] = max(of_run.get(claim.instance, 0), claim.share_ppm)
    claimed = {run_id: min(PPM, sum(by.values())) for run_id, by in sorted(instances.items())}
    total = sum(claimed.values())
    if total <= PPM:
        return {run_id: (share, False) for run_id, share in claimed.items()}
    return {run_id: (share * PPM // total, True) for run_id, share in claimed.items()}


def build_runs(records: Sequence[Record], run_ids: Iterable[str]) -> list[Run]:
    """Runs, with their allocations, from all records of these run ids."""
    ids = set(run_ids)
    selected = [record for record in records if record.run_id in ids]
    by_run: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(selected, key=lambda r: (parse_span(r)[0], r.record_id)):
        by_run[record.run_id].append(record)
    runs = {run_id: _build_run(run_id, of_run) for run_id, of_run in sorted(by_run.items())}
    for holding in divide_gpus(list_claims(selected)):
        run = runs[holding.run_id]
        end = None if holding.end == _OPEN else holding.end
        run.allocations.append(
            Allocation(holding.gpu_uuid, holding.start, end, holding.share_ppm, "run record")
        )
        if holding.is_assumed:
            run.labels[ASSUMED] = "true"
    return list(runs.values())


def _build_run(run_id: str, records: Sequence[Record]) -> Run:
    """A run without its allocations, from its records in order of start."""
    first = records[0]
    spans = [parse_span(record) for record in records]
    end = max(end for _, end in spans)
    return Run(
        run_id,
        first.name or None,
        first.owner or None,
        None,
        spans[0][0],
        None if end == _OPEN else end,
        _build_labels(records),
    )


def _build_labels(records: Sequence[Record]) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for record in records:
        # What accounting and the records themselves tell, no user's label can say.
        labels |= {k: v for k, v in record.labels.items() if not k.startswith(_TOLD)}
    for record in records:
        for group, names in _LABELS.items():
            values = getattr(record, group)
            labels |= {name.lower(): values[name] for name in names if name in values}
    labels["hosts"] = str(len({record.host for record in records}))
    codes = [record.exit_code for record in records if record.exit_code is not None]
    if codes:
        labels["exit_code"] = str(next((code for code in codes if code), 0))
    if any(record.ended_by == "lost" for record in records):
        labels["end"] = "not seen: last known to be alive"
    return labels
