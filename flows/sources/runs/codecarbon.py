"""codecarbon's emissions.csv: runs that it measured, any version with a duration and energies.

A file has one or more rows per run, each with the energy since the run's start, so a row is a reading of
a counter. codecarbon multiplied energies by a PUE; they are divided by it again. The file does not say
which part of the CPU's energy was measured: all of it counts as modelled.

codecarbon measures the machine, not the process: every rank of a run that has a tracker of its own tells
the same energy again (`merge_ranks`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from flows import times
from flows.errors import BadInput, UsageError, locate
from flows.rows import ANOTHER_ROW, MAX_BAD_SHARE, MISSING, RowFaults
from flows.sources.csv_rows import read_csv, split_header

NEEDED = ("timestamp", "project_name", "duration", "emissions", "cpu_energy", "gpu_energy")
_ENERGIES = {"gpu_mj": "gpu_energy", "cpu_mj": "cpu_energy", "dram_mj": "ram_energy"}
_MJ_PER_KWH = 3.6e9
_MOST_PUE = 10.0
_MOST_GPUS = 1024
_MOST_W_PER_GPU = 3000.0
"""More than any board takes; the gate knows the limit of each model."""
_SAME_START = timedelta(seconds=5)
"""Rows of one run agree on its start this closely."""
_SAME_SPAN = timedelta(seconds=60)
"""Ranks of one run start and end within a minute of each other, or within 2 % of its duration."""
_SAME_ENERGY = 0.01

_LABELS = (
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "codecarbon_version",
    "tracking_mode",
    "experiment_id",
)
_MACHINE = (
    "gpu_model",
    "gpu_count",
    "gpu_ids",
    "cpu_model",
    "cpu_count",
    "ram_total_size",
    "os",
    "country_iso_code",
    "region",
)


@dataclass
class Point:
    """Energy since the start of a run; None where the row has no value."""

    at: datetime
    gpu_mj: int | None
    cpu_mj: int | None
    dram_mj: int | None


@dataclass
class MeasuredRun:
    """A run as codecarbon saw it."""

    run_id: str
    project: str
    started_at: datetime
    gpus: int
    gpu_model: str | None
    method: str
    labels: dict[str, str]
    machine: tuple[str, ...] = ()
    """What the file tells of the machine; it names no host."""
    points: list[Point] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    @property
    def ended_at(self) -> datetime:
        return self.points[-1].at

    def find_last(self, name: str) -> int | None:
        """The last value of an energy that is not None."""
        values = self.list_values(name)
        return values[-1] if values else None

    def list_values(self, name: str) -> list[int]:
        """The values of an energy that are not None, in order of time."""
        return [getattr(p, name) for p in self.points if getattr(p, name) is not None]


@dataclass
class HistoryRead:
    """What was made of a file: each row belongs to a run, is skipped by reason, or set aside."""

    faults: RowFaults
    measured: list[MeasuredRun] = field(default_factory=list)
    rows: int = 0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    number: int
    values: Mapping[str, str]
    ends: Sequence[datetime]
    """When it was written: two moments where a clock was set back."""
    duration: timedelta
    gpus: int
    energies: tuple[int | None, int | None, int | None]

    @property
    def key(self) -> tuple[str, str]:
        return self.values.get("run_id", ""), self.values["project_name"]


def is_emissions(header: str) -> bool:
    """Whether the first line of a file is that of an emissions.csv."""
    return set(NEEDED) <= set(split_header(header)[1])


def read(path: Path, plain: Path, tz: str, max_share: float = MAX_BAD_SHARE) -> HistoryRead:
    """Read the runs of a file, in order of start.

    Args:
        path: The file, for messages.
        plain: Its text.
        tz: The zone of its times; empty if such times are refused.
        max_share: Part of the rows that may be bad.

    Raises:
        BadInput: a column is missing, or too many rows cannot be used.
    """
    faults = RowFaults(path, max_share)
    table = read_csv(path, plain, faults, NEEDED)
    rows: list[_Row] = []
    refused: set[tuple[str, str]] = set()
    zeros: dict[str, int] = defaultdict(int)
    for number, values in table.rows:
        try:
            rows.append(_parse_row(number, values, tz, zeros))
        except (BadInput, UsageError) as error:
            faults.add_error(number, error)
            if values.get("run_id"):
                refused.add((values["run_id"], values["project_name"]))
    runs = _group(rows, faults, refused)
    for run in runs:
        _check_counters(run, faults, refused)
    faults.check(table.total)
    whole = []
    for run in runs:
        if (run.labels["codecarbon_run_id"], run.project) not in refused or not run.labels[
            "codecarbon_run_id"
        ]:
            whole.append(run)
            continue
        for number in run.rows:
            faults.add(number, ANOTHER_ROW, "run_id", run.run_id)
    if not whole:
        faults.check(faults.count)
        raise BadInput("the table holds no run", where=str(path), remedy="Record again")
    measured = sorted(whole, key=lambda run: (run.started_at, run.run_id))
    read = HistoryRead(faults, measured, table.total)
    read.warnings += [
        f"{count:,} rows tell 0 kWh of a {name.removesuffix('_energy').upper()} that they name: it counts as "
        "not measured, not as nothing"
        for name, count in zeros.items()
    ]
    merge_ranks(read)
    return read


def _parse_row(number: int, values: Mapping[str, str], tz: str, zeros: dict[str, int]) -> _Row:
    """Parse what runs are built from.

    Args:
        number: The row.
        values: Its fields.
        tz: The zone of its time.
        zeros: Counts energies of 0 of what the row names, by column.

    Raises:
        BadInput: a value that cannot be understood, or cannot be.
    """
    place = f"row {number}"
    ends = times.list_moments(values["timestamp"], "timestamp", place, tz)
    seconds = _parse_number(values, "duration", place)
    if not ends or not seconds:
        raise BadInput("no time or duration", where=place, remedy="Fix or remove the row")
    if not times.is_believable(ends[0]) or seconds > _MOST_SECONDS:
        raise BadInput(
            times.UNBELIEVABLE,
            where=locate(place, None, "timestamp", values["timestamp"]),
            remedy="Check --tz, and the clock that recorded",
        )
    pue = _parse_number(values, "pue", place)
    if pue is not None and not 1 <= pue <= _MOST_PUE:
        raise BadInput(
            "not a PUE", where=locate(place, None, "pue", values["pue"]), remedy="Fix the row"
        )
    gpus = _count_gpus(values, place)
    energies = []
    for name in _ENERGIES.values():
        kwh = _parse_number(values, name, place)
        if kwh == 0 and (
            gpus if name == "gpu_energy" else name == "cpu_energy" and values.get("cpu_model")
        ):
            zeros[name] += 1
            kwh = None
        if kwh is not None and name == "gpu_energy":
            watts = kwh * 3.6e6 / seconds / max(gpus, 1)
            if watts > _MOST_W_PER_GPU:
                raise BadInput(
                    f"{watts:,.0f} W on average for each GPU",
                    where=locate(place, None, name, values[name]),
                    remedy="Check the row: no GPU takes as much",
                )
        energies.append(None if kwh is None else round(kwh / (pue or 1.0) * _MJ_PER_KWH))
    return _Row(number, values, ends, timedelta(seconds=seconds), gpus, tuple(energies))  # type: ignore[arg-type]


_MOST_SECONDS = 20 * 366 * 86_400


def _count_gpus(values: Mapping[str, str], place: str) -> int:
    """GPUs of a row; older versions tell them before the model only (`4 x NVIDIA A100`).

    Raises:
        BadInput: count and model contradict each other.
    """
    count = _parse_number(values, "gpu_count", place)
    in_model = [int(n) for n in re.findall(r"(?:^|\W)([0-9]{1,4}) x ", values.get("gpu_model", ""))]
    if count is None:
        return sum(in_model)
    if not count.is_integer() or count > _MOST_GPUS or (in_model and sum(in_model) != count):
        raise BadInput(
            "not a number of GPUs, or another one than the model tells",
            where=locate(place, None, "gpu_count", values["gpu_count"]),
            remedy="Fix or remove the row",
        )
    return int(count)


def _parse_number(values: Mapping[str, str], name: str, place: str) -> float | None:
    text = values.get(name, "").strip()
    if not text or re.fullmatch(MISSING, text):
        return None
    try:
        value = float(text)
        if not 0 <= value < float("inf"):
            raise ValueError(text)
    except ValueError:
        raise BadInput(
            "not a usable value",
            where=locate(place, None, name, text),
            remedy="Fix or remove the row",
        ) from None
    return value


def _group(
    rows: Sequence[_Row], faults: RowFaults, refused: set[tuple[str, str]]
) -> list[MeasuredRun]:
    """Build runs of rows: those of one id and start are of one run."""
    runs: list[MeasuredRun] = []
    by_key: dict[tuple[str, str], list[MeasuredRun]] = defaultdict(list)
    taken: set[str] = set()
    starts: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for row in rows:
        if len(row.ends) == 1:
            starts[row.key].append(row.ends[0] - row.duration)
    for row in rows:
        started = _find_start(row, starts[row.key])
        if started is None:
            faults.add(
                row.number,
                times.SHOWN_TWICE,
                "timestamp",
                row.values["timestamp"],
                "Give a fixed offset such as --tz +01:00, or remove the row",
            )
            refused.add(row.key)
            continue
        same = [run for run in by_key[row.key] if abs(run.started_at - started) <= _SAME_START]
        if not same:
            same = [_begin_run(row, started, taken)]
            runs += same
            by_key[row.key] += same
        # A row is written when its measurement is done: the clock of the first counts.
        same[0].points.append(Point(same[0].started_at + row.duration, *row.energies))
        same[0].rows.append(row.number)
    return runs


def _find_start(row: _Row, others: Sequence[datetime]) -> datetime | None:
    """When the run of a row began. Where a clock was set back, other rows of the run tell; else nothing does."""
    starts = [end - row.duration for end in row.ends]
    if len(starts) > 1:
        starts = [s for s in starts if any(abs(s - other) <= _SAME_START for other in others)]
    return starts[0] if len(starts) == 1 else None


def _begin_run(row: _Row, started: datetime, taken: set[str]) -> MeasuredRun:
    """A run without its points, under an id that no other run has."""
    codecarbon_id, project = row.key
    stamp = f"{started:%Y%m%dT%H%M%SZ}"
    run_id = codecarbon_id or f"{project}-{stamp}"
    again = 1
    while run_id in taken:
        again += 1
        run_id = f"{codecarbon_id or project}-{stamp}" + (f"-{again - 1}" if again > 2 else "")
    taken.add(run_id)
    values = row.values
    labels = {name: values[name] for name in _LABELS if values.get(name)}
    gpus = row.gpus
    if not gpus and row.energies[0]:
        gpus = 1
        labels["gpu_count_assumed"] = "1"
    return MeasuredRun(
        run_id,
        project,
        started,
        gpus,
        re.sub(r"^\d+ x ", "", values.get("gpu_model", "")).strip() or None,
        f"codecarbon {values.get('codecarbon_version', '')} ({values.get('tracking_mode', '')})",
        {**labels, "codecarbon_run_id": codecarbon_id, "meter": "codecarbon"},
        tuple(values.get(name, "") for name in _MACHINE),
    )


def _check_counters(run: MeasuredRun, faults: RowFaults, refused: set[tuple[str, str]]) -> None:
    """Put the points of a run in order, each once; set it aside where an energy goes back."""
    order = sorted(range(len(run.points)), key=lambda i: (run.points[i].at, run.rows[i]))
    points = [run.points[i] for i in order]
    run.rows = [run.rows[i] for i in order]
    run.points = [p for i, p in enumerate(points) if i == 0 or p.at != points[i - 1].at]
    key = (run.labels["codecarbon_run_id"], run.project)
    fault = ""
    for before, after in pairwise(points):
        if before.at == after.at and before != after:
            fault = f"two rows of run {run.run_id} tell different energies of one time"
    for name in _ENERGIES:
        values = [getattr(p, name) for p in points if getattr(p, name) is not None]
        if values != sorted(values):
            fault = f"the {name.removesuffix('_mj')} energy of run {run.run_id} goes back"
    if not fault:
        return
    remedy = "Two runs share one run_id: give them different ones"
    if key[0]:
        refused.add(key)
        faults.add(run.rows[-1], fault, "run_id", key[0], remedy)
    else:
        for number in run.rows:
            faults.add(number, fault, "project_name", run.project, remedy)
        run.rows = []


def is_same_measurement(one: MeasuredRun, other: MeasuredRun) -> bool:
    """Whether two records tell one measurement: trackers of ranks that ran side by side on one machine.

    The machine looks the same, start and end are those of the other, and so is the energy.
    """
    if one.machine != other.machine or one.project != other.project:
        return False
    span = max(one.ended_at - one.started_at, other.ended_at - other.started_at)
    apart = abs(one.started_at - other.started_at), abs(one.ended_at - other.ended_at)
    if max(apart) > max(_SAME_SPAN, 0.02 * span):
        return False
    if max(apart) * 2 > span:
        return False
    near = _SAME_ENERGY + (apart[0] + apart[1]) / span
    pairs = [(one.find_last(name), other.find_last(name)) for name in _ENERGIES]
    known = [(a, b) for a, b in pairs if a and b]
    return bool(known) and all(abs(a - b) <= near * max(a, b) for a, b in known)


def merge_ranks(read: HistoryRead) -> None:
    """Count what several records tell of one machine and time once, and name records that may do so.

    Args:
        read: Its runs lose those that tell a measurement again; the labels of the others say which.
    """
    by_machine: dict[tuple[str, ...], list[MeasuredRun]] = defaultdict(list)
    kept: list[MeasuredRun] = []
    merged: dict[str, list[str]] = defaultdict(list)
    flagged: dict[str, list[str]] = defaultdict(list)
    for run in read.measured:
        on_machine = by_machine[run.machine]
        beside = [o for o in on_machine[-_MOST_BESIDE:] if o.ended_at > run.started_at]
        twin = next((other for other in beside if is_same_measurement(run, other)), None)
        if twin is not None:
            read.faults.skip(TOLD_AGAIN, len(run.rows))
            merged[twin.run_id].append(run.run_id)
            continue
        for other in beside[:_MOST_NAMED]:
            flagged[run.run_id].append(other.run_id)
            flagged[other.run_id].append(run.run_id)
        on_machine.append(run)
        kept.append(run)
    for run in kept:
        if run.run_id in merged:
            run.labels["counted_once_with"] = ", ".join(merged[run.run_id][:_MOST_NAMED])
        if run.run_id in flagged:
            run.labels[MAY_OVERLAP] = ", ".join(flagged[run.run_id][:_MOST_NAMED])
    read.measured = kept
    for first, again in list(merged.items())[:_MOST_NAMED]:
        read.warnings.append(describe_merged(first, again))
    if flagged:
        read.warnings.append(describe_overlaps(list(flagged)))


TOLD_AGAIN = "rows that tell the measurement of another run again"
MAY_OVERLAP = "may_count_twice_with"
"""Label of a run: others on a machine that looks the same, at the same time."""
_MOST_NAMED = 20
_MOST_BESIDE = 200
"""Earlier runs on machines that look the same with which one is compared, the latest first to begin."""


def describe_merged(first: str, again: Sequence[str]) -> str:
    """That some records were counted once with another one."""
    return (
        f"run {first} and {', '.join(again[:5])}{' and others' if len(again) > 5 else ''} tell the same energy of "
        "the same kind of machine over the same time: one machine that every rank measured, so it "
        "counts once; if they were different machines, give each another project_name"
    )


def describe_overlaps(run_ids: Sequence[str]) -> str:
    """That some records may be of one machine."""
    return (
        f"{len(run_ids):,} runs ({', '.join(run_ids[:5])}{', ...' if len(run_ids) > 5 else ''}) were at the same time on "
        "machines that look the same; if it was one machine, its energy counts more than once "
        f"(label {MAY_OVERLAP}): codecarbon tells no host"
    )
