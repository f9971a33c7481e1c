"""A scheduler's jobs, recorded by its prolog and epilog."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.node.conftest import HOST, Node


def test_prolog_and_epilog_record_a_job_without_its_user(node: Node) -> None:
    job = [sys.executable, "-m", "flows.cli", "job"]
    slurm = {
        "SLURM_JOB_ID": "91",
        "SLURM_CLUSTER_NAME": "hpc",
        "SLURM_JOB_GPUS": "1",
        "SLURM_JOB_USER": "ada",
        "SLURM_JOB_EXIT_CODE2": "3:0",
    }

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*job, *words], env={**node.env, **env}, capture_output=True, text=True, timeout=30
        )

    assert call("begin", **slurm).returncode == 0
    [begun] = node.records()
    assert (begun["run_id"], begun["owner"]) == ("hpc-91", "ada")
    assert [held["gpu_index"] for held in begun["gpus"]] == [1]
    # A collector sees it open, however long no process of it is there.
    collector = node.collect(linger_s=1)
    time.sleep(3.5)
    assert collector.poll() is None
    assert node.records()[0]["ended_at"] is None
    assert call("begin", **slurm).returncode == 0
    assert node.records() == [begun]
    assert call("end", **slurm).returncode == 0
    [ended] = node.records()
    assert (ended["ended_by"], ended["exit_code"]) == ("epilog", 3)
    node.until(lambda: collector.poll() == 0)
    missing = call("end", **{**slurm, "SLURM_JOB_ID": "92"})
    assert missing.returncode == 2
    assert "no job has begun here" in missing.stderr
    assert call("begin").returncode == 2


def test_a_job_on_a_node_that_went_down_has_an_end(node: Node) -> None:
    from wattledger.runs.records import Record

    node.spool.create()
    Record(
        record_id="n",
        run_id="hpc-5",
        name="job",
        owner="ada",
        host=HOST,
        started_at="2024-05-01T12:00:00Z",
        pid=0,
        pid_started="another-boot",
    ).save(node.spool.runs)
    node.spool.write_status({"runs_alive": {"n": "2024-05-01T13:00:00Z"}})
    collector = node.collect()
    node.until(lambda: node.records()[0]["ended_at"] is not None)
    node.stop(collector)
    [record] = node.records()
    assert (record["ended_at"], record["ended_by"]) == ("2024-05-01T13:00:00Z", "lost")
