"""A node to record: the real collector, through the real pynvml, on the stand-in driver."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from wattledger.process import module_command
from wattledger.spool.spool import Spool

HOST = "node01"
GPU0, GPU1 = "GPU-01010101-stand-in", "GPU-02020202-stand-in"


class Node:
    """One host with its spool, driver faults on demand, and the processes started on it."""

    def __init__(self, folder: Path, driver: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool", HOST)
        self.control = folder / "faults"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "WATTLEDGER_"))},
            "LD_LIBRARY_PATH": str(driver),
            "WATTLEDGER_NVML_CONTROL": str(self.control),
            "WATTLEDGER_HOST": HOST,
            "WATTLEDGER_SPOOL": str(self.spool.root),
        }
        self.started: list[subprocess.Popen[str]] = []
        self.fault("")

    def fault(self, text: str) -> None:
        part = self.folder / "faults.part"
        part.write_text(text)
        part.rename(self.control)

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env={**self.env, **options.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            **options,
        )
        self.started.append(process)
        return process

    def collect(self, *, wait: bool = True, **config: Any) -> subprocess.Popen[str]:
        """Start the collector: fast, without the host meter, retrying soon."""
        settings = {
            "spool": str(self.spool.root),
            "period_s": 0.05,
            "flush_s": 0.3,
            "host_meter": False,
            "retry_s": 0.2,
            **config,
        }
        process = self.start(module_command("wattledger.collect.collector", json.dumps(settings)))
        if wait:
            self.until(lambda: self.stored(process) > 0)
        return process

    def stored(self, process: subprocess.Popen[str]) -> int:
        status = self.spool.read_status()
        return int(status["readings_stored"]) if status.get("pid") == process.pid else 0

    def more(self, process: subprocess.Popen[str], readings: int = 20) -> None:
        """Wait until so many more readings are stored."""
        wanted = self.stored(process) + readings
        self.until(lambda: self.stored(process) >= wanted)

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
        """End a process; returns what it wrote to stderr."""
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        return stderr

    @staticmethod
    def until(true: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def segments(self) -> list[Path]:
        return [p for p in sorted(self.spool.folder.glob("*.parquet")) if ".host." not in p.name]

    def readings(self) -> pl.DataFrame:
        return pl.concat([pl.read_parquet(path) for path in self.segments()])

    def meta(self, key: str) -> list[Any]:
        """One entry per segment from its metadata."""
        metadata = (pq.read_metadata(path).metadata for path in self.segments())
        return [json.loads(m[f"wattledger.{key}".encode()]) for m in metadata]

    def events(self) -> list[str]:
        return [event["event"] for segment in self.meta("events") for event in segment]

    def records(self) -> list[dict[str, Any]]:
        files = [*self.spool.runs.glob("*.json"), *self.spool.runs.glob("*/*.json")]
        return [json.loads(p.read_text()) for p in sorted(files)]


def longest_gap_s(readings: pl.DataFrame, uuid: str) -> float:
    """The longest step between two readings of a GPU, in seconds."""
    times = readings.filter(pl.col("gpu_uuid") == uuid)["ts"].sort().to_physical()
    return float(times.diff().drop_nulls().max()) / 1e6  # type: ignore[arg-type]


def limit_files(process: subprocess.Popen[str], size: int) -> None:
    """No file of this process may grow beyond `size`: a full disk, as far as it can tell."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def node(tmp_path: Path, driver: Path) -> Iterator[Node]:
    made = Node(tmp_path, driver)
    yield made
    made.fault("")
    for process in made.started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    if (running := made.spool.read_running_status()) is not None:
        with suppress(ProcessLookupError):
            os.kill(running["pid"], signal.SIGKILL)
