"""Runs from the records that `wattledger run` and `wattledger.track` leave on the nodes.

One file per launched process; records of one run id become one run. A GPU that several ranks of a run
saw is held once. A GPU that several runs claim whole at the same time is shared among them in equal
parts: nothing better is known, and the label `shares_assumed` says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from flows.errors import BadInput
from flows.sources.runs.table import Allocation, Run
from transforms.constants import NO_GPU, PPM
from wattledger.readings import Held
from wattledger.runs.records import FORMAT_KEY, Record, load_record

ASSUMED = "shares_assumed"
_OPEN = datetime.max.replace(tzinfo=UTC)
_LABELS = {
    "slurm": ("SLURM_JOB_ID", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION", "SLURM_CLUSTER_NAME"),
    "kubernetes": ("namespace",),
}


@dataclass(frozen=True)
class Claim:
    """A GPU, or an instance of it, that one process of a run could use."""

    run_id: str
    gpu_uuid: str
    instance: str
    share_ppm: int
    start: datetime
    end: datetime


def is_record(path: Path) -> bool:
    """Whether a file is a run record (and not a run table)."""
    if path.suffix != ".json":
        return False
    try:
        given = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(given, dict) and FORMAT_KEY in given


def read(path: Path) -> Record:
    """Read a record and check what runs are built from.

    Raises:
        BadInput: something is missing or impossible.
    """
    try:
        record = load_record(path)
        if not record.run_id or not record.record_id:
            raise ValueError("no run_id or record_id")
        begin, end = parse_span(record)
        if end < begin:
            raise ValueError(f"it ends ({record.ended_at}) before it starts ({record.started_at})")
        for held in record.gpus:
            if not 0 < held.share_ppm <= PPM:
                raise ValueError(f"share_ppm {held.share_ppm} of {held.gpu_uuid}")
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(str(error), where=str(path), remedy="Copy the file again") from None
    return record


def parse_span(record: Record) -> tuple[datetime, datetime]:
    """Start and end; a record without an end goes on."""
    begin = datetime.fromisoformat(record.started_at)
    end = datetime.fromisoformat(record.ended_at) if record.ended_at else _OPEN
    if begin.tzinfo is None or end.tzinfo is None:
        raise ValueError("a time without zone")
    return begin, end


def supersedes(new: Record, old: Record) -> bool:
    """Whether one state of a record comes after another: what has ended stays so, the later end counts."""
    if old.ended_at is None:
        return True
    return new.ended_at is not None and parse_span(new)[1] >= parse_span(old)[1]


def list_claims(found: Iterable[Record]) -> list[Claim]:
    """What the processes could use, and when."""
    return [
        Claim(r.run_id, held.gpu_uuid, held.instance, held.share_ppm, *parse_span(r))
        for r in found
        for held in list_devices(r)
    ]


def list_devices(record: Record) -> list[Held]:
    """The GPUs of a record; without any, its host stands for them."""
    return record.gpus or [make_host_device(record.host)]


def make_host_device(host: str) -> Held:
    """What a run without any GPU holds (docs/method.md, "Host")."""
    return Held(f"{host}/host", None, NO_GPU)


def find_related_runs(every: Sequence[Record], changed: Iterable[str]) -> set[str]:
    """The run ids whose shares may depend on those of `changed`: runs at the same time on one GPU."""
    by_gpu: dict[str, list[Claim]] = defaultdict(list)
    by_run: dict[str, list[Claim]] = defaultdict(list)
    for claim in list_claims(every):
        by_gpu[claim.gpu_uuid].append(claim)
        by_run[claim.run_id].append(claim)
    reached, waiting = set(changed), list(changed)
    while waiting:
        for mine in by_run[waiting.pop()]:
            for other in by_gpu[mine.gpu_uuid]:
                overlaps = other.start < mine.end and mine.start < other.end
                if overlaps and other.run_id not in reached:
                    reached.add(other.run_id)
                    waiting.append(other.run_id)
    return reached


def divide_gpus(found: Iterable[Claim]) -> Iterator[tuple[str, str, datetime, datetime, int, bool]]:
    """Who holds what: run_id, gpu_uuid, from, to, share_ppm, and whether the share is assumed.

    On one GPU at one time, a run holds each instance once, however many ranks name it; where the
    runs together claim more than the GPU, each gets its part of it in proportion.
    """
    by_gpu: dict[str, list[Claim]] = defaultdict(list)
    for claim in found:
        if claim.end > claim.start:
            by_gpu[claim.gpu_uuid].append(claim)
    for uuid, mine in sorted(by_gpu.items()):
        borders = sorted({moment for c in mine for moment in (c.start, c.end)})
        held: dict[str, tuple[datetime, datetime, int, bool]] = {}
        for begin, end in pairwise(borders):
            now = _at(c for c in mine if c.start <= begin and c.end >= end)
            for run_id, (share, assumed) in now.items():
                last = held.get(run_id)
                if last is not None and last[1:] == (begin, share, assumed):
                    held[run_id] = (last[0], end, share, assumed)
                    continue
                if last is not None:
                    yield run_id, uuid, *last
                held[run_id] = (begin, end, share, assumed)
        for run_id, last in sorted(held.items()):
            yield run_id, uuid, *last


def _at(present: Iterable[Claim]) -> dict[str, tuple[int, bool]]:
    """Shares of one GPU while nothing changes: run id -> (share_ppm, assumed)."""
    instances: dict[str, dict[str, int]] = defaultdict(dict)
    for claim in present:
        known = instances[claim.run_id]
        known[claim.instance] = max(known.get(claim.instance, 0), claim.share_ppm)
    wanted = {run_id: min(PPM, sum(by.values())) for run_id, by in sorted(instances.items())}
    total = sum(wanted.values())
    if total <= PPM:
        return {run_id: (share, False) for run_id, share in wanted.items()}
    return {run_id: (share * PPM // total, True) for run_id, share in wanted.items()}


def build_runs(every: Sequence[Record], wanted: Iterable[str]) -> list[Run]:
    """Runs, with their allocations, from all records of the wanted run ids."""
    ids = set(wanted)
    mine = [r for r in every if r.run_id in ids]
    by_run: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(mine, key=lambda r: (parse_span(r)[0], r.record_id)):
        by_run[record.run_id].append(record)
    runs = {run_id: _run(run_id, found) for run_id, found in sorted(by_run.items())}
    for run_id, uuid, begin, end, share, assumed in divide_gpus(list_claims(mine)):
        run = runs[run_id]
        to = None if end == _OPEN else end
        run.allocations.append(Allocation(uuid, begin, to, share, "run record"))
        if assumed:
            run.labels[ASSUMED] = "true"
    return list(runs.values())


def _run(run_id: str, found: Sequence[Record]) -> Run:
    """A run without its allocations, from its records in order of start."""
    first = found[0]
    spans = [parse_span(r) for r in found]
    end = max(end for _, end in spans)
    labels: dict[str, Any] = {}
    for record in found:
        for group, names in _LABELS.items():
            given = getattr(record, group)
            labels |= {n.lower(): given[n] for n in names if n in given}
    for record in found:
        labels |= record.labels
    labels["hosts"] = str(len({r.host for r in found}))
    codes = [r.exit_code for r in found if r.exit_code is not None]
    if codes:
        labels["exit_code"] = str(next((code for code in codes if code), 0))
    if any(r.ended_by == "lost" for r in found):
        labels["end"] = "not seen: last known to be alive"
    return Run(
        run_id,
        first.name or None,
        first.owner or None,
        None,
        spans[0][0],
        None if end == _OPEN else end,
        labels,
    )
