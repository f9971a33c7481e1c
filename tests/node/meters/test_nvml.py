"""What the driver says of a GPU, and what it does not."""

from __future__ import annotations

import polars as pl
import pytest

from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.sources.gpu.segments import COLUMNS
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.node.conftest import GPU0, GPU1, HOST, Node


def test_a_segment_holds_what_the_driver_says(node: Node) -> None:
    process = node.collect()
    node.more(process)
    assert node.stop(process) == ""
    assert process.returncode == 0
    readings = node.readings()
    assert dict(readings.schema) == {name: COLUMNS[name] for name in readings.columns}
    assert set(readings.columns) == set(COLUMNS)
    assert readings.select("gpu_uuid", "ts").equals(
        readings.select("gpu_uuid", "ts").sort("gpu_uuid", "ts")
    )
    assert readings["gpu_uuid"].unique().sort().to_list() == [GPU0, GPU1]
    constant = readings.filter(pl.col("gpu_uuid") == GPU1).drop("ts", "energy_mj").unique()
    assert constant.to_dicts() == [
        {
            "gpu_uuid": GPU1,
            "host": HOST,
            "gpu_index": 1,
            "model": "NVIDIA H100 80GB HBM3",
            "power_mw": 400_000,
            "power_average_mw": 399_000,
            "util_pct": 99,
            "mem_used_mib": 71_680,
            "temp_c": 55,
            "mem_temp_c": 61,
            "sm_clock_mhz": 1755,
            "power_limit_mw": 700_000,
            "throttle_reasons": 4,
            "power_source": "instant",
        }
    ]
    # The counter rises as the power says: time stamps are those of the calls.
    of_gpu = readings.filter(pl.col("gpu_uuid") == GPU1)
    rise = of_gpu["energy_mj"][-1] - of_gpu["energy_mj"][0]
    seconds = (of_gpu["ts"][-1] - of_gpu["ts"][0]).total_seconds()
    assert rise / seconds == pytest.approx(400_000, rel=0.01)
    [meta] = node.meta("collector")
    assert meta["driver_version"] == "550.0-stand-in"
    assert meta["period_ms"] == 50
    assert abs(meta["clock_offset_us"]["largest"]) < 1_000_000
    assert [gpu["unsupported"] for gpu in meta["gpus"]] == [{}, {}]
    assert node.events() == ["started", "stopped"]


@pytest.mark.parametrize(
    ("fault", "source", "power", "unsupported"),
    [
        ("no_instant", "average_1s", 299_000, {}),
        (
            "no_fields",
            "unknown",
            300_000,
            {
                "power_average_mw": "NVML_ERROR_FUNCTION_NOT_FOUND",
                "mem_temp_c": "NVML_ERROR_NOT_SUPPORTED",
            },
        ),
        ("no_counter", "instant", 300_000, {"energy_mj": "NVML_ERROR_NOT_SUPPORTED"}),
        (
            "no_power",
            "unknown",
            None,
            {"power_mw": "NVML_ERROR_UNKNOWN", "power_average_mw": "NVML_ERROR_UNKNOWN"},
        ),
    ],
)
def test_what_a_gpu_does_not_say_is_null_with_its_reason(
    node: Node, fault: str, source: str, power: int | None, unsupported: dict[str, str]
) -> None:
    node.fault(fault)
    process = node.collect()
    node.stop(process)
    first = node.readings().filter(pl.col("gpu_uuid") == GPU0)
    assert first["power_source"].unique().to_list() == [source]
    assert first["power_mw"].unique().to_list() == [power]
    for name in unsupported:
        assert first[name].null_count() == first.height
    [meta] = node.meta("collector")
    assert meta["gpus"][0]["unsupported"] == unsupported


def test_instances_are_listed_with_their_shares_and_their_gpu_is_metered_once(
    node: Node, project: Settings
) -> None:
    node.fault("mig")
    process = node.collect()
    node.stop(process)
    assert node.readings()["gpu_uuid"].unique().sort().to_list() == [GPU0, GPU1]
    [meta] = node.meta("collector")
    assert [i["share_ppm"] for i in meta["gpus"][0]["instances"]] == [571_428, 285_714, 142_857]
    assert meta["gpus"][0]["unsupported"] == {"util_pct": "NVML_ERROR_NOT_SUPPORTED"}
    assert ingest_gpu(project, node.segments())[0].verdict == "loaded"
    con = store_of(project).connect(read_only=True)
    instances = query_rows(con, "FROM gpu_instance ORDER BY share_ppm DESC")
    assert [(r["gpu_uuid"], r["share_ppm"]) for r in instances] == [
        (GPU0, 571_428),
        (GPU0, 285_714),
        (GPU0, 142_857),
    ]


def test_a_gpu_lost_before_the_start_is_named(node: Node) -> None:
    node.fault("lost:0")
    process = node.collect()
    node.stop(process)
    assert node.events() == ["gpu_refused", "started", "stopped"]
    assert node.readings()["gpu_uuid"].unique().to_list() == [GPU1]


def test_another_job_s_gpu_is_left_alone(node: Node) -> None:
    node.fault("no_permission:0")
    process = node.collect()
    node.stop(process)
    assert node.readings()["gpu_uuid"].unique().to_list() == [GPU1]
    assert node.events() == ["started", "stopped"]
