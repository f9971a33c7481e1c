"""Run tables: who trained what, when, on which GPUs. CSV, JSON or TOML (docs/formats.md)."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.errors import BadInput, locate
from flows.files import open_plain_text
from flows.times import parse_time
from transforms.constants import PPM

RUN_FIELDS = ("run_id", "name", "owner", "model", "started_at", "ended_at")
_ALLOCATION_FIELDS = ("host", "gpu", "from", "to", "share")


@dataclass
class Allocation:
    """One GPU held by a run; `place` says where in the file it stands."""

    gpu_uuid: str
    from_ts: datetime
    to_ts: datetime | None
    share_ppm: int
    place: str


@dataclass
class Run:
    """A training run with its allocations."""

    run_id: str
    name: str | None
    owner: str | None
    model: str | None
    started_at: datetime
    ended_at: datetime | None
    labels: dict[str, str] = field(default_factory=dict)
    allocations: list[Allocation] = field(default_factory=list)


@dataclass(frozen=True)
class Gpus:
    """The GPUs that are known: (uuid, host, index)."""

    devices: tuple[tuple[str, str, int | None], ...]

    def find(self, host: str, text: str) -> list[str]:
        """UUIDs that a text means on a host: all, an index, a range, a list, or a UUID itself."""
        on_host = [(uuid, index) for uuid, h, index in self.devices if h == host]
        if text.strip().lower() in ("", "all", "*"):
            return sorted(uuid for uuid, _ in on_host)
        uuids = {uuid for uuid, _, _ in self.devices}
        found: list[str] = []
        for part in re.split(r"[,; ]+", text.strip()):
            if part in uuids:
                found.append(part)
                continue
            span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if span is None:
                return []
            first, last = int(span[1]), int(span[2] or span[1])
            by_index = {index: uuid for uuid, index in on_host}
            picked = [by_index.get(i) for i in range(first, last + 1)]
            if not picked or None in picked:
                return []
            found += [uuid for uuid in picked if uuid]
        return found

    def find_full_names(self, short: str) -> list[str]:
        """Hosts whose first label is `short`."""
        return sorted({host for _, host, _ in self.devices if host.split(".")[0] == short})

    def list_hosts(self) -> str:
        """The first ten hosts, for messages."""
        return ", ".join(sorted({host for _, host, _ in self.devices})[:10]) or "none"


def read(path: Path, gpus: Gpus, tz: str, scratch: Path) -> list[Run]:
    """Read a run table.

    Args:
        path: CSV, or JSON or TOML by its ending; any of them may be packed with gzip.
        gpus: The GPUs that are known.
        tz: The zone of times that carry none; empty if such times are refused.
        scratch: Folder for an unpacked copy.

    Raises:
        BadInput: missing column, unknown GPU, or a value that cannot be understood, with its place.
        UsageError: a time without zone, and none given.
    """
    with open_plain_text(path, scratch) as plain:
        text = plain.read_text("utf-8-sig")
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if kind == "json":
        entries = _parse_json(text, path)
    elif kind == "toml":
        entries = _parse_toml(text, path)
    else:
        entries = _parse_csv(text, path)
    runs: dict[str, Run] = {}
    for place, entry in entries:
        _add(runs, entry, place, path, gpus, tz)
    if not runs:
        raise BadInput("the table holds no run", where=str(path), remedy="See docs/formats.md")
    return list(runs.values())


def _parse_csv(text: str, path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    lines = text.splitlines()
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or []]
    if len(names) == 1 and any(d in names[0] for d in ";\t|"):
        raise BadInput(
            f"fields are not separated by commas ({names[0][:40]!r})",
            where=locate(path, 1),
            remedy="Save the table with commas",
        )
    for needed in ("run_id", "started_at"):
        if needed not in names:
            raise BadInput(
                f"no column {needed!r}",
                where=locate(path, 1, value=",".join(names)),
                remedy="Columns: run_id, started_at, ended_at, host, gpu, share, name, owner, model",
            )
    reader.fieldnames = names
    for row in reader:
        if None in row or None in row.values():
            raise BadInput(
                f"not {len(names)} fields",
                where=locate(path, reader.line_num),
                remedy="Fix the line; lists of GPUs need quotes or semicolons",
            )
        yield f"row {reader.line_num}", {k: v.strip() for k, v in row.items() if v.strip()}


def _parse_json(text: str, path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg}", where=locate(path, error.lineno), remedy="Fix the file"
        ) from None
    runs = content.get("runs") if isinstance(content, dict) else content
    return _list_entries(runs, path)


def _parse_toml(text: str, path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not TOML: {error}", where=str(path), remedy="Fix the file") from None
    return _list_entries(content.get("run"), path)


def _list_entries(runs: Any, path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise BadInput("no list of runs", where=str(path), remedy="See docs/formats.md")
    for number, run in enumerate(runs, 1):
        allocations = run.get("allocations") or run.get("allocation") or [{}]
        common = {k: v for k, v in run.items() if k not in ("allocations", "allocation")}
        for index, allocation in enumerate(allocations, 1):
            yield f"run {number}, allocation {index}", {**common, **allocation}


def _add(
    runs: dict[str, Run], entry: Mapping[str, Any], place: str, path: Path, gpus: Gpus, tz: str
) -> None:
    """Add the allocations of an entry to its run, which the first entry begins."""
    at = f"{path}, {place}"
    run = _parse_run(entry, at, tz)
    first = runs.setdefault(run.run_id, run)
    if (first.started_at, first.ended_at) != (run.started_at, run.ended_at):
        raise BadInput(
            f"run {run.run_id!r} has two different starts or ends",
            where=at,
            remedy="Use the columns from and to for parts of a run",
        )
    share = _parse_share(entry.get("share"), at)
    from_ts = parse_time(entry.get("from"), "from", at, tz) or run.started_at
    to_ts = parse_time(entry.get("to"), "to", at, tz) or run.ended_at
    for host in re.split(r"[;, ]+", str(entry.get("host", "")).strip()):
        gpu = str(entry.get("gpu", ""))
        uuids = gpus.find(host, gpu)
        if not uuids:
            raise BadInput(
                f"unknown GPU {gpu or 'all'!r} on host {host!r}",
                where=f"{at}, column 'gpu', value {gpu!r}",
                remedy=f"Known hosts: {gpus.list_hosts()}. Load its readings first, or declare it "
                "under [[gpu]] in wattledger.toml",
            )
        first.allocations += [Allocation(uuid, from_ts, to_ts, share, place) for uuid in uuids]


def _parse_run(entry: Mapping[str, Any], place: str, tz: str) -> Run:
    """The run of an entry, without its allocations."""
    run_id = str(entry.get("run_id", "")).strip()
    if not run_id:
        raise BadInput("no run_id", where=place, remedy="Give every run an id of its own")
    started = parse_time(entry.get("started_at"), "started_at", place, tz)
    ended = parse_time(entry.get("ended_at"), "ended_at", place, tz)
    if started is None:
        raise BadInput("no started_at", where=place, remedy="Every run needs a start")
    if ended is not None and ended < started:
        raise BadInput(
            "the run ends before it starts",
            where=f"{place}, column 'ended_at', value {str(entry.get('ended_at'))!r}",
            remedy="Check both times and their zones",
        )
    return Run(
        run_id,
        _parse_text(entry.get("name")),
        _parse_text(entry.get("owner")),
        _parse_text(entry.get("model")),
        started,
        ended,
        _parse_labels(entry, place),
    )


def _parse_text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _parse_labels(entry: Mapping[str, Any], place: str) -> dict[str, str]:
    """Labels as they are given, and every column that means nothing else."""
    labels = entry.get("labels") or {}
    if isinstance(labels, str):
        try:
            labels = json.loads(labels)
        except json.JSONDecodeError:
            raise BadInput(
                "labels are not a JSON object", where=place, remedy='Write {"team": "nlp"}'
            ) from None
    extra = {
        k: v for k, v in entry.items() if k not in (*RUN_FIELDS, *_ALLOCATION_FIELDS, "labels")
    }
    return {str(k): str(v) for k, v in {**dict(labels), **extra}.items()}


def _parse_share(value: Any, place: str) -> int:
    """A share in ppm; whole where none is given."""
    if value in (None, ""):
        return PPM
    try:
        return round(float(value) * PPM)
    except (ValueError, OverflowError):
        raise BadInput(
            "not a share",
            where=f"{place}, column 'share', value {str(value)!r}",
            remedy="Shares are fractions: 0.25 for a quarter of a GPU",
        ) from None
