"""`wattledger simulate`: an imagined fleet, with the energy that it truly took.

Makes a project: segments of readings, a run table, a grid series, settings, and `truth.parquet`. The
same arguments give the same files. What is modelled, and what truth means: docs/simulator.md.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from flows.errors import UsageError
from flows.samples.fleet_hosts import HOSTS_PER_GROUP, GroupTotals, HostGroup
from flows.samples.fleet_plan import (
    HOUR_S,
    Fleet,
    Plan,
    make_gpu_uuid,
    make_host_name,
    plan_fleet,
)
from flows.settings import FILE_NAME, make_project_name, quote_text
from transforms.constants import PPM

TRUTH = "truth.parquet"

_SETTINGS = """\
# A simulated fleet: `wattledger pipeline`, then compare with truth.parquet (docs/simulator.md).

[project]
name = {name}
title = "Simulated fleet"

[[input.gpu]]
paths = ["readings/*.parquet"]

[[input.grid]]
paths = ["grid.csv"]
zone = "SIM"

[[input.runs]]
paths = ["runs.csv"]

[[site]]
name = "simulated"
hosts = ["*"]
zone = "SIM"
pue = {{ value = 1.2, low = 1.15, high = 1.3 }}
wue_l_per_kwh = {{ value = 0.5, low = 0.2, high = 1.8 }}
"""


@dataclass(frozen=True)
class SimulatedFleet:
    """What was written."""

    gpus: int
    readings: int
    missed: int
    runs: int
    segments: int
    true_kwh: float
    seconds: float
    folder: Path


def simulate_fleet(
    fleet: Fleet,
    folder: Path,
    progress: Callable[[int], None] = lambda readings: None,
    workers: int | None = None,
) -> SimulatedFleet:
    """Write the project of a simulated fleet into a new folder.

    Args:
        fleet: What to simulate.
        folder: The project folder; it does not exist, or is empty.
        progress: Is told how many readings were written, from several threads.
        workers: How many threads; one for each processor if not told.

    Raises:
        UsageError: the folder holds something, or the fleet makes no sense.
    """
    _check(fleet, folder)
    began = time.perf_counter()
    readings = folder / "readings"
    readings.mkdir(parents=True, exist_ok=True)
    plan = plan_fleet(fleet)
    first_hosts = range(0, fleet.hosts, HOSTS_PER_GROUP)

    def write_group(first_host: int) -> GroupTotals:
        group = HostGroup(fleet, plan, first_host)
        number = first_host // HOSTS_PER_GROUP
        for hour in range(fleet.hours):
            progress(group.write_hour(hour, readings / f"group{number:05d}-{hour:05d}.parquet"))
        return group.totals()

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        totals = list(pool.map(write_group, first_hosts))
    _write_truth(fleet, totals, folder / TRUTH)
    _write_runs(fleet, plan, folder / "runs.csv")
    _write_grid(fleet, folder / "grid.csv")
    (folder / FILE_NAME).write_text(
        _SETTINGS.format(name=quote_text(make_project_name(folder.resolve().name))), "utf-8"
    )
    written = sum(group.readings for group in totals)
    true_nj = sum(sum(group.gpu_nj.values()) for group in totals)
    return SimulatedFleet(
        gpus=fleet.gpus,
        readings=written,
        missed=fleet.gpus * fleet.hours * HOUR_S // fleet.period_s - written,
        runs=len({run.run_id for run in plan.runs}),
        segments=len(first_hosts) * fleet.hours,
        true_kwh=true_nj / 3.6e15,
        seconds=time.perf_counter() - began,
        folder=folder,
    )


def _check(fleet: Fleet, folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            "there is something in it already", where=str(folder), remedy="Name a new folder"
        )
    for option, value, most in (
        ("--gpus", fleet.gpus, 1_000_000),
        ("--hours", fleet.hours, 24 * 366),
        ("--period", fleet.period_s, 60),
    ):
        if not 1 <= value <= most:
            raise UsageError(f"{value} is not between 1 and {most}", where=option)
    if HOUR_S % fleet.period_s:
        raise UsageError(
            f"{fleet.period_s} s do not divide an hour",
            where="--period",
            remedy="Say 1, 2, 5 or 10",
        )


def _write_truth(fleet: Fleet, groups: Sequence[GroupTotals], path: Path) -> None:
    """Energy by run and GPU, while the run held the GPU; without a run, what no run held."""
    rows: list[tuple[str | None, str, str, int]] = []
    for group in groups:
        unheld_nj = dict(group.gpu_nj)
        for (run_id, host, gpu), took_nj in group.run_nj.items():
            unheld_nj[host, gpu] -= took_nj
            rows.append((run_id, make_host_name(host), make_gpu_uuid(fleet, host, gpu), took_nj))
        for (host, gpu), left_nj in unheld_nj.items():
            rows.append((None, make_host_name(host), make_gpu_uuid(fleet, host, gpu), left_nj))
    schema = {"run_id": pl.String, "host": pl.String, "gpu_uuid": pl.String, "energy_nj": pl.Int64}
    pl.DataFrame(rows, schema=schema, orient="row").sort("run_id", "gpu_uuid").write_parquet(path)


def _write_runs(fleet: Fleet, plan: Plan, path: Path) -> None:
    def format_time(us: int) -> str:
        return (fleet.start + timedelta(microseconds=us)).isoformat()

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["run_id", "started_at", "ended_at", "host", "gpu", "share", "family", "kind"]
        )
        for run in plan.runs:
            writer.writerow(
                [
                    run.run_id,
                    format_time(run.start_us),
                    format_time(run.end_us),
                    ";".join(make_host_name(host) for host in run.hosts),
                    run.gpus,
                    f"{run.share_ppm / PPM:.6f}",
                    run.family,
                    run.kind,
                ]
            )


def _write_grid(fleet: Fleet, path: Path) -> None:
    """A grid of sun and wind: cleanest at noon."""
    hours = np.arange(-2, fleet.hours + 2)
    day = np.cos((hours % 24 - 13) / 24 * 2 * np.pi)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["valid_from", "valid_to", "intensity_g_per_kwh"])
        for hour, sun in zip(hours.tolist(), day.tolist(), strict=True):
            begin = fleet.start + timedelta(hours=hour)
            writer.writerow(
                [
                    begin.isoformat(),
                    (begin + timedelta(hours=1)).isoformat(),
                    f"{320 - 110 * sun:.1f}",
                ]
            )
