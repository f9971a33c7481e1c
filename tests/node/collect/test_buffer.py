"""Readings that wait in memory are thinned, not dropped."""

from __future__ import annotations

import resource

import polars as pl
import pytest

from tests.node.conftest import GPU0, GPU1, Node, limit_files
from wattledger.collect.collector import DISK


def test_what_can_not_be_stored_is_thinned_not_dropped_and_said_at_the_end(node: Node) -> None:
    process = node.collect(wait=False, max_spool_mib=-1, max_buffer=40)
    node.until(lambda: node.spool.read_status().get("readings_thinned", 0) > 40)
    stderr = node.stop(process)
    assert process.returncode == DISK
    assert "fetch and delete finished segments" in stderr
    assert "could not be stored" in stderr
    assert node.segments() == []


def test_thinned_readings_keep_first_and_span(node: Node) -> None:
    process = node.collect(max_buffer=20)
    limit_files(process, 4096)
    node.until(lambda: node.spool.read_status().get("readings_thinned", 0) > 20)
    limit_files(process, resource.RLIM_INFINITY)
    node.until(lambda: node.spool.read_status().get("spool_problem") is None)
    node.stop(process)
    assert "thinned" in node.events()
    readings = node.readings().sort("gpu_uuid", "ts")
    # The counter tells all the energy of the time between, however few readings are left.
    for uuid, watts in ((GPU0, 300), (GPU1, 400)):
        of_gpu = readings.filter(pl.col("gpu_uuid") == uuid)
        seconds = (of_gpu["ts"][-1] - of_gpu["ts"][0]).total_seconds()
        assert (of_gpu["energy_mj"][-1] - of_gpu["energy_mj"][0]) / seconds == pytest.approx(
            1000 * watts, rel=0.005
        )
