"""`python -m bench.soak [--days 7]`: simulated days of scheduled operation, with faults.

A fleet's files arrive hour by hour: late, twice under other names, cut off and whole later, some never readable. Every hour
what is there is loaded, every few hours computed, every day published; now and then the process that does it is
killed in the middle, and does it again. In the end nothing may be lost or doubled, the figures must be those of one
computation of everything at once, and the memory of the process that goes on must not have grown.
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
"""Shares of files that come late, twice, cut off, unreadable; and of steps in which the process is killed."""
_COMPUTE_H, _PUBLISH_H = 3, 24


@dataclass(frozen=True)
class Soaked:
    """What happened, and what is left of it."""

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


def soak(folder: Path, days: float, gpus: int = 16, seed: int = 1, period_s: int = 10) -> Soaked:
    """Let a fleet of some GPUs run for some days."""
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    chance = random.Random(seed)
    hours = round(days * 24)
    simulate_fleet(Fleet(gpus, hours, seed, period_s), folder / "all")
    sent = _by_host(folder / "all")
    project = _project(folder / "all", folder / "project")
    inbox = project.root / "readings"
    inbox.mkdir()
    counts = dict.fromkeys(("late", "twice", "cut", "unreadable", "killed"), 0)
    waiting: list[tuple[int, Path]] = []
    memory = []
    publications = 0
    for hour in range(hours):
        for path in sent.get(hour, []):
            fate = chance.random()
            data = path.read_bytes()
            if (fate := fate - _LATE) < 0:
                waiting.append((hour + chance.randrange(1, 9), path))
                counts["late"] += 1
                continue
            if (fate := fate - _CUT) < 0:
                (inbox / f"{path.stem}-cut.parquet").write_bytes(data[: len(data) // 2])
                waiting.append((hour + 1, path))
                counts["cut"] += 1
                continue
            if (fate := fate - _TWICE) < 0:
                shutil.copy(path, inbox / f"again-{path.name}")
                counts["twice"] += 1
            elif fate - _BAD < 0:
                (inbox / f"{path.stem}-bad.parquet").write_bytes(chance.randbytes(2000))
                counts["unreadable"] += 1
            shutil.copy(path, inbox)
        for due, path in list(waiting):
            if due <= hour or hour == hours - 1:
                shutil.copy(path, inbox)
                waiting.remove((due, path))
        steps = ["ingest"]
        if hour % _COMPUTE_H == _COMPUTE_H - 1 or hour == hours - 1:
            steps.append("compute")
        if hour % _PUBLISH_H == _PUBLISH_H - 1 or hour == hours - 1:
            steps.append("publish")
        for step in steps:
            if chance.random() < _KILLED:
                _killed(project.root, step, chance.uniform(0.02, 0.8))
                counts["killed"] += 1
            publications += bool(work(project.root, step))
        memory.append(_rss_mb())
    return _judge(folder, project, hours, counts, publications, memory, started)


def _judge(
    folder: Path,
    project: Settings,
    hours: int,
    counts: dict[str, int],
    publications: int,
    memory: list[float],
    started: float,
) -> Soaked:
    whole = _project(folder / "all", folder / "whole")
    files = sorted((folder / "all" / "sent").glob("*.parquet"))
    ingest_gpu(whole, files)
    work(whole.root, "ingest")
    compute(whole)
    there = _ask(project, "SELECT count(*), count(DISTINCT (gpu_key, ts)) FROM gpu_reading")
    should = _ask(whole, "SELECT count(*) FROM gpu_reading")
    figures = "SELECT * FROM run_footprint ORDER BY ALL"
    # After the first publication everything has been imported and done once.
    steady = memory[_PUBLISH_H:] if hours > 2 * _PUBLISH_H else memory
    third = max(1, len(steady) // 3)
    return Soaked(
        hours=hours,
        files=len(files),
        **counts,
        publications=publications,
        readings=there[0][0],
        lost=should[0][0] - there[0][1],
        doubled=there[0][0] - there[0][1],
        same_figures=_ask(project, figures) == _ask(whole, figures),
        verified=all(one.ok is not False for one in verify_ledger(project)),
        memory_start_mb=statistics.median(steady[:third]),
        memory_end_mb=statistics.median(steady[-third:]),
        seconds=time.perf_counter() - started,
    )


def _by_host(folder: Path) -> dict[int, list[Path]]:
    """The fleet's files, one for each host and hour, by hour."""
    target = folder / "sent"
    target.mkdir()
    found: dict[int, list[Path]] = {}
    for path in sorted((folder / "readings").glob("*.parquet")):
        frame = pl.read_parquet(path)
        hour = int(path.stem.split("-")[1])
        for (host,), part in frame.group_by("host", maintain_order=True):
            one = target / f"{host}-{hour:05d}.parquet"
            part.write_parquet(one)
            found.setdefault(hour, []).append(one)
    return found


def _project(fleet: Path, root: Path) -> Settings:
    root.mkdir(parents=True)
    for name in ("wattledger.toml", "grid.csv", "runs.csv"):
        shutil.copy(fleet / name, root)
    return settings_module.load(root)


def _killed(root: Path, step: str, after_s: float) -> None:
    process = _PROCESSES.Process(target=work, args=(root, step))
    process.start()
    time.sleep(after_s)
    process.kill()
    process.join()


_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["bench.steps"])


def _ask(project: Settings, sql: str) -> list[tuple[object, ...]]:
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
    given = parser.parse_args()
    print(json.dumps(asdict(soak(WORK / "soak", given.days, given.gpus, given.seed)), indent=2))


if __name__ == "__main__":
    main()
