"""Run tables: who trained what, when, on which GPUs. CSV, JSON or TOML (docs/formats.md)."""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from flows import times
from flows.errors import BadInput, UsageError, locate
from flows.rows import ANOTHER_ROW, MAX_BAD_SHARE, MISSING, RowFaults
from flows.sources.csv_rows import read_csv
from flows.sources.runs.run import Allocation, Gpus, Run, RunsRead
from transforms.constants import PPM

RUN_FIELDS = ("run_id", "name", "owner", "model", "started_at", "ended_at")
_ALLOCATION_FIELDS = ("host", "gpu", "from", "to", "share")
_MOST_HOSTS = 10_000


@dataclass
class _Reading:
    """What is being made of a table."""

    path: Path
    gpus: Gpus
    tz: str
    faults: RowFaults
    runs: dict[str, Run] = field(default_factory=dict)
    rows_of: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Rows of each run id, good and bad."""
    refused: set[str] = field(default_factory=set)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)


def read(
    path: Path, plain: Path, gpus: Gpus, tz: str, max_share: float = MAX_BAD_SHARE
) -> RunsRead:
    """Read a run table; a run of which a row cannot be used is set aside with all of its rows.

    Args:
        path: CSV, or JSON or TOML by its ending; any of them may be packed with gzip.
        plain: Its text.
        gpus: The GPUs that are known.
        tz: The zone of times that carry none; empty if such times are refused.
        max_share: Part of the rows that may be bad.

    Raises:
        BadInput: a column is missing, or too many rows cannot be used.
    """
    reading = _Reading(path, gpus, tz, RowFaults(path, max_share))
    kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "json":
        entries, total = _list_entries(_parse_json(plain, path), reading)
    elif kind == "toml":
        entries, total = _list_entries(_parse_toml(plain, path), reading)
    else:
        entries, total = _read_csv(plain, reading)
    for number, place, entry in entries:
        _add(reading, number, place, entry)
    for run_id, run in reading.runs.items():
        if run_id not in reading.refused:
            _refuse_gpu_held_twice(reading, run)
    reading.faults.check(total)
    for run_id in reading.refused:
        for number in reading.rows_of[run_id]:
            reading.faults.add(number, ANOTHER_ROW, "run_id", run_id)
    runs = [run for run_id, run in reading.runs.items() if run_id not in reading.refused]
    if not runs:
        reading.faults.check(reading.faults.count)
        raise BadInput("the table holds no run", where=str(path), remedy="See docs/formats.md")
    return RunsRead(reading.faults, runs, total)


Entry = tuple[int, str, dict[str, Any]]
"""Number of a row, its place as people find it, and what it says."""


def _read_csv(plain: Path, reading: _Reading) -> tuple[list[Entry], int]:
    _refuse_other_documents(plain, reading.path)
    table = read_csv(reading.path, plain, reading.faults, ("run_id", "started_at"))
    entries: list[Entry] = []
    for number, row in table.rows:
        entry = {name: value for name, value in row.items() if name and value}
        if table.separator != "," and re.fullmatch(
            r"[0-9]+,[0-9]+", share := entry.get("share", "")
        ):
            entry["share"] = share.replace(",", ".")
        entries.append((number, "", entry))
    return entries, table.total


_OTHERS = {
    "power.draw": "a log of GPU readings: load it with `wattledger ingest gpu`",
    "valid_from": "no run table: load grid data with `ingest grid`, and meters with `ingest meter`",
    "duration,emissions": "an emissions.csv without the columns that codecarbon writes since 2.0",
}


def _refuse_other_documents(plain: Path, path: Path) -> None:
    """Name a known document that is not what is wanted for what it is."""
    with plain.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(100_000).lower().replace(" ", "")
    for sign, name in _OTHERS.items():
        if sign in first and "run_id" not in first:
            raise BadInput(f"this is {name}", where=locate(path, 1), remedy="See docs/formats.md")


def _parse_json(plain: Path, path: Path) -> Any:
    try:
        content = json.loads(plain.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg}", where=locate(path, error.lineno), remedy="Fix the file"
        ) from None
    return content.get("runs") if isinstance(content, dict) else content


def _parse_toml(plain: Path, path: Path) -> Any:
    try:
        content = tomllib.loads(plain.read_text("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not TOML: {error}", where=str(path), remedy="Fix the file") from None
    return content.get("run")


def _list_entries(runs: Any, reading: _Reading) -> tuple[list[Entry], int]:
    """The allocations of a document, each with what its run says; what is none is set aside."""
    if not isinstance(runs, list):
        raise BadInput("no list of runs", where=str(reading.path), remedy="See docs/formats.md")
    entries: list[Entry] = []
    number = 0
    for run_number, run in enumerate(runs, 1):
        listed = None
        if isinstance(run, dict):
            listed = run.get("allocations", run.get("allocation")) or [{}]
        if not isinstance(listed, list) or not all(isinstance(held, dict) for held in listed):
            number += 1
            reading.faults.add(
                number, f"run {run_number} is no run with a list of allocations", "", run
            )
            continue
        common = {k: v for k, v in run.items() if k not in ("allocations", "allocation")}
        for index, allocation in enumerate(listed, 1):
            number += 1
            place = f"run {run_number}, allocation {index}"
            entries.append((number, place, {**common, **allocation}))
    return entries, number


def _add(reading: _Reading, number: int, place: str, entry: dict[str, Any]) -> None:
    """Add the allocations of a row to its run, which the first row begins, or set it aside."""
    run_id = str(entry.get("run_id", "")).strip()
    for name in ("started_at", "ended_at", "from", "to"):
        if isinstance(entry.get(name), str) and re.fullmatch(MISSING, entry[name].strip()):
            del entry[name]
    text = json.dumps(entry, sort_keys=True, default=str)
    if text in reading.seen:
        reading.faults.skip("repeated rows")
        return
    reading.seen[text] = entry
    reading.rows_of[run_id].append(number)
    try:
        _add_allocations(reading, number, entry)
    except (BadInput, UsageError) as error:
        reading.faults.add_error(number, error, place)
        reading.refused.add(run_id)


def _add_allocations(reading: _Reading, number: int, entry: Mapping[str, Any]) -> None:
    at = f"row {number}"
    run = _parse_run(entry, at, reading.tz)
    first = reading.runs.setdefault(run.run_id, run)
    first.rows.append(number)
    if (first.started_at, first.ended_at) != (run.started_at, run.ended_at):
        raise BadInput(
            f"run {run.run_id!r} has two different starts or ends",
            where=at,
            remedy="Use the columns from and to for parts of a run",
        )
    share = _parse_share(entry.get("share"), at)
    from_ts, to_ts = _parse_part(entry, run, at, reading.tz)
    hosts = re.split(r"[;, ]+", str(entry.get("host", "")).strip())
    gpu = str(entry.get("gpu", ""))
    try:
        if len(hosts) > _MOST_HOSTS:
            raise ValueError(f"more than {_MOST_HOSTS:,} hosts")
        uuids = reading.gpus.find(hosts, gpu)
    except ValueError as error:
        raise BadInput(
            str(error),
            where=f"{at}, column 'gpu', value {gpu[:80]!r}",
            remedy=f"Known hosts: {reading.gpus.list_hosts()}. Load its readings first, or declare it "
            "under [[gpu]] in wattledger.toml",
        ) from None
    first.allocations += [Allocation(uuid, from_ts, to_ts, share, at) for uuid in uuids]


def _parse_run(entry: Mapping[str, Any], place: str, tz: str) -> Run:
    """The run of an entry, without its allocations."""
    run_id = str(entry.get("run_id", "")).strip()
    if not run_id:
        raise BadInput("no run_id", where=place, remedy="Give every run an id of its own")
    started, ended = times.parse_span(
        ("started_at", entry.get("started_at")), ("ended_at", entry.get("ended_at")), place, tz
    )
    if started is None:
        raise BadInput("no started_at", where=place, remedy="Every run needs a start")
    for column, moment in (("started_at", started), ("ended_at", ended)):
        if moment is not None and not times.is_believable(moment):
            raise BadInput(
                times.UNBELIEVABLE,
                where=f"{place}, column {column!r}, value {str(entry.get(column))[:80]!r}",
                remedy="Check the time and its zone; a run that goes on has no ended_at",
            )
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


def _parse_part(
    entry: Mapping[str, Any], run: Run, place: str, tz: str
) -> tuple[datetime, datetime | None]:
    """From when to when a row's GPUs were held: all of the run's time, if nothing else is told."""
    first, last = times.parse_span(("from", entry.get("from")), ("to", entry.get("to")), place, tz)
    from_ts, to_ts = first or run.started_at, last or run.ended_at
    is_outside = from_ts < run.started_at or (
        run.ended_at is not None and (to_ts is None or to_ts > run.ended_at)
    )
    if is_outside or (to_ts is not None and to_ts < from_ts):
        column = "from" if from_ts < run.started_at or last is None else "to"
        raise BadInput(
            "a part of a run that does not lie within it",
            where=f"{place}, column {column!r}, value {str(entry.get(column))[:80]!r}",
            remedy="Check the times and their zones",
        )
    return from_ts, to_ts


def _parse_text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _parse_labels(entry: Mapping[str, Any], place: str) -> dict[str, str]:
    """Labels as they are given, and every column that means nothing else."""
    labels = entry.get("labels") or {}
    if isinstance(labels, str):
        try:
            labels = json.loads(labels)
        except json.JSONDecodeError:
            labels = None
    if not isinstance(labels, dict):
        raise BadInput("labels are not a JSON object", where=place, remedy='Write {"team": "nlp"}')
    extra = {
        k: v for k, v in entry.items() if k not in (*RUN_FIELDS, *_ALLOCATION_FIELDS, "labels")
    }
    return {str(k): str(v) for k, v in {**labels, **extra}.items()}


def _parse_share(value: Any, place: str) -> int:
    """A share in ppm; whole where none is given."""
    if value in (None, ""):
        return PPM
    try:
        share = float(value)
        if 0 < share <= 1 and round(share * PPM) and not isinstance(value, bool):
            return round(share * PPM)
    except (TypeError, ValueError):
        pass
    raise BadInput(
        "not a share",
        where=f"{place}, column 'share', value {str(value)[:80]!r}",
        remedy="Shares are fractions above 0 and up to 1: 0.25 for a quarter of a GPU",
    )


def _refuse_gpu_held_twice(reading: _Reading, run: Run) -> None:
    """Set a run aside of which two rows tell of one GPU at the same time."""
    by_gpu: dict[str, list[Allocation]] = defaultdict(list)
    for held in run.allocations:
        by_gpu[held.gpu_uuid].append(held)
    for uuid, on_gpu in by_gpu.items():
        if _overlap(on_gpu):
            reading.faults.add(
                int(on_gpu[-1].place.removeprefix("row ")),
                "two rows of the run hold one GPU at the same time",
                "gpu",
                uuid,
                "Give each GPU once, with the whole of its share",
            )
            reading.refused.add(run.run_id)
            return


def _overlap(on_gpu: Sequence[Allocation]) -> bool:
    ordered = sorted(on_gpu, key=lambda held: held.from_ts)
    return any(
        before.to_ts is None or before.to_ts > after.from_ts for before, after in pairwise(ordered)
    )
