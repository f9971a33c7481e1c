"""The real pynvml on a compiled stand-in driver library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, wattledger

_SCRIPT = """
import json, sys
from flows.sources import nvml
if not nvml.available():
    print("none"); sys.exit()
found = nvml.sample(1.0, 0.05)
print(json.dumps({
    "gpus": found["gpu_uuid"].unique().sort().to_list(),
    "rows": found.height,
    "power": found["power_mw"].drop_nulls().unique().sort().to_list(),
    "counters": found["energy_mj"].drop_nulls().len(),
    "sorted": found.select("gpu_uuid", "ts").equals(found.select("gpu_uuid", "ts").sort("gpu_uuid", "ts")),
    "row": [str(v) for v in found.row(0)],
}))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parent / "nvml_stand_in.c"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
    )
    return folder


def sample(driver: Path, fault: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "WATTLEDGER_NVML_FAULT": fault},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_readings_come_from_the_driver(driver: Path) -> None:
    found = json.loads(sample(driver, "none"))
    assert found["gpus"] == ["GPU-11111111-stand-in", "GPU-22222222-stand-in"]
    assert found["power"] == [300_000, 400_000]
    assert 20 <= found["rows"] <= 42
    assert found["counters"] == found["rows"]
    assert found["sorted"]


def test_what_is_not_supported_is_null(driver: Path) -> None:
    assert json.loads(sample(driver, "no_counter"))["counters"] == 0
    assert json.loads(sample(driver, "no_power"))["power"] == []


def test_no_driver_means_no_gpu(driver: Path) -> None:
    assert sample(driver, "no_driver").strip() == "none"


@pytest.mark.service
def test_the_demo_measures_where_there_is_a_gpu(
    driver: Path, tmp_path: Path, on_server: dict[str, str]
) -> None:
    done = wattledger(
        "demo",
        "--project",
        tmp_path / "live",
        "--json",
        env={"LD_LIBRARY_PATH": str(driver), **on_server},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["gpu"][0]["verdict"] == "loaded"
    asked = wattledger(
        "query",
        "SELECT energy_measured_share, gpus, energy_kwh FROM run_summary",
        "--json",
        "--project",
        tmp_path / "live",
    )
    [run] = json.loads(asked.stdout)
    assert run["gpus"] == 2
    assert run["energy_measured_share"] > 0.98
    # 300 W and 400 W for 15 s.
    assert run["energy_kwh"] == pytest.approx(700 * 15 / 3.6e6, rel=0.05)
