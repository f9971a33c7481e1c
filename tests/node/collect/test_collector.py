"""The collector as a process: how it starts, goes on and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import polars as pl

from tests.node.conftest import GPU0, HOST, Node
from wattledger.collect.collector import BUSY, DISK, NO_DRIVER


def test_a_call_that_never_returns_does_not_keep_the_collector_from_ending(node: Node) -> None:
    process = node.collect()
    node.fault("hang:1")
    node.more(process)
    before = time.monotonic()
    node.stop(process)
    assert time.monotonic() - before < 5
    assert process.returncode == 0
    assert "stopped" in node.events()


def test_a_driver_reload_is_survived_and_its_counter_starts_anew(node: Node) -> None:
    process = node.collect()
    node.fault("gone")
    node.until(lambda: node.spool.read_status()["driver_problem"] is not None)
    node.fault("")
    node.more(process, 30)
    stderr = node.stop(process)
    assert "driver lost: NVML_ERROR_UNINITIALIZED" in stderr
    assert node.events() == ["started", "driver_lost", "driver_back", "stopped"]
    counter = node.readings().filter(pl.col("gpu_uuid") == GPU0).sort("ts")["energy_mj"]
    assert (counter.diff().drop_nulls() < 0).sum() == 1


def test_stopping_loses_nothing(node: Node) -> None:
    process = node.collect(flush_s=60)
    time.sleep(1.0)
    before = time.time()
    node.stop(process)
    last = node.readings()["ts"].max().timestamp()  # type: ignore[union-attr]
    assert before - last < 0.5


def test_one_collector_per_host(node: Node) -> None:
    first = node.collect()
    second = node.collect(wait=False)
    _, stderr = second.communicate(timeout=20)
    assert second.returncode == BUSY
    assert f"pid {first.pid}" in stderr
    assert first.poll() is None


def test_no_driver_is_said_with_its_own_exit_code(node: Node) -> None:
    node.fault("no_driver")
    process = node.collect(wait=False)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == NO_DRIVER
    assert "NVML_ERROR_DRIVER_NOT_LOADED" in stderr
    assert "nvidia-smi" in stderr


def test_a_spool_that_can_not_be_written(node: Node) -> None:
    node.spool.root.write_text("a file")
    process = node.collect(wait=False)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == DISK
    assert "--spool" in stderr


def test_nothing_heavy_is_loaded() -> None:
    script = "import wattledger.collect.collector, wattledger.runs.launch, sys; print(*sys.modules)"
    completed = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in completed.stdout.split()}
    heavy = {"prefect", "great_expectations", "polars", "pandas", "pyarrow", "numpy", "duckdb"}
    assert not loaded & (heavy | {"codecarbon", "flows", "transforms", "typer"})


def test_the_command_collects_and_says_how_it_is_doing(node: Node) -> None:
    command = [sys.executable, "-m", "flows.cli", "collect"]
    process = node.start([*command, "--rate", "20", "--flush", "0.3", "--no-host-meter"])
    node.until(lambda: node.stored(process) > 0)
    status = subprocess.run(
        [*command, "--status"], env=node.env, capture_output=True, text=True, check=True
    )
    assert f"Collecting on {HOST}, pid {process.pid}: 2 GPUs," in status.stdout
    as_json = subprocess.run(
        [*command, "--status", "--json"], env=node.env, capture_output=True, text=True, check=True
    )
    assert json.loads(as_json.stdout)["running"] is True
    node.stop(process)
    assert process.returncode == 0
    assert node.readings().height > 0
    wrong = subprocess.run([*command, "--rate", "99"], env=node.env, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "0.01 to 20" in wrong.stderr
