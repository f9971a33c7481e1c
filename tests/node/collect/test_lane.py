"""Lanes: a GPU that fails, hangs or is slow does not disturb the others."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.node.conftest import GPU0, GPU1, HOST, Node, longest_gap_s
from wattledger.collect.collector import Collector
from wattledger.collect.lane import Lane
from wattledger.config import Config
from wattledger.meters.nvml import NvmlGpu
from wattledger.readings import Values


def test_a_gpu_off_the_bus_is_recorded_and_the_others_go_on(node: Node, project: Settings) -> None:
    process = node.collect()
    node.fault("lost:0")
    node.more(process, 40)
    node.fault("")
    node.more(process, 30)
    stderr = node.stop(process)
    assert f"gpu lost GPU 0 ({GPU0}): NVML_ERROR_GPU_IS_LOST" in stderr
    assert process.returncode == 0
    assert node.events() == ["started", "gpu_lost", "gpu_back", "stopped"]
    readings = node.readings()
    assert longest_gap_s(readings, GPU0) > 1
    assert longest_gap_s(readings, GPU1) < 1
    ingest_gpu(project, node.segments())
    con = store_of(project).connect(read_only=True)
    events = query_rows(con, "FROM collector_event WHERE gpu_uuid IS NOT NULL ORDER BY ts")
    assert [(r["host"], r["event"], r["gpu_uuid"]) for r in events] == [
        (HOST, "gpu_lost", GPU0),
        (HOST, "gpu_back", GPU0),
    ]


def test_a_gpu_that_answers_nothing_counts_as_lost(node: Node) -> None:
    process = node.collect()
    node.fault("unknown:1")
    node.more(process, 30)
    node.fault("")
    node.more(process, 30)
    node.stop(process)
    assert "gpu_lost" in node.events()
    assert "gpu_back" in node.events()


def test_a_question_that_fails_now_is_an_event_not_a_zero(node: Node) -> None:
    process = node.collect()
    node.fault("no_power")
    node.more(process)
    node.fault("")
    node.more(process)
    node.stop(process)
    assert node.events().count("read_error") == 4
    readings = node.readings()
    assert readings["power_mw"].null_count() > 0
    assert readings["energy_mj"].null_count() == 0
    assert readings["power_mw"].min() == 300_000


def test_a_hanging_call_costs_only_its_own_gpu(node: Node) -> None:
    process = node.collect()
    node.fault("hang:0")
    node.more(process, 60)
    node.fault("")
    node.more(process, 30)
    node.stop(process)
    events = node.events()
    assert events[:2] == ["started", "hung_call"]
    assert "slow_call" in events
    readings = node.readings()
    assert longest_gap_s(readings, GPU0) > 1
    # At most until it is noticed.
    assert longest_gap_s(readings, GPU1) < 1


def test_the_only_gpu_that_hangs_is_noted_once(node: Node) -> None:
    node.env["WATTLEDGER_NVML_GPUS"] = "1"
    process = node.collect()
    node.fault("hang:0")
    time.sleep(1.5)
    node.fault("")
    node.more(process)
    node.stop(process)
    assert node.events().count("hung_call") == 1


def test_a_gpu_that_hangs_from_the_start_does_not_keep_the_others_from_being_read(
    node: Node,
) -> None:
    node.fault("hang:0")
    process = node.collect()
    node.more(process)
    node.stop(process)
    assert node.readings()["gpu_uuid"].unique().to_list() == [GPU1]
    assert "hung_call" in node.events()
    [meta] = node.meta("collector")
    assert [gpu["uuid"] for gpu in meta["gpus"]] == [GPU1]


def test_an_error_nobody_thought_of_is_an_event_and_the_lane_goes_on(tmp_path: Path) -> None:
    stderr: list[str] = []
    collector = Collector(Config(spool=str(tmp_path), host=HOST), stderr.append)

    class Odd(NvmlGpu):
        probed = True  # type: ignore[assignment]

        def read(self) -> Values:
            raise UnicodeDecodeError("ascii", b"x", 0, 1, "odd")

    lane = Lane(collector, collector.config, [], 0)
    lane._visit(Odd("GPU-odd", 0, "odd"))
    assert "read failed GPU 0 (GPU-odd): UnicodeDecodeError" in stderr[0]
    lane._visit(Odd("GPU-odd", 0, "odd"))
    assert len(stderr) == 1  # left alone for a while


def test_a_slow_gpu_does_not_slow_the_others(node: Node) -> None:
    node.fault("slow:0:120")
    process = node.collect()
    node.until(lambda: "hung" in json.dumps(node.spool.read_status()) or node.stored(process) > 60)
    node.stop(process)
    readings = node.readings()
    counts = dict(readings.group_by("gpu_uuid").len().iter_rows())
    assert "hung_call" in node.events()
    assert counts[GPU1] > 1.8 * counts[GPU0]
