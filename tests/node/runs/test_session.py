"""One process of a run: its collector, its record, its summary."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.conftest import make_project
from tests.node.conftest import Node
from tests.node.runs.conftest import PYTHON, RUN, run


def test_a_running_collector_is_used_and_goes_on(node: Node) -> None:
    collector = node.collect()
    completed = run(node, code="import time; time.sleep(1)")
    assert "GPU energy" in completed.stderr
    assert collector.poll() is None
    assert len(list(node.spool.folder.glob("collector.log"))) == 0
    node.stop(collector)


def test_without_a_driver_it_says_so_once_and_measures_the_host(node: Node) -> None:
    node.fault("no_driver")
    completed = subprocess.run(
        [*RUN, "--host-meter", "--", "sleep", "5"], env=node.env, capture_output=True, text=True
    )
    assert completed.returncode == 0
    assert completed.stderr.count("no NVIDIA driver answers") == 1
    assert "CPU, memory" in completed.stderr
    assert "estimated by codecarbon" in completed.stderr
    assert node.records()[0]["gpus"] == []


def test_the_spool_can_not_be_written_and_the_work_goes_on(node: Node) -> None:
    node.spool.root.write_text("a file")
    completed = run(node, code="print('trained')")
    assert (completed.returncode, completed.stdout) == (0, "trained\n")
    assert "the run is not recorded" in completed.stderr


def test_ranks_of_one_run_hold_each_gpu_once(node: Node, project: Settings) -> None:
    ranks = [
        node.start(
            [*RUN, "--", "sleep", "2"],
            env={
                "SLURM_JOB_ID": "77",
                "SLURM_CLUSTER_NAME": "hpc",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "SLURM_NTASKS": "2",
                "CUDA_VISIBLE_DEVICES": "0,1",
            },
        )
        for rank in (0, 1)
    ]
    stderr = [process.communicate(timeout=40)[1] for process in ranks]
    assert "run hpc-77: 2 GPUs" in stderr[0]
    assert stderr[1] == ""
    node.until(lambda: node.spool.read_running_status() is None)
    assert [o.verdict for o in ingest_gpu(project, node.segments())] == ["loaded"]
    outcomes = ingest_runs(project, [node.spool.runs])
    assert [o.verdict for o in outcomes] == ["loaded", "loaded"]
    con = store_of(project).connect(read_only=True)
    held = query_rows(
        con, "SELECT gpu_uuid, sum(share_ppm) AS share FROM run_allocation GROUP BY 1"
    )
    assert [row["share"] for row in held if row["share"] != 1_000_000] in ([], [2_000_000] * 2)
    [training] = query_rows(con, "FROM training_run WHERE superseded_at IS NULL")
    assert training["run_id"] == "hpc-77"
    assert json.loads(training["labels"])["slurm_job_id"] == "77"
    overlap = query_rows(
        con,
        "SELECT * FROM run_allocation AS a JOIN run_allocation AS b ON a.gpu_uuid = b.gpu_uuid "
        "AND a.from_ts < b.to_ts AND b.from_ts < a.to_ts AND a.from_ts <> b.from_ts",
    )
    assert overlap == []


def test_visible_devices_say_which_gpus_a_run_holds(node: Node) -> None:
    run(node, "-q", code="", env={"CUDA_VISIBLE_DEVICES": "1"})
    [record] = node.records()
    assert [held["gpu_uuid"] for held in record["gpus"]] == ["GPU-02020202-stand-in"]


def test_what_runs_inside_a_run_belongs_to_it(node: Node) -> None:
    code = "import os; print(os.environ['WATTLEDGER_RUN_ID'])"
    completed = run(node, "-q", "--run-id", "outer", code=code)
    assert completed.stdout == "outer\n"
    inner = [*RUN, "-q", "--", *PYTHON, code]
    nested = run(node, "-q", code=f"import subprocess; subprocess.run({inner!r})")
    names = {record["run_id"] for record in node.records()} - {"outer"}
    assert {nested.stdout.strip()} == names


def test_a_preview_with_factors_agrees_with_the_ledger(node: Node, tmp_path: Path) -> None:
    project = make_project(tmp_path / "ledger", "[zones.XX]\nfallback_intensity_g_per_kwh = 400\n")
    completed = run(node, "-p", str(project.root), code="import time; time.sleep(2)")
    assert "CO2e" in completed.stderr
    assert "a preview" in completed.stderr
    node.until(lambda: node.spool.read_running_status() is None)
    ingest_gpu(project, node.segments())
    ingest_runs(project, [node.spool.runs])
    from flows.accounting.compute import compute

    compute(project)
    con = store_of(project).connect(read_only=True)
    [row] = query_rows(con, "FROM run_summary")
    grams = float(completed.stderr.split("CO2e")[1].split("g")[0])
    assert row["co2e_kg"] * 1000 == pytest.approx(grams, rel=0.01)
    assert row["energy_measured_share"] == 1
