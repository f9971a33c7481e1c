"""Whatever is done to a file of runs or meters: each row is traced, and nothing but `BadInput` is raised."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import BadInput
from flows.files import open_plain_text
from flows.rows import RowFaults
from flows.sources import meters
from flows.sources.runs import codecarbon, records, sacct, table
from flows.sources.runs.run import Gpus, KnownGpu
from flows.sources.verdict import judge_file

A100 = "NVIDIA A100-SXM4-40GB"
GPUS = Gpus(tuple(KnownGpu(f"GPU-{i}", f"n{i // 4}", i % 4, A100) for i in range(8)))

SACCT = "JobID|Cluster|User|Submit|Start|End|Elapsed|State|AllocTRES|NodeList|JobName\n" + "".join(
    f"{i}|c|ada|2026-02-03T0{i}:00:00|2026-02-03T0{i}:10:00|2026-02-03T0{i}:40:00|00:30:00|COMPLETED|"
    f"cpu=8,gres/gpu:a100=1,gres/gpu=1|n{i % 2}|train {i}\n"
    for i in range(1, 8)
)
SACCT_JSON = (
    '{"meta": {"Slurm": {"release": "24.11"}}, "jobs": ['
    '{"job_id": 7, "array": {"job_id": 7, "task_id": {"set": true, "number": 1}}, "cluster": "c",'
    ' "state": {"current": ["COMPLETED"]}, "time": {"start": 1770107400, "end": 1770111000,'
    ' "elapsed": 3600, "submission": 1770107000}, "nodes": "n[0-1]", "tres": {"allocated":'
    ' [{"type": "gres", "name": "gpu", "count": 4}]}},'
    '{"job_id": 8, "state": "FAILED", "time": {"start": 1770107400, "end": 1770111000},'
    ' "nodes": "n0", "tres": {"allocated": [{"type": "gres", "name": "gpu", "count": 1}]}}]}'
)
TABLE = "run_id,started_at,ended_at,host,gpu,share,name\n" + "".join(
    f"r{i},2026-02-0{i}T08:00:00Z,2026-02-0{i}T09:00:00Z,n{i % 2},{i % 4},0.5,a run\n"
    for i in range(1, 8)
)
TABLE_JSON = (
    '{"runs": [{"run_id": "a", "started_at": "2026-02-03T08:00:00Z", "ended_at": "2026-02-03T09:00:00Z",'
    ' "labels": {"team": "x"}, "allocations": [{"host": "n0", "gpu": "0-1"}, {"host": "n1", "gpu": 2}]},'
    ' {"run_id": "b", "started_at": "2026-02-03T08:00:00Z", "host": "n1", "share": 0.5}]}'
)
TABLE_TOML = (
    '[[run]]\nrun_id = "a"\nstarted_at = 2026-02-03T08:00:00Z\nended_at = 2026-02-03T09:00:00Z\n'
    '[[run.allocation]]\nhost = "n0"\ngpu = "0-1"\n[[run.allocation]]\nhost = "n1"\nshare = 0.5\n'
)
EMISSIONS = (
    "timestamp,project_name,run_id,duration,emissions,cpu_energy,gpu_energy,ram_energy,gpu_count,"
    "gpu_model,pue\n"
) + "".join(
    f'2026-02-0{i}T10:00:00,p,u{i % 5},3600,0.1,0.15,1.0,0.03,4,"4 x {A100}",1.2\n'
    for i in range(1, 8)
)
METERS = "meter,scope,metered,valid_from,valid_to,energy_kwh\n" + "".join(
    f"pdu,host,n{i},2026-02-0{i}T00:00:00Z,2026-02-0{i}T12:00:00Z,4.5\n" for i in range(1, 8)
)
RECORD = (
    '{"wattledger_run_record": 1, "record_id": "r", "run_id": "a", "name": "t", "owner": "o",'
    ' "host": "n0", "started_at": "2026-02-03T08:00:00Z", "ended_at": "2026-02-03T09:00:00Z",'
    ' "labels": {"team": "x"}, "slurm": {"SLURM_JOB_ID": "7"}, "exit_code": 0, "gpus":'
    ' [{"gpu_uuid": "GPU-0", "gpu_index": 0, "model": "A100", "share_ppm": 500000, "instance": ""}]}'
)

Traced = tuple[int, int, RowFaults]
"""Rows of a file, those that were read into something, and those skipped and set aside."""


def read_runs(module: object) -> Callable[[Path, Path, float], Traced]:
    def read(path: Path, plain: Path, share: float) -> Traced:
        found = module.read(path, plain, GPUS, "Europe/Berlin", share)  # type: ignore[attr-defined]
        for run in found.runs:
            assert run.allocations
            assert all(0 < held.share_ppm <= 1_000_000 for held in run.allocations)
            assert run.ended_at is None or run.ended_at >= run.started_at
        return found.rows, sum(len(run.rows) for run in found.runs), found.faults

    return read


def read_history(path: Path, plain: Path, share: float) -> Traced:
    found = codecarbon.read(path, plain, "Europe/Berlin", share)
    return found.rows, sum(len(run.rows) for run in found.measured), found.faults


def read_meters(path: Path, plain: Path, share: float) -> Traced:
    found = meters.read(path, plain, "Europe/Berlin", share)
    return found.rows, len(found.intervals), found.faults


def read_record(path: Path, plain: Path, share: float) -> Traced:
    records.build_runs([records.parse(plain.read_bytes(), plain)], ["a"])
    return 1, 1, RowFaults(path, share)


READERS: dict[str, tuple[str, str, Callable[[Path, Path, float], Traced]]] = {
    "sacct": ("sacct.txt", SACCT, read_runs(sacct)),
    "sacct-json": ("sacct.json", SACCT_JSON, read_runs(sacct)),
    "table": ("runs.csv", TABLE, read_runs(table)),
    "table-json": ("runs.json", TABLE_JSON, read_runs(table)),
    "table-toml": ("runs.toml", TABLE_TOML, read_runs(table)),
    "codecarbon": ("emissions.csv", EMISSIONS, read_history),
    "meter": ("meter.csv", METERS, read_meters),
    "record": ("record.json", RECORD, read_record),
}
PIECES = [
    *("|", ",", ";", '"', "\n", "\r\n", "\0", "\ufeff", "\t", "{", "[" * 2000, "}", "]", "null"),
    *("nan", "inf", "-1", "0", "1e309", "9" * 400, "Unknown", "[N/A]", "2026-10-25T02:30:00", "é"),
    *(
        "0-99999999999",
        "n[0-99999999]",
        "gres/gpu=999999999",
        "2126-01-01T00:00:00Z",
        "true",
        "\u2028",
    ),
]
COUNTS: Counter[str] = Counter()


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, int, int, str]]:
    kinds = st.sampled_from(["cut", "insert", "delete", "double", "end"])
    places = st.integers(0, 10_000)
    return draw(
        st.lists(st.tuples(kinds, places, st.integers(1, 40), st.sampled_from(PIECES)), max_size=4)
    )


def mutate(text: str, changes: list[tuple[str, int, int, str]]) -> bytes:
    for kind, at, length, piece in changes:
        place = at % (len(text) + 1)
        if kind == "cut":
            text = text[:place] + piece + text[place + length :]
        elif kind == "insert":
            text = text[:place] + piece + text[place:]
        elif kind == "delete":
            text = text[:place] + text[place + length :]
        elif kind == "double":
            text = text[:place] + text[place : place + length] * 2 + text[place + length :]
        else:
            text = text[:place]
    return text.encode()


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(changes=edits(), share=st.sampled_from([0.01, 1.0]))
def test_each_row_is_traced(
    name: str, changes: list[tuple[str, int, int, str]], share: float
) -> None:
    file_name, text, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name
        path.write_bytes(mutate(text, changes))
        started = time.monotonic()
        COUNTS[f"{name} files"] += 1
        try:
            with judge_file(path), open_plain_text(path, Path(folder)) as plain:
                rows, used, faults = read(path, plain, share)
        except BadInput as error:
            verdict = str(error)
            COUNTS[f"{name} refused"] += 1
        else:
            verdict = ""
            assert rows == used + sum(faults.skipped.values()) + faults.count
            COUNTS[f"{name} rows"] += rows
        assert "cannot be read" not in verdict
        assert time.monotonic() - started < 5
