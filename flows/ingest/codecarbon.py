"""codecarbon's history as runs of the ledger, or as a second meter for runs that are in it.

As a run of the ledger, each becomes readings of counters (kept as segments under `imported/`), energy of CPU and
memory beside them, and an allocation, so that its carbon and water are computed like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.files import name_for_people
from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.segments import COLUMNS, HOST_COLUMNS
from flows.sources.runs import codecarbon
from flows.sources.runs.codecarbon import HistoryRead, MeasuredRun, Point, is_same_measurement
from flows.sources.runs.records import make_host_device
from flows.sources.runs.run import Allocation, Run
from flows.warehouse import registry
from flows.warehouse.frames import insert, load_query, query_rows
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Gpu, Outcome
from transforms.constants import PPM

METER = "codecarbon"


def import_history(
    settings: Settings, path: Path, digest: str, measured: Sequence[MeasuredRun]
) -> tuple[list[Gpu], list[Run]]:
    """Load the readings of an emissions.csv; its runs and their devices are the caller's to store.

    It changes nothing when it is done again, so a kill before the runs are stored loses nothing.

    Raises:
        BadInput: the gate refuses readings.
    """
    for outcome in ingest_gpu(settings, _write_segments(settings, digest, measured)):
        if outcome.verdict == "quarantined":
            raise BadInput(outcome.reason, where=str(path))
        if outcome.rows_quarantined:
            raise BadInput("; ".join(outcome.warnings), where=str(path))
    runs: list[Run] = []
    devices: list[Gpu] = []
    for run in measured:
        held = _list_gpus(run) or [_make_host_device(run)]
        devices += held
        allocations = [
            Allocation(gpu.gpu_uuid, run.started_at, run.ended_at, PPM, path.name) for gpu in held
        ]
        runs.append(
            Run(
                run.run_id,
                run.project or None,
                None,
                None,
                run.started_at,
                run.ended_at,
                run.labels,
                allocations,
                run.rows,
            )
        )
    return devices, runs


def settle_history(con: duckdb.DuckDBPyConnection, read: HistoryRead) -> list[str]:
    """Settle codecarbon's runs with what is stored: a measurement that another file told already counts once.

    Args:
        con: The warehouse.
        read: Its runs lose those that are stored under another id.

    Returns:
        Sentences for people.
    """
    if not read.measured:
        return []
    for run in read.measured:
        run.labels["machine"] = ", ".join(part for part in run.machine if part)
        for name in ("gpu_mj", "cpu_mj", "dram_mj"):
            if (value := run.find_last(name)) is not None:
                run.labels[f"codecarbon_{name}"] = str(value)
    span = {
        "first": min(run.started_at for run in read.measured),
        "last": max(run.ended_at for run in read.measured),
    }
    stored = query_rows(con, load_query("ingest/runs_beside_history"), span)
    warnings: list[str] = []
    kept: list[MeasuredRun] = []
    for run in read.measured:
        beside = [
            row
            for row in stored
            if row["run_id"] != run.run_id
            and row["started_at"] < run.ended_at
            and (row["ended_at"] is None or run.started_at < row["ended_at"])
        ]
        measured = [row for row in beside if row["machine"] == run.labels["machine"]]
        twin = next((row for row in measured if is_same_measurement(run, _restore(row, run))), None)
        if twin is not None:
            read.faults.skip(codecarbon.TOLD_AGAIN, len(run.rows))
            warnings.append(codecarbon.describe_merged(twin["run_id"], [run.run_id]))
            continue
        if measured:
            run.labels[codecarbon.MAY_OVERLAP] = ", ".join(row["run_id"] for row in measured[:20])
            warnings.append(
                codecarbon.describe_overlaps([run.run_id, *(row["run_id"] for row in measured)])
            )
        warnings += _find_own_readings(run, beside)
        kept.append(run)
    read.measured = kept
    return warnings[:20]


def _restore(row: dict[str, Any], like: MeasuredRun) -> MeasuredRun:
    """A stored run of codecarbon's, as far as it is compared, on a machine that looks like that of another."""
    energies = [
        None if row[name] is None else int(row[name]) for name in ("gpu_mj", "cpu_mj", "dram_mj")
    ]
    return MeasuredRun(
        row["run_id"],
        row["name"] or "",
        row["started_at"],
        like.gpus,
        like.gpu_model,
        "",
        {},
        like.machine,
        [Point(row["ended_at"] or row["started_at"], *energies)],
    )


def _find_own_readings(run: MeasuredRun, beside: Sequence[dict[str, Any]]) -> list[str]:
    """Say so where the ledger seems to measure a run itself."""
    own = [row for row in beside if row["machine"] is None]
    same_name = [row["run_id"] for row in own if run.project in (row["run_id"], row["name"])]
    same_gpus = [row["run_id"] for row in own if run.gpu_model and run.gpu_model in row["models"]]
    if not same_name and not same_gpus:
        return []
    why = "of the same name" if same_name else f"on GPUs of the same model ({run.gpu_model})"
    run.labels[codecarbon.MAY_OVERLAP] = (same_name or same_gpus)[0]
    return [
        f"run {run.run_id} of codecarbon overlaps run {(same_name or same_gpus)[0]} {why}, which the ledger measures "
        "itself: if they are one, its energy counts twice; load the file with `wattledger ingest "
        "meter` instead"
    ]


def name_host(run: MeasuredRun) -> str:
    """Name the host of a run: codecarbon/COUNTRY/RUN, for the patterns of [[site]]."""
    return f"codecarbon/{run.labels.get('country_iso_code', 'unknown')}/{run.run_id}"


def _list_gpus(run: MeasuredRun) -> list[Gpu]:
    host = name_host(run)
    return [Gpu(f"{host}/gpu{i}", host, i, run.gpu_model) for i in range(run.gpus)]


def _make_host_device(run: MeasuredRun) -> Gpu:
    """What a run without GPUs holds."""
    host = name_host(run)
    device = make_host_device(host)
    return Gpu(device.gpu_uuid, host, None, device.model)


def _write_segments(settings: Settings, digest: str, measured: Sequence[MeasuredRun]) -> list[Path]:
    """Write the energy of runs as segments under `imported/`: of GPUs, and of CPU and memory."""
    folder = settings.root / "imported"
    folder.mkdir(exist_ok=True)
    gpu_rows = [row for run in measured for row in _list_gpu_rows(run)]
    host_rows = [row for run in measured for row in _list_host_rows(run)]
    files = []
    if gpu_rows:
        files.append(folder / f"codecarbon-{digest[:12]}.parquet")
        readings = pl.DataFrame(gpu_rows, schema=_GPU_ROW, orient="row")
        segments.write(readings.sort("gpu_uuid", "ts"), files[-1])
    if host_rows:
        files.append(folder / f"codecarbon-{digest[:12]}.host.parquet")
        intervals = pl.DataFrame(host_rows, schema=HOST_COLUMNS, orient="row")
        intervals.sort("host", "component", "ts").write_parquet(files[-1])
    return files


_GPU_ROW = {
    name: COLUMNS[name]
    for name in ("gpu_uuid", "host", "gpu_index", "model", "ts", "energy_mj", "power_source")
}


def _list_gpu_rows(run: MeasuredRun) -> list[tuple[object, ...]]:
    """Counters of a run's GPUs, which codecarbon added up: equal parts, to the millijoule."""
    measured = [(point.at, point.gpu_mj) for point in run.points if point.gpu_mj is not None]
    points: list[tuple[datetime, int]] = [(run.started_at, 0), *measured]
    return [
        (*gpu, at, total // run.gpus + (place < total % run.gpus), "unknown")
        for place, gpu in enumerate(_list_gpus(run))
        for at, total in points
    ]


def _list_host_rows(run: MeasuredRun) -> list[tuple[object, ...]]:
    """Intervals of a run's CPU and memory, from one point to the next."""
    host = name_host(run)
    rows: list[tuple[object, ...]] = []
    for component, name in (("cpu", "cpu_mj"), ("dram", "dram_mj")):
        points = [(p.at, getattr(p, name)) for p in run.points if getattr(p, name) is not None]
        for (begin, before), (end, after) in pairwise([(run.started_at, 0), *points]):
            span_us = round((end - begin).total_seconds() * 1_000_000)
            if span_us > 0:
                rows.append((host, end, span_us, component, after - before, True, run.method))
    return rows


def record_second_meter(
    con: duckdb.DuckDBPyConnection, path: Path, digest: str, read: HistoryRead
) -> Outcome:
    """Write an emissions.csv as a second meter of runs that the ledger measures itself."""
    measured = read.measured
    file = registry.File(
        segment_id=digest,
        source_name=name_for_people(path),
        source_format="codecarbon-meter",
        verdict="loaded",
        rows_read=read.rows,
        rows_loaded=sum(len(run.rows) for run in measured),
        rows_skipped=sum(read.faults.skipped.values()),
        first_ts=min((run.started_at for run in measured), default=None),
        last_ts=max((run.ended_at for run in measured), default=None),
    )
    with transaction(con):
        key = registry.record_file(con, file)
        registry.quarantine_rows(con, digest, read.faults.rows)
        for run in measured:
            # A file that grew holds its first runs again.
            con.execute(
                "DELETE FROM second_meter WHERE meter = $meter AND meter_run_id = $run_id",
                {"meter": METER, "run_id": run.run_id},
            )
            row = {
                "meter": METER,
                "meter_run_id": run.run_id,
                "label": run.project,
                "started_at": run.started_at,
                "ended_at": run.ended_at,
                "gpu_mj": run.find_last("gpu_mj"),
                "cpu_mj": run.find_last("cpu_mj"),
                "dram_mj": run.find_last("dram_mj"),
                "segment_key": key,
            }
            insert(con, "second_meter", [row])
    outcome = registry.add_row_faults(file.as_outcome(), read.faults)
    outcome.warnings += read.warnings
    return outcome
