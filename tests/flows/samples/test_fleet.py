"""Simulated fleets: the same every time, and figures that meet the truth beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows import settings
from flows.accounting.compute import compute
from flows.errors import UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.samples import fleet_plan
from flows.samples.fleet import TRUTH, simulate_fleet
from flows.samples.fleet_plan import Fleet, plan_fleet
from flows.sources.grid import layouts
from flows.warehouse.store import store_of
from tests.conftest import wattledger


def accounted(folder: Path, fleet: Fleet) -> tuple[pl.DataFrame, Any]:
    """Every run with its true energy and the ledger's, and a connection to the warehouse."""
    simulated = simulate_fleet(fleet, folder)
    project = settings.load(folder)
    outcomes = ingest_gpu(project, [folder / "readings"])
    assert {o.verdict for o in outcomes} == {"loaded"}
    assert sum(o.rows_loaded for o in outcomes) == simulated.readings
    ingest_grid(project, [folder / "grid.csv"], layouts.Options("SIM", "", "", "", ""), "auto", "")
    [runs] = ingest_runs(project, [folder / "runs.csv"], "")
    assert (runs.verdict, runs.warnings) == ("loaded", [])
    compute(project)
    con = store_of(project).connect(read_only=True)
    computed = con.execute("FROM run_footprint WHERE kind = 'run'").pl()
    truth = (
        pl.read_parquet(folder / TRUTH)
        .filter(pl.col("run_id").is_not_null())
        .group_by("run_id")
        .agg(true_mj=pl.col("energy_nj").sum() / 1e6)
    )
    both = truth.join(computed, on="run_id", how="full", coalesce=True)
    assert both.height == truth.height == computed.height == simulated.runs
    return both.with_columns(off=pl.col("energy_mj") / pl.col("true_mj") - 1), con


def off(both: pl.DataFrame) -> float:
    return abs(both["energy_mj"].sum() / both["true_mj"].sum() - 1)


def worst(both: pl.DataFrame) -> float:
    return float(both.select(pl.col("off").abs().max()).item())


def test_counters_meet_the_truth(tmp_path: Path) -> None:
    both, con = accounted(tmp_path, Fleet(200, 2))
    assert set(both["run_id"].str.extract("^([a-z]+)")) == {"pretrain", "tune", "sweep", "slice"}
    assert off(both) < 1e-4
    assert worst(both) < 5e-4
    [(difference, held)] = con.execute(
        "SELECT sum(difference_mj), sum(unallocated_mj) > 0 FROM conservation"
    ).fetchall()
    assert (difference, held) == (0, True)


def test_power_alone_comes_close(tmp_path: Path) -> None:
    both, con = accounted(tmp_path, Fleet(200, 2, counters=False))
    assert con.execute(
        "SELECT count(energy_mj), count(power_mw) > 0 FROM gpu_reading"
    ).fetchall() == [(0, True)]
    assert 0 < off(both) < 1e-3
    assert worst(both) < 0.02


@pytest.mark.parametrize("counters", [True, False])
def test_accidents_are_seen_and_change_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counters: bool
) -> None:
    for name in ("_GPU_FAILURES_PER_H", "_REBOOTS_PER_H", "_OUTAGES_PER_H"):
        monkeypatch.setattr(fleet_plan, name, 0.03)
    fleet = Fleet(120, 3, counters=counters)
    plan = plan_fleet(fleet)
    assert plan.failures
    assert plan.reboots
    assert plan.outages
    both, con = accounted(tmp_path, fleet)
    assert off(both) < (1e-3 if counters else 5e-3)
    [(resets, bridged, silent)] = con.execute(
        "SELECT sum(counter_resets) > 0, sum(gap_mj) > 0, "
        "(SELECT count(DISTINCT gpu_key) FROM gpu_reading WHERE ts > $1) < 120 FROM gpu_slot",
        [fleet.start.replace(hour=2, minute=55)],
    ).fetchall()
    # A counter that goes on through a silence leaves no gap; one that began anew does.
    assert (resets, bridged, silent) == (counters, True, True)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".toml"
    }


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    fleet = Fleet(600, 1, seed=5, period_s=10)
    simulated = [simulate_fleet(fleet, tmp_path / str(n), workers=n) for n in (1, 3)]
    assert digests(tmp_path / "1") == digests(tmp_path / "3")
    assert simulated[0].readings == simulated[1].readings == 600 * 360 - simulated[0].missed
    simulate_fleet(Fleet(600, 1, seed=6, period_s=10), tmp_path / "other")
    assert digests(tmp_path / "other") != digests(tmp_path / "1")


def test_counters_or_not_is_the_same_fleet(tmp_path: Path) -> None:
    for counters in (True, False):
        simulate_fleet(Fleet(64, 1, period_s=5, counters=counters), tmp_path / str(counters))
    counted, uncounted = (pl.read_parquet(tmp_path / name / TRUTH) for name in ("True", "False"))
    assert counted.equals(uncounted)


def test_a_workstation(tmp_path: Path) -> None:
    both, _ = accounted(tmp_path, Fleet(1, 1, period_s=10))
    assert both.height >= 1
    assert off(both) < 2e-3


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    process = wattledger("simulate", str(folder), "--gpus", "16", "--hours", "1", "--period", "10")
    assert process.returncode == 0, process.stderr
    assert "They truly took" in process.stdout
    assert f"Next: wattledger pipeline -p {folder}" in process.stdout
    again = wattledger("simulate", str(folder))
    assert again.returncode == 1
    assert "there is something in it already" in again.stderr


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        (Fleet(0, 1), "--gpus"),
        (Fleet(8, 0), "--hours"),
        (Fleet(8, 1, period_s=61), "--period"),
        (Fleet(8, 1, period_s=7), "do not divide an hour"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, fleet: Fleet, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate_fleet(fleet, tmp_path / "fleet")
    assert not (tmp_path / "fleet").exists()
