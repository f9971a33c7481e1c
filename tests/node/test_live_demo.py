"""The demo on a machine with GPUs: the collector, through the real pynvml, on the stand-in driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import wattledger


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
