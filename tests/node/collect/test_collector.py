"""The collector: what it reads, and that nothing is lost whatever goes wrong."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.sources.gpu.segments import COLUMNS
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.node.conftest import HOST, Node
from wattledger.collect.collector import BUSY, DISK, NO_DRIVER, Collector
from wattledger.collect.lane import Lane
from wattledger.config import Config
from wattledger.meters.nvml import NvmlGpu
from wattledger.process import module_command
from wattledger.readings import Values

GPU0, GPU1 = "GPU-01010101-stand-in", "GPU-02020202-stand-in"


def gaps_s(readings: pl.DataFrame, uuid: str) -> float:
    """The longest step between two readings of a GPU, in seconds."""
    times = readings.filter(pl.col("gpu_uuid") == uuid)["ts"].sort().to_physical()
    return float(times.diff().drop_nulls().max()) / 1e6  # type: ignore[arg-type]


def limit_files(process: subprocess.Popen[str], size: int) -> None:
    """No file of this process may grow beyond `size`: a full disk, as far as it can tell."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_segment_holds_what_the_driver_says(node: Node) -> None:
    process = node.collect()
    node.more(process)
    assert node.stop(process) == ""
    assert process.returncode == 0
    found = node.readings()
    assert dict(found.schema) == {name: COLUMNS[name] for name in found.columns}
    assert set(found.columns) == set(COLUMNS)
    assert found.select("gpu_uuid", "ts").equals(
        found.select("gpu_uuid", "ts").sort("gpu_uuid", "ts")
    )
    assert found["gpu_uuid"].unique().sort().to_list() == [GPU0, GPU1]
    constant = found.filter(pl.col("gpu_uuid") == GPU1).drop("ts", "energy_mj").unique()
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
    one = found.filter(pl.col("gpu_uuid") == GPU1)
    rise = one["energy_mj"][-1] - one["energy_mj"][0]
    seconds = (one["ts"][-1] - one["ts"][0]).total_seconds()
    assert rise / seconds == pytest.approx(400_000, rel=0.01)
    [said] = node.meta("collector")
    assert said["driver_version"] == "550.0-stand-in"
    assert said["period_ms"] == 50
    assert abs(said["clock_offset_us"]["largest"]) < 1_000_000
    assert [gpu["unsupported"] for gpu in said["gpus"]] == [{}, {}]
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
    [said] = node.meta("collector")
    assert said["gpus"][0]["unsupported"] == unsupported


def test_instances_are_listed_with_their_shares_and_their_gpu_is_metered_once(
    node: Node, project: Settings
) -> None:
    node.fault("mig")
    process = node.collect()
    node.stop(process)
    assert node.readings()["gpu_uuid"].unique().sort().to_list() == [GPU0, GPU1]
    [said] = node.meta("collector")
    assert [i["share_ppm"] for i in said["gpus"][0]["instances"]] == [571_428, 285_714, 142_857]
    assert said["gpus"][0]["unsupported"] == {"util_pct": "NVML_ERROR_NOT_SUPPORTED"}
    assert ingest_gpu(project, node.segments())[0].verdict == "loaded"
    con = store_of(project).connect(read_only=True)
    found = query_rows(con, "FROM gpu_instance ORDER BY share_ppm DESC")
    assert [(r["gpu_uuid"], r["share_ppm"]) for r in found] == [
        (GPU0, 571_428),
        (GPU0, 285_714),
        (GPU0, 142_857),
    ]


def test_a_gpu_off_the_bus_is_recorded_and_the_others_go_on(node: Node, project: Settings) -> None:
    process = node.collect()
    node.fault("lost:0")
    node.more(process, 40)
    node.fault("")
    node.more(process, 30)
    said = node.stop(process)
    assert f"gpu lost GPU 0 ({GPU0}): NVML_ERROR_GPU_IS_LOST" in said
    assert process.returncode == 0
    assert node.events() == ["started", "gpu_lost", "gpu_back", "stopped"]
    found = node.readings()
    assert gaps_s(found, GPU0) > 1
    assert gaps_s(found, GPU1) < 1
    ingest_gpu(project, node.segments())
    con = store_of(project).connect(read_only=True)
    asked = query_rows(con, "FROM collector_event WHERE gpu_uuid IS NOT NULL ORDER BY ts")
    assert [(r["host"], r["event"], r["gpu_uuid"]) for r in asked] == [
        (HOST, "gpu_lost", GPU0),
        (HOST, "gpu_back", GPU0),
    ]


def test_a_gpu_lost_before_the_start_is_named(node: Node) -> None:
    node.fault("lost:0")
    process = node.collect()
    node.stop(process)
    assert node.events() == ["gpu_refused", "started", "stopped"]
    assert node.readings()["gpu_uuid"].unique().to_list() == [GPU1]


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
    found = node.readings()
    assert found["power_mw"].null_count() > 0
    assert found["energy_mj"].null_count() == 0
    assert found["power_mw"].min() == 300_000


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
    found = node.readings()
    assert gaps_s(found, GPU0) > 1
    # At most until it is noticed.
    assert gaps_s(found, GPU1) < 1


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
    [said] = node.meta("collector")
    assert [gpu["uuid"] for gpu in said["gpus"]] == [GPU1]


def test_an_error_nobody_thought_of_is_an_event_and_the_lane_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    collector = Collector(Config(spool=str(tmp_path), host=HOST), said.append)

    class Odd(NvmlGpu):
        probed = True  # type: ignore[assignment]

        def read(self) -> Values:
            raise UnicodeDecodeError("ascii", b"x", 0, 1, "odd")

    lane = Lane(collector, collector.config, [], 0)
    lane._visit(Odd("GPU-odd", 0, "odd"))
    assert "read failed GPU 0 (GPU-odd): UnicodeDecodeError" in said[0]
    lane._visit(Odd("GPU-odd", 0, "odd"))
    assert len(said) == 1  # left alone for a while


def test_a_call_that_never_returns_does_not_keep_the_collector_from_ending(node: Node) -> None:
    process = node.collect()
    node.fault("hang:1")
    node.more(process)
    before = time.monotonic()
    node.stop(process)
    assert time.monotonic() - before < 5
    assert process.returncode == 0
    assert "stopped" in node.events()


def test_a_slow_gpu_does_not_slow_the_others(node: Node) -> None:
    node.fault("slow:0:120")
    process = node.collect()
    node.until(lambda: "hung" in json.dumps(node.spool.read_status()) or node.stored(process) > 60)
    node.stop(process)
    found = node.readings()
    counts = dict(found.group_by("gpu_uuid").len().iter_rows())
    assert "hung_call" in node.events()
    assert counts[GPU1] > 1.8 * counts[GPU0]


def test_a_driver_reload_is_survived_and_its_counter_starts_anew(node: Node) -> None:
    process = node.collect()
    node.fault("gone")
    node.until(lambda: node.spool.read_status()["driver_problem"] is not None)
    node.fault("")
    node.more(process, 30)
    said = node.stop(process)
    assert "driver lost: NVML_ERROR_UNINITIALIZED" in said
    assert node.events() == ["started", "driver_lost", "driver_back", "stopped"]
    counter = node.readings().filter(pl.col("gpu_uuid") == GPU0).sort("ts")["energy_mj"]
    assert (counter.diff().drop_nulls() < 0).sum() == 1


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
    found = node.readings()
    assert found.select("gpu_uuid", "ts").is_duplicated().sum() == 0
    assert pl.read_parquet(first)["ts"].max() < pl.read_parquet(last)["ts"].min()


def test_a_seal_that_was_killed_is_done_again_to_the_same_bytes(
    node: Node, project: Settings
) -> None:
    process = node.collect()
    node.more(process)
    node.stop(process, signal.SIGKILL)
    [journal] = node.spool.list_journals()
    # SQLite folds its log into the file when it closes it, so keep all three parts.
    kept = {p: p.read_bytes() for p in node.spool.journals.iterdir()}
    subprocess.run(module_command("wattledger.spool.seal", str(journal)), check=True)
    [segment] = node.segments()
    before = segment.read_bytes()
    assert node.spool.list_journals() == []
    for path, content in kept.items():
        path.write_bytes(content)
    subprocess.run(module_command("wattledger.spool.seal", str(journal)), check=True)
    assert segment.read_bytes() == before
    assert [o.verdict for o in ingest_gpu(project, [segment])] == ["loaded"]
    assert [o.verdict for o in ingest_gpu(project, [segment])] == ["known"]


def test_stopping_loses_nothing(node: Node) -> None:
    process = node.collect(flush_s=60)
    time.sleep(1.0)
    before = time.time()
    node.stop(process)
    last = node.readings()["ts"].max().timestamp()  # type: ignore[union-attr]
    assert before - last < 0.5


def test_segments_are_finished_while_it_goes_on(node: Node) -> None:
    process = node.collect(segment_s=0.5)
    node.until(lambda: len(node.segments()) >= 2)
    assert process.poll() is None
    node.stop(process)
    assert gaps_s(node.readings(), GPU0) < 1
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
    said = node.stop(process)
    assert "spool full" in said
    events = node.events()
    assert events.index("spool_full") < events.index("spool_writable")
    found = node.readings()
    assert found["ts"].max().timestamp() > waiting_at  # type: ignore[union-attr]
    assert gaps_s(found, GPU0) < 1
    assert found.select("gpu_uuid", "ts").is_duplicated().sum() == 0


def test_what_can_not_be_stored_is_thinned_not_dropped_and_said_at_the_end(node: Node) -> None:
    process = node.collect(wait=False, max_spool_mib=-1, max_buffer=40)
    node.until(lambda: node.spool.read_status().get("readings_thinned", 0) > 40)
    said = node.stop(process)
    assert process.returncode == DISK
    assert "fetch and delete finished segments" in said
    assert "could not be stored" in said
    assert node.segments() == []


def test_thinned_readings_keep_first_and_span(node: Node) -> None:
    process = node.collect(max_buffer=20)
    limit_files(process, 4096)
    node.until(lambda: node.spool.read_status().get("readings_thinned", 0) > 20)
    limit_files(process, resource.RLIM_INFINITY)
    node.until(lambda: node.spool.read_status().get("spool_problem") is None)
    node.stop(process)
    assert "thinned" in node.events()
    found = node.readings().sort("gpu_uuid", "ts")
    # The counter tells all the energy of the time between, however few readings are left.
    for uuid, watts in ((GPU0, 300), (GPU1, 400)):
        one = found.filter(pl.col("gpu_uuid") == uuid)
        seconds = (one["ts"][-1] - one["ts"][0]).total_seconds()
        assert (one["energy_mj"][-1] - one["energy_mj"][0]) / seconds == pytest.approx(
            1000 * watts, rel=0.005
        )


def test_one_collector_per_host(node: Node) -> None:
    first = node.collect()
    second = node.collect(wait=False)
    _, said = second.communicate(timeout=20)
    assert second.returncode == BUSY
    assert f"pid {first.pid}" in said
    assert first.poll() is None


def test_no_driver_is_said_with_its_own_exit_code(node: Node) -> None:
    node.fault("no_driver")
    process = node.collect(wait=False)
    _, said = process.communicate(timeout=20)
    assert process.returncode == NO_DRIVER
    assert "NVML_ERROR_DRIVER_NOT_LOADED" in said
    assert "nvidia-smi" in said


def test_another_job_s_gpu_is_left_alone(node: Node) -> None:
    node.fault("no_permission:0")
    process = node.collect()
    node.stop(process)
    assert node.readings()["gpu_uuid"].unique().to_list() == [GPU1]
    assert node.events() == ["started", "stopped"]


def test_a_spool_that_can_not_be_written(node: Node) -> None:
    node.spool.root.write_text("a file")
    process = node.collect(wait=False)
    _, said = process.communicate(timeout=20)
    assert process.returncode == DISK
    assert "--spool" in said


def test_a_damaged_journal_is_kept_aside_and_the_rest_goes_on(node: Node) -> None:
    process = node.collect()
    node.stop(process, signal.SIGKILL)
    [journal] = node.spool.list_journals()
    journal.with_name("node01-00000000T000000.000000Z.sqlite").write_bytes(b"not a database" * 99)
    second = node.collect()
    node.until(lambda: (node.spool.folder / "damaged").exists())
    said = node.stop(second)
    assert "damaged" in said
    assert len(node.segments()) == 2
    assert "seal_failed" in node.events()


def test_a_journal_killed_at_its_birth_leaves_nothing(node: Node) -> None:
    node.spool.create()
    sqlite3.connect(node.spool.journals / "node01-20200101T000000.000000Z.sqlite").close()
    process = node.collect()
    node.stop(process)
    assert node.spool.list_journals() == []
    assert len(node.segments()) == 1


def test_nothing_heavy_is_loaded() -> None:
    script = "import wattledger.collect.collector, wattledger.runs.launch, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {"prefect", "great_expectations", "polars", "pandas", "pyarrow", "numpy", "duckdb"}
    assert not loaded & (heavy | {"codecarbon", "flows", "transforms", "typer"})


def test_the_command_collects_and_says_how_it_is_doing(node: Node) -> None:
    command = [sys.executable, "-m", "flows.cli", "collect"]
    process = node.start([*command, "--rate", "20", "--flush", "0.3", "--no-host-meter"])
    node.until(lambda: node.stored(process) > 0)
    said = subprocess.run(
        [*command, "--status"], env=node.env, capture_output=True, text=True, check=True
    )
    assert f"Collecting on {HOST}, pid {process.pid}: 2 GPUs," in said.stdout
    asked = subprocess.run(
        [*command, "--status", "--json"], env=node.env, capture_output=True, text=True, check=True
    )
    assert json.loads(asked.stdout)["running"] is True
    node.stop(process)
    assert process.returncode == 0
    assert node.readings().height > 0
    wrong = subprocess.run([*command, "--rate", "99"], env=node.env, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "0.01 to 20" in wrong.stderr
