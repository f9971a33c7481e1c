"""codecarbon's emissions.csv: runs that it measured, any version with a duration and energies.

A file has one or more rows per run, each with the energy since the run's start, so a row is a reading of
a counter. Energies are divided by the PUE that codecarbon multiplied them with. Which part of the CPU's
energy was measured the file does not say: it counts as modelled.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
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

    def last(self, name: str) -> int | None:
        """The last known value of one energy."""
        known = [getattr(p, name) for p in self.points if getattr(p, name) is not None]
        return known[-1] if known else None


def is_emissions(header: str) -> bool:
    """Whether the first line of a file is that of an emissions.csv."""
    return set(NEEDED) <= {name.strip().strip('"') for name in header.split(",")}


def read(path: Path, text: str, tz: str) -> list[MeasuredRun]:
    """Runs of a file, in order of start.

    Raises:
        BadInput: a value that cannot be understood, or energy that goes back, with its place.
        UsageError: times are local (codecarbon writes no zone) and no zone was given.
    """
    found: list[MeasuredRun] = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        _add(found, row, reader.line_num, path, tz)
    if not found:
        raise BadInput("the table holds no run", where=str(path), remedy="Record again")
    for run in found:
        run.points.sort(key=lambda point: point.at)
        for name in ("gpu_mj", "cpu_mj", "dram_mj"):
            known = [getattr(p, name) for p in run.points if getattr(p, name) is not None]
            if known != sorted(known):
                raise BadInput(
                    f"the {name.removesuffix('_mj')} energy of run {run.run_id} goes back",
                    where=str(path),
                    remedy="Two runs share one run_id: give them different ones",
                )
    return sorted(found, key=lambda run: (run.started_at, run.run_id))


def _add(found: list[MeasuredRun], row: Mapping[str, str], line: int, path: Path, tz: str) -> None:
    at = f"{path}, row {line}"
    ended = parse_time(row["timestamp"], "timestamp", at, tz)
    seconds = _number(row, "duration", path, line)
    if ended is None or seconds is None or seconds <= 0:
        raise BadInput("no time or duration", where=at, remedy="Fix or remove the row")
    started = ended - timedelta(seconds=seconds)
    pue = _number(row, "pue", path, line) or 1.0
    point = Point(ended, *(_energy(row, name, pue, path, line) for name in _ENERGIES))
    key = row.get("run_id", "").strip()
    for known in found:
        same = (
            known.labels.get("codecarbon_run_id", "") == key
            and known.project == row["project_name"]
        )
        if same and abs(known.started_at - started) <= _SAME_START:
            # A row is written when its measurement is done: the clock of the first counts.
            known.points.append(
                Point(known.started_at + timedelta(seconds=seconds), *_values(point))
            )
            return
    slug = key or f"{row['project_name']}-{started:%Y%m%dT%H%M%SZ}"
    taken = {run.run_id for run in found}
    run_id = slug if slug not in taken else f"{slug}-{started:%Y%m%dT%H%M%SZ}"
    count = int(_number(row, "gpu_count", path, line) or 0)
    model = re.sub(r"^\d+ x ", "", row.get("gpu_model", "")).strip()
    labels = {name: row[name] for name in _LABELS if row.get(name)}
    found.append(
        MeasuredRun(
            run_id,
            row["project_name"],
            started,
            (count or 1) if point.gpu_mj else count,
            model or None,
            f"codecarbon {row.get('codecarbon_version', '')} ({row.get('tracking_mode', '')})",
            {**labels, "codecarbon_run_id": key, "meter": "codecarbon"},
            [point],
        )
    )


_ENERGIES = ("gpu_energy", "cpu_energy", "ram_energy")


def _values(point: Point) -> Sequence[int | None]:
    return point.gpu_mj, point.cpu_mj, point.dram_mj


def _energy(row: Mapping[str, str], name: str, pue: float, path: Path, line: int) -> int | None:
    kwh = _number(row, name, path, line)
    return None if kwh is None else round(kwh / pue * _MJ_PER_KWH)


def _number(row: Mapping[str, str], name: str, path: Path, line: int) -> float | None:
    given = (row.get(name) or "").strip()
    if not given:
        return None
    try:
        value = float(given)
        if not 0 <= value < float("inf"):
            raise ValueError(given)
    except ValueError:
        raise BadInput(
            "not a usable value",
            where=locate(path, line, name, given),
            remedy="Fix or remove the row",
        ) from None
    return value
