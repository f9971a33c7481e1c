"""Estimates of runs, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from tests.conftest import ask, make_project, runs_csv, segment, wattledger


def test_an_estimate_names_everything_that_it_rests_on() -> None:
    process = wattledger(
        "estimate", "--gpu", "h100", "--gpu-hours", "1000", "--zone", "US", "--json"
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["estimated"] is True
    # 0.8 of 700 W; 345 W of an HGX H100 beside it; PUE 1.58.
    assert result["figures"]["facility_kwh"] == pytest.approx((560 + 345) * 1.58)
    assert all(entry["source"] for entry in result["inputs"].values() if entry["high"])
    assert "(US)" in result["inputs"]["intensity_g_per_kwh"]["source"]
    output = wattledger("estimate", "--gpu", "h100", "--gpu-hours", "1000", "--zone", "US").stdout
    assert "nothing was metered" in output
    assert "Uptime Institute" in output


def test_power_and_utilisation_as_told() -> None:
    words = ("estimate", "--gpu", "H100", "--gpu-hours", "10", "--json")
    half = json.loads(wattledger(*words, "--utilisation", "0.5").stdout)
    assert half["inputs"]["gpu_w"]["value"] == pytest.approx(70 + 0.5 * 630)
    by_power = json.loads(wattledger(*words, "--power-w", "123").stdout)
    assert by_power["figures"]["energy_kwh"] == pytest.approx(1.23)
    assert by_power["figures"]["co2e_market_kg"] == by_power["figures"]["co2e_kg"]
    priced = json.loads(wattledger(*words, "--price", "0.5").stdout)["figures"]
    assert priced["cost"] == pytest.approx(priced["facility_kwh"] * 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gpu", "Foo"), "no factor knows the GPU 'Foo'"),
        (("--gpu", "H100", "--like", "nobody"), "has no scope 'nobody'"),
        (("--gpu", "H100", "--site", "mars"), "no [[site]] is called 'mars'"),
        (("--gpu", "H100", "--zone", "Mars"), "nothing is known of zone 'Mars'"),
        (("--gpu", "H100", "--utilisation", "2"), "less than or equal to 1"),
    ],
)
def test_what_cannot_be_estimated_is_said(words: tuple[str, ...], message: str) -> None:
    process = wattledger("estimate", "--gpu-hours", "1", *words)
    assert process.returncode == 1
    assert message in process.stderr


def test_an_estimate_and_the_ledger_agree_on_what_they_share(tmp_path: Path) -> None:
    """A run on idle readings, and an estimate with the power that was measured."""
    project = make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")
    ingest_gpu(project, [segment(project.root)])
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"
    ingest_runs(project, [runs_csv(project.root, [row])])
    compute(project)
    [run] = ask(project, "FROM run_summary")
    words = (
        "--gpu-hours",
        run["gpu_hours"],
        "--power-w",
        run["energy_kwh"] / run["gpu_hours"] * 1000,
    )
    process = wattledger(
        "estimate",
        "--gpu",
        "none",
        *map(str, words),
        "--site",
        "main",
        "--project",
        project.root,
        "--json",
    )
    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout)["figures"]
    # The ledger's site names no server, so its host counts nothing; the estimate adds the usual one.
    overhead_kwh = figures["it_kwh"] - figures["energy_kwh"]
    assert overhead_kwh == pytest.approx(0.15 * run["gpu_hours"])
    for name in ("co2e_kg", "water_onsite_l"):
        assert figures[name] * run["energy_kwh"] / figures["it_kwh"] == pytest.approx(
            run[name], rel=1e-5
        )
