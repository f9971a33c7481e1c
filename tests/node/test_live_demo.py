"""The demo on a machine with GPUs: the collector, through the real pynvml, on the stand-in driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import ROOT

_SCRIPT = """
import sys
from pathlib import Path
from flows.samples import demo
from wattledger.meters.nvml import has_gpu
demo.LIVE_SECONDS = 3.0
seen = []
print(has_gpu(), demo.prepare_demo(Path(sys.argv[1]), live=has_gpu(), progress=seen.append))
assert max(seen) > 2
"""


def prepare(driver: Path, folder: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "WATTLEDGER_NVML_FAULT": fault},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_measures_where_there_is_a_gpu(driver: Path, tmp_path: Path) -> None:
    completed = prepare(driver, tmp_path / "live")
    assert completed.returncode == 0, completed.stderr
    assert "True GPU readings: measured now through NVML, 2 GPUs, 3 s" in completed.stdout
    [segment] = (tmp_path / "live" / "readings").iterdir()
    readings = pl.read_parquet(segment)
    assert readings["gpu_uuid"].n_unique() == 2
    rise = readings.group_by("gpu_uuid").agg(
        mj=pl.col("energy_mj").max() - pl.col("energy_mj").min()
    )
    seconds = (readings["ts"].max() - readings["ts"].min()).total_seconds()  # type: ignore[operator, union-attr]
    assert rise["mj"].sum() / seconds == pytest.approx(700_000, rel=0.1)
    assert (tmp_path / "live" / "runs.csv").read_text().count("live-") == 1


def test_without_a_driver_it_does_not_measure(driver: Path, tmp_path: Path) -> None:
    completed = prepare(driver, tmp_path / "sample", "no_driver")
    assert completed.stdout.startswith("False GPU readings: SAMPLE")
