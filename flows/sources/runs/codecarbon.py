"""codecarbon's emissions.csv: runs that it measured, any version with a duration and energies.

A file has one or more rows per run, each with the energy since the run's start, so a row is a reading of
a counter. codecarbon multiplied energies by a PUE; they are divided by it again. The file does not say
which part of the CPU's energy was measured: all of it counts as modelled.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from flows.errors import BadInput, locate
from flows.times import parse_time

NEEDED = ("timestamp", "project_name", "duration", "emissions", "cpu_energy", "gpu_energy")
_MJ_PER_KWH = 3.6e9
_SAME_START = timedelta(seconds=5)
"""Rows without a run id whose starts agree so closely are of one run."""

_LABELS = (
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "codecarbon_version",
    "tracking_mode",
    "experiment_id",
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
    points: list[Point] = field(default_factory=list)

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


def is_emissions(header: str) -> bool:
    """Whether the first line of a file is that of an emissions.csv."""
    return set(NEEDED) <= {name.strip().strip('"') for name in header.split(",")}


def read(path: Path, text: str, tz: str) -> list[MeasuredRun]:
    """Read the runs of a file, in order of start.

    Args:
        path: The file, for messages.
        text: What it holds.
        tz: The zone of its times; empty if such times are refused.

    Raises:
        BadInput: a value that cannot be understood, or energy that goes back, with its place.
        UsageError: times are local (codecarbon writes no zone) and no zone was given.
    """
    runs: list[MeasuredRun] = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        _add(runs, row, reader.line_num, path, tz)
    if not runs:
        raise BadInput("the table holds no run", where=str(path), remedy="Record again")
    for run in runs:
        run.points.sort(key=lambda point: point.at)
        for name in ("gpu_mj", "cpu_mj", "dram_mj"):
            values = run.list_values(name)
            if values != sorted(values):
                raise BadInput(
                    f"the {name.removesuffix('_mj')} energy of run {run.run_id} goes back",
                    where=str(path),
                    remedy="Two runs share one run_id: give them different ones",
                )
    return sorted(runs, key=lambda run: (run.started_at, run.run_id))


_ENERGIES = ("gpu_energy", "cpu_energy", "ram_energy")


def _add(runs: list[MeasuredRun], row: Mapping[str, str], line: int, path: Path, tz: str) -> None:
    """Add a row to the run that it belongs to, or begin a new one."""
    place = f"{path}, row {line}"
    ended = parse_time(row["timestamp"], "timestamp", place, tz)
    seconds = _parse_number(row, "duration", path, line)
    if ended is None or seconds is None or seconds <= 0:
        raise BadInput("no time or duration", where=place, remedy="Fix or remove the row")
    started = ended - timedelta(seconds=seconds)
    pue = _parse_number(row, "pue", path, line) or 1.0
    energies = [_parse_energy(row, name, pue, path, line) for name in _ENERGIES]
    codecarbon_id = row.get("run_id", "").strip()
    for run in runs:
        same = (
            run.labels.get("codecarbon_run_id", "") == codecarbon_id
            and run.project == row["project_name"]
        )
        if same and abs(run.started_at - started) <= _SAME_START:
            # A row is written when its measurement is done: the clock of the first counts.
            run.points.append(Point(run.started_at + timedelta(seconds=seconds), *energies))
            return
    slug = codecarbon_id or f"{row['project_name']}-{started:%Y%m%dT%H%M%SZ}"
    is_taken = any(run.run_id == slug for run in runs)
    run_id = f"{slug}-{started:%Y%m%dT%H%M%SZ}" if is_taken else slug
    point = Point(ended, *energies)
    count = int(_parse_number(row, "gpu_count", path, line) or 0)
    model = re.sub(r"^\d+ x ", "", row.get("gpu_model", "")).strip()
    labels = {name: row[name] for name in _LABELS if row.get(name)}
    runs.append(
        MeasuredRun(
            run_id,
            row["project_name"],
            started,
            (count or 1) if point.gpu_mj else count,
            model or None,
            f"codecarbon {row.get('codecarbon_version', '')} ({row.get('tracking_mode', '')})",
            {**labels, "codecarbon_run_id": codecarbon_id, "meter": "codecarbon"},
            [point],
        )
    )


def _parse_energy(
    row: Mapping[str, str], name: str, pue: float, path: Path, line: int
) -> int | None:
    kwh = _parse_number(row, name, path, line)
    return None if kwh is None else round(kwh / pue * _MJ_PER_KWH)


def _parse_number(row: Mapping[str, str], name: str, path: Path, line: int) -> float | None:
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
        if not 0 <= value < float("inf"):
            raise ValueError(text)
    except ValueError:
        raise BadInput(
            "not a usable value",
            where=locate(path, line, name, text),
            remedy="Fix or remove the row",
        ) from None
    return value
