"""`python -m bench.soak [--days 7]`: simulated days of scheduled operation, with faults.

A fleet's files arrive hour by hour: late, twice under other names, cut off and whole later, some never
readable. They are loaded every hour, computed every few hours and published every day. Now and then the
process that does so is killed in the middle, and the step is done again. In the end nothing may be lost
or doubled, the figures must equal one computation of everything at once, and the memory of the process
that goes on must not have grown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench.fleets import WORK
from bench.steps import work
from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.publication.verify import verify_ledger
from flows.samples.fleet import simulate_fleet
from flows.samples.fleet_plan import Fleet
from flows.settings import Settings
from flows.warehouse.store import store_of

_LATE, _TWICE, _CUT, _BAD, _KILLED = 0.15, 0.15, 0.1, 0.05, 0.3
"""Shares of files that come late, twice, cut off or unreadable, and of steps whose process is killed."""
_COMPUTE_H, _PUBLISH_H = 3, 24


@dataclass(frozen=True)
class SoakResult:
    """What happened, and what came of it."""

    hours: int
    files: int
    late: int
    twice: int
    cut: int
    unreadable: int
    killed: int
    publications: int
    readings: int
    lost: int
    doubled: int
    same_figures: bool
    verified: bool
    memory_start_mb: float
    memory_end_mb: float
    seconds: float


class Delivery:
    """Brings a fleet's files into the inbox, some of them late, twice or damaged."""

    def __init__(self, inbox: Path, chance: random.Random) -> None:
        self.counts = dict.fromkeys(("late", "twice", "cut", "unreadable"), 0)
        self._inbox, self._chance = inbox, chance
        self._waiting: list[tuple[int, Path]] = []

    def deliver(self, path: Path, hour: int) -> None:
        """Bring a file as chance has it."""
        fate = self._chance.random()
        if (fate := fate - _LATE) < 0:
            self._waiting.append((hour + self._chance.randrange(1, 9), path))
            self.counts["late"] += 1
            return
        if (fate := fate - _CUT) < 0:
            data = path.read_bytes()
            (self._inbox / f"{path.stem}-cut.parquet").write_bytes(data[: len(data) // 2])
            self._waiting.append((hour + 1, path))
            self.counts["cut"] += 1
            return
        if (fate := fate - _TWICE) < 0:
            shutil.copy(path, self._inbox / f"again-{path.name}")
            self.counts["twice"] += 1
        elif fate - _BAD < 0:
            damaged = self._inbox / f"{path.stem}-bad.parquet"
            damaged.write_bytes(self._chance.randbytes(2000))
            self.counts["unreadable"] += 1
        shutil.copy(path, self._inbox)

    def deliver_late(self, hour: int, *, all_of_them: bool) -> None:
        """Bring the late files that are due, or all."""
        for due, path in list(self._waiting):
            if due <= hour or all_of_them:
                shutil.copy(path, self._inbox)
                self._waiting.remove((due, path))


def soak(
    folder: Path, days: float, gpus: int = 16, seed: int = 1, period_s: int = 10
) -> SoakResult:
    """Let a simulated fleet run for some days, with faults.

    Args:
        folder: Folder for all files; what it held is deleted.
        days: Simulated days.
        gpus: GPUs of the fleet.
        seed: The same seed gives the same faults.
        period_s: Seconds between readings.
    """
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    chance = random.Random(seed)
    hours = round(days * 24)
    simulate_fleet(Fleet(gpus, hours, seed, period_s), folder / "all")
    files = _split_by_host(folder / "all")
    project = _make_project(folder / "all", folder / "project")
    inbox = project.root / "readings"
    inbox.mkdir()
    delivery = Delivery(inbox, chance)
    memory = []
    killed = publications = 0
    for hour in range(hours):
        for path in files.get(hour, []):
            delivery.deliver(path, hour)
        delivery.deliver_late(hour, all_of_them=hour == hours - 1)
        for step in _list_steps(hour, hours):
            if chance.random() < _KILLED:
                _kill_during(project.root, step, chance.uniform(0.02, 0.8))
                killed += 1
            publications += bool(work(project.root, step))
        memory.append(_rss_mb())
    counts = {**delivery.counts, "killed": killed, "publications": publications}
    return _judge(folder, project, hours, counts, memory, started)


def _list_steps(hour: int, hours: int) -> list[str]:
    """What the schedule does in an hour; all of it in the last one."""
    last = hour == hours - 1
    steps = ["ingest"]
    if last or hour % _COMPUTE_H == _COMPUTE_H - 1:
        steps.append("compute")
    if last or hour % _PUBLISH_H == _PUBLISH_H - 1:
        steps.append("publish")
    return steps


def _judge(
    folder: Path,
    project: Settings,
    hours: int,
    counts: dict[str, int],
    memory: list[float],
    started: float,
) -> SoakResult:
    """Compare the project with one that computed everything at once."""
    whole = _make_project(folder / "all", folder / "whole")
    files = sorted((folder / "all" / "sent").glob("*.parquet"))
    ingest_gpu(whole, files)
    work(whole.root, "ingest")
    compute(whole)
    [(stored, distinct)] = _query(
        project, "SELECT count(*), count(DISTINCT (gpu_key, ts)) FROM gpu_reading"
    )
    [(expected,)] = _query(whole, "SELECT count(*) FROM gpu_reading")
    figures = "SELECT * FROM run_footprint ORDER BY ALL"
    # Up to the first publication each kind of step has run once, and its modules are loaded.
    steady = memory[_PUBLISH_H:] if hours > 2 * _PUBLISH_H else memory
    third = max(1, len(steady) // 3)
    return SoakResult(
        hours=hours,
        files=len(files),
        **counts,
        readings=stored,
        lost=expected - distinct,
        doubled=stored - distinct,
        same_figures=_query(project, figures) == _query(whole, figures),
        verified=all(finding.ok is not False for finding in verify_ledger(project)),
        memory_start_mb=statistics.median(steady[:third]),
        memory_end_mb=statistics.median(steady[-third:]),
        seconds=time.perf_counter() - started,
    )


def _split_by_host(folder: Path) -> dict[int, list[Path]]:
    """The fleet's files, one for each host and hour, by hour."""
    target = folder / "sent"
    target.mkdir()
    files: dict[int, list[Path]] = {}
    for path in sorted((folder / "readings").glob("*.parquet")):
        frame = pl.read_parquet(path)
        hour = int(path.stem.split("-")[1])
        for (host,), readings in frame.group_by("host", maintain_order=True):
            file = target / f"{host}-{hour:05d}.parquet"
            readings.write_parquet(file)
            files.setdefault(hour, []).append(file)
    return files


def _make_project(fleet: Path, root: Path) -> Settings:
    root.mkdir(parents=True)
    for name in ("wattledger.toml", "grid.csv", "runs.csv"):
        shutil.copy(fleet / name, root)
    return settings_module.load(root)


def _kill_during(root: Path, step: str, after_s: float) -> None:
    """Do a step in a process of its own, and kill it."""
    process = _PROCESSES.Process(target=work, args=(root, step))
    process.start()
    time.sleep(after_s)
    process.kill()
    process.join()


_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["bench.steps"])


def _query(project: Settings, sql: str) -> list[tuple[Any, ...]]:
    con = store_of(project).connect(read_only=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--gpus", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = soak(WORK / "soak", arguments.days, arguments.gpus, arguments.seed)
    print(json.dumps(asdict(result), indent=2))


if __name__ == "__main__":
    main()
