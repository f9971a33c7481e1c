"""From memory to the disk: nothing is lost, whatever goes wrong."""

from __future__ import annotations

import resource
import signal
import time

import polars as pl

from tests.node.conftest import GPU0, Node, limit_files, longest_gap_s


def test_a_kill_loses_nothing_that_was_stored(node: Node) -> None:
    process = node.collect()
    node.more(process, 50)
    stored = node.stored(process)
    node.stop(process, signal.SIGKILL)
    assert node.segments() == []
    second = node.collect()
    node.stop(second)
    first, last = node.segments()
    assert pl.read_parquet(first).height >= stored
    assert "recovered" in node.events()
    readings = node.readings()
    assert readings.select("gpu_uuid", "ts").is_duplicated().sum() == 0
    assert pl.read_parquet(first)["ts"].max() < pl.read_parquet(last)["ts"].min()


def test_segments_are_finished_while_it_goes_on(node: Node) -> None:
    process = node.collect(segment_s=0.5)
    node.until(lambda: len(node.segments()) >= 2)
    assert process.poll() is None
    node.stop(process)
    assert longest_gap_s(node.readings(), GPU0) < 1
    assert not list(node.spool.folder.glob(".*.part"))


def test_a_full_disk_makes_readings_wait_and_none_is_lost(node: Node) -> None:
    process = node.collect()
    node.more(process)
    limit_files(process, 4096)
    node.until(lambda: node.spool.read_status().get("spool_problem") is not None)
    waiting_at = time.time()
    time.sleep(0.5)
    limit_files(process, resource.RLIM_INFINITY)
    node.until(lambda: node.spool.read_status().get("spool_problem") is None)
    node.more(process)
    stderr = node.stop(process)
    assert "spool full" in stderr
    events = node.events()
    assert events.index("spool_full") < events.index("spool_writable")
    readings = node.readings()
    assert readings["ts"].max().timestamp() > waiting_at  # type: ignore[union-attr]
    assert longest_gap_s(readings, GPU0) < 1
    assert readings.select("gpu_uuid", "ts").is_duplicated().sum() == 0
