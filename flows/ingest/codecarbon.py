"""codecarbon's history as runs of the ledger, or as a second meter for runs that are in it.

As runs: each becomes readings of counters (kept as segments under `imported/`), CPU and memory beside
them, and an allocation, so that its carbon and water are computed like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.files import open_plain_text
from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.segments import COLUMNS, HOST_COLUMNS
from flows.sources.runs import codecarbon
from flows.sources.runs.codecarbon import MeasuredRun
from flows.sources.runs.records import make_host_device
from flows.sources.runs.table import Allocation, Run
from flows.warehouse import registry
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Gpu, Outcome
from transforms.constants import PPM

METER = "codecarbon"


def host_of(run: MeasuredRun) -> str:
    """The host of a run that names none: codecarbon/COUNTRY/RUN, for the patterns of [[site]]."""
    return f"codecarbon/{run.labels.get('country_iso_code', 'unknown')}/{run.run_id}"


def as_runs(
    settings: Settings,
    path: Path,
    digest: str,
    tz: str,
    store_runs: Callable[[list[Run], list[Gpu]], int],
) -> Outcome:
    """Load an emissions.csv: readings first, then its runs by `store_runs(runs, gpus)`.

    Each step changes nothing when it is done again, so a kill between them loses nothing.

    Raises:
        BadInput: a value can't be understood, or the gate refuses readings or runs.
    """
    with open_plain_text(path, settings.work / "staging") as plain:
        measured = codecarbon.read(path, plain.read_text("utf-8-sig"), tz)
    folder = settings.root / "imported"
    folder.mkdir(exist_ok=True)
    gpu_rows, host_rows = [], []
    runs: list[Run] = []
    devices: list[Gpu] = []
    for run in measured:
        host = host_of(run)
        mine: list[Gpu] = [Gpu(f"{host}/gpu{i}", host, i, run.gpu_model) for i in range(run.gpus)]
        gpu_rows += _gpu_rows(run, mine)
        host_rows += _host_rows(run, host)
        none = make_host_device(host)
        held = mine or [Gpu(none.gpu_uuid, host, None, none.model)]
        devices += held
        runs.append(
            Run(
                run.run_id,
                run.project or None,
                None,
                None,
                run.started_at,
                run.ended_at,
                run.labels,
                [Allocation(d[0], run.started_at, run.ended_at, PPM, path.name) for d in held],
            )
        )
    files = []
    if gpu_rows:
        files.append(folder / f"codecarbon-{digest[:12]}.parquet")
        frame = pl.DataFrame(gpu_rows, schema=_GPU_ROW, orient="row")
        segments.write(frame.sort("gpu_uuid", "ts"), files[-1])
    if host_rows:
        files.append(folder / f"codecarbon-{digest[:12]}.host.parquet")
        table = pl.DataFrame(host_rows, schema=HOST_COLUMNS, orient="row")
        table.sort("host", "component", "ts").write_parquet(files[-1])
    for outcome in ingest_gpu(settings, files) if files else []:
        if outcome.verdict == "quarantined":
            raise BadInput(outcome.reason, where=str(path))
    inserted = store_runs(runs, devices)
    return Outcome(str(path), digest, "loaded", len(runs), inserted, len(runs) - inserted)


_GPU_ROW = {
    name: COLUMNS[name]
    for name in ("gpu_uuid", "host", "gpu_index", "model", "ts", "energy_mj", "power_source")
}


def _gpu_rows(run: MeasuredRun, devices: Iterable[Gpu]) -> list[tuple[object, ...]]:
    """Counters of a run's GPUs, which codecarbon added up: equal parts, to the millijoule."""
    known = [(p.at, p.gpu_mj) for p in run.points if p.gpu_mj is not None]
    points: list[tuple[datetime, int]] = [(run.started_at, 0), *known]
    return [
        (*device, at, total // run.gpus + (place < total % run.gpus), "unknown")
        for place, device in enumerate(devices)
        for at, total in points
    ]


def _host_rows(run: MeasuredRun, host: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for component, name in (("cpu", "cpu_mj"), ("dram", "dram_mj")):
        known = [(p.at, getattr(p, name)) for p in run.points if getattr(p, name) is not None]
        for (begin, before), (end, after) in pairwise([(run.started_at, 0), *known]):
            span = round((end - begin).total_seconds() * 1_000_000)
            if span > 0:
                rows.append((host, end, span, component, after - before, True, run.method))
    return rows


def record_runs(
    con: duckdb.DuckDBPyConnection, path: Path, digest: str, measured: Sequence[MeasuredRun]
) -> Outcome:
    """Write an emissions.csv as a second meter of runs that the ledger measures itself."""
    file = registry.File(
        segment_id=digest,
        source_name=str(path),
        source_format="codecarbon-meter",
        verdict="loaded",
        rows_read=len(measured),
        rows_loaded=len(measured),
        first_ts=measured[0].started_at,
        last_ts=max(run.ended_at for run in measured),
    )
    with transaction(con):
        key = registry.record_file(con, file)
        for run in measured:
            # A file that grew holds its first runs again.
            con.execute(
                "DELETE FROM second_meter WHERE meter = ? AND meter_run_id = ?", [METER, run.run_id]
            )
            con.execute(
                "INSERT INTO second_meter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    METER,
                    run.run_id,
                    run.project,
                    run.started_at,
                    run.ended_at,
                    run.last("gpu_mj"),
                    run.last("cpu_mj"),
                    run.last("dram_mj"),
                    key,
                ],
            )
    return file.as_outcome()
