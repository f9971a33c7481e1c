"""What the collector costs: `python -m bench.collector [--seconds 60] [--gpus 8] [--hz 10]`.

Runs the real collector, through the real pynvml, on the stand-in driver of the tests; needs gcc and
Linux. Sampling is measured after the first two seconds. Sealing is a process of its own; its cost is
spread over a segment of ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import polars as pl

from wattledger.config import Config
from wattledger.process import module_command

_STAND_IN = Path(__file__).parent.parent / "tests" / "node" / "nvml_stand_in.c"


def measure(seconds: float, gpus: int, hz: float, folder: Path) -> dict[str, float]:
    """Run the collector for a while: what it costs, and how steady it is."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, _STAND_IN], check=True)
    config = Config(spool=str(folder / "spool"), host="bench", period_s=1 / hz, host_meter=False)
    began = time.time()
    process = subprocess.Popen(
        module_command("wattledger.collect.collector", config.as_json()),
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "WATTLEDGER_NVML_GPUS": str(gpus)},
    )
    time.sleep(2)
    cpu_before_s = _cpu_s(process.pid)
    time.sleep(seconds)
    sampling_s = _cpu_s(process.pid) - cpu_before_s
    status = Path(f"/proc/{process.pid}/status").read_text()
    process.kill()
    process.wait()
    [journal] = (folder / "spool" / "bench" / "open").glob("*.sqlite")
    sealing_s = _seal(journal)
    [segment] = (folder / "spool" / "bench").glob("*.parquet")
    readings = pl.read_parquet(segment).sort("gpu_index", "ts")
    times = readings.filter(pl.col("gpu_index") == 0)["ts"].to_physical() / 1e6
    since_first = times - times[0]
    jitter_ms = (since_first - (since_first * hz).round() / hz).abs() * 1000
    return {
        "readings": readings.height,
        "sampling_core_percent": 100 * sampling_s / seconds,
        "sealing_core_percent": 100 * sealing_s / config.segment_s,
        "peak_rss_mib": int(status.split("VmHWM:")[1].split()[0]) / 1024,
        "jitter_p50_ms": jitter_ms.quantile(0.5) or 0.0,
        "jitter_p99_ms": jitter_ms.quantile(0.99) or 0.0,
        "start_to_first_reading_s": times[0] - began,
        "bytes_per_reading": segment.stat().st_size / readings.height,
    }


def _seal(journal: Path) -> float:
    """Seal a journal; returns the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(module_command("wattledger.spool.seal", str(journal)), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--hz", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(arguments.seconds, arguments.gpus, arguments.hz, Path(folder))
        print(json.dumps(costs, indent=2))


if __name__ == "__main__":
    main()
