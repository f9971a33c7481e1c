"""The demo as a new user runs it: one real Prefect flow, the same figures every time."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from flows.warehouse.connection import connect
from tests.conftest import wattledger

pytestmark = pytest.mark.service


def test_what_it_prints(demo: Path) -> None:
    out, err = (demo.parent / "output.txt").read_text(), (demo.parent / "errors.txt").read_text()
    assert err == ""
    assert "SAMPLE made by Wattledger's generator" in out
    assert "ENTSO-E Transparency Platform" in out
    assert "SAMPLE DATA" in out
    for run in ("llm-7b-pretrain", "vision-base", "ablation-a", "eval-nightly"):
        assert run in out
    for name in ("published.duckdb", "report.html", "data_docs/index.html"):
        [path] = re.findall(rf"  \S.*\s(\S+{name})", out)
        assert Path(path).is_file()
    assert "Traceback" not in out


def test_running_it_twice_changes_nothing(demo_copy: Path, on_server: dict[str, str]) -> None:
    before = hashlib.sha256((demo_copy / "published/published.duckdb").read_bytes()).hexdigest()
    process = wattledger("demo", "--sample", "--project", demo_copy, "--json", env=on_server)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert {o["verdict"] for o in report["gpu"] + report["grid"] + report["runs"]} == {"known"}
    assert report["published"]["changed"] is False
    after = hashlib.sha256((demo_copy / "published/published.duckdb").read_bytes()).hexdigest()
    assert after == before


def test_the_energy_is_the_true_one(demo: Path) -> None:
    """The generator's own counter is the truth; power alone must come within 0.5 % of it."""
    from flows.samples import demo as module
    from flows.samples.host import generate_host_readings

    con = connect(demo / "warehouse.duckdb", read_only=True)
    for host, most in (("node01", 1e-4), ("node02", 5e-3)):
        work = {
            "node01": [
                (range(4), 900, 20_400, "training"),
                (range(4), 21_150, 27_070, "finetuning"),
                ((4, 5), 2_400, 15_900, "finetuning"),
                ((6,), 22_200, 28_800, "evaluation"),
            ],
            "node02": [
                (range(4), 900, 20_400, "training"),
                (range(4, 8), 7_400, 24_425, "training"),
            ],
        }[host]
        truth = generate_host_readings(
            host,
            gpus=8,
            start=module._START,
            seconds=module._SECONDS,
            work=[module.Work(*w) for w in work],
        )
        true_mj = (
            truth.group_by("gpu_uuid")
            .agg(e=pl.col("energy_mj").last() - pl.col("energy_mj").first())["e"]
            .sum()
        )
        [(ledger_mj,)] = con.execute(
            "SELECT sum(counter_mj + power_integral_mj + gap_mj) FROM gpu_slot JOIN gpu USING (gpu_key) WHERE host = ?",
            [host],
        ).fetchall()
        assert abs(ledger_mj / true_mj - 1) < most, host
    con.close()


def test_conservation_in_the_published_file(demo: Path) -> None:
    con = connect(demo / "published/published.duckdb", read_only=True)
    [(difference, gpus, metered)] = con.execute(
        "SELECT sum(abs(difference_mj)), count(*), sum(metered_mj) FROM conservation"
    ).fetchall()
    [(slots,)] = con.execute(
        "SELECT sum(counter_mj + power_integral_mj + gap_mj) FROM energy_slot"
    ).fetchall()
    con.close()
    assert (difference, gpus) == (0, 16)
    assert slots == metered


def test_a_persons_own_log(tmp_path: Path, on_server: dict[str, str]) -> None:
    log = tmp_path / "my log.csv"
    lines = [
        f"2020/10/24 23:{m:02d}:{s:02d}.000, {g}, NVIDIA H100 80GB HBM3, {400 + g}.0 W"
        for m in range(10)
        for s in range(60)
        for g in range(2)
    ]
    log.write_text("timestamp, index, name, power.draw [W]\n" + "\n".join(lines) + "\n")
    process = wattledger(
        "demo",
        "--gpu-log",
        log,
        "--tz",
        "Europe/Berlin",
        "--project",
        tmp_path / "p",
        env=on_server,
    )
    assert process.returncode == 0, process.stderr + process.stdout
    assert "SAMPLE" not in process.stdout
    assert "my-run" in process.stdout
    [run] = json.loads(
        wattledger("query", "FROM run_summary", "--json", "--project", tmp_path / "p").stdout
    )
    assert run["energy_kwh"] == pytest.approx((400 + 401) * 599 / 3.6e6, rel=1e-6)
    assert run["co2e_measured_share"] > 0.5


def test_an_own_log_that_is_bad_is_refused_before_anything(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("")
    process = wattledger("demo", "--gpu-log", log, "--project", tmp_path / "p")
    assert process.returncode == 2
    assert "the file is empty" in process.stderr
    process = wattledger("demo", "--gpu-log", tmp_path / "none.csv", "--project", tmp_path / "p")
    assert process.returncode == 1


def test_another_project_is_not_overwritten(tmp_path: Path) -> None:
    wattledger("init", tmp_path)
    before = (tmp_path / "wattledger.toml").read_bytes()
    process = wattledger("demo", "--sample", "--project", tmp_path)
    assert process.returncode == 1
    assert "holds another project" in process.stderr
    assert (tmp_path / "wattledger.toml").read_bytes() == before


def test_a_failed_gate_exits_3_and_bad_files_exit_2(
    demo_copy: Path, on_server: dict[str, str]
) -> None:
    published = (demo_copy / "published").resolve()
    (demo_copy / "readings" / "junk.csv").write_bytes(bytes(range(256)))
    process = wattledger("pipeline", "--project", demo_copy, env=on_server)
    assert process.returncode == 2, process.stderr
    assert "junk.csv" in process.stdout
    assert "this is not a text file" in process.stdout
    # A run that goes on after the grid data ends: its intensity comes from a lower rung.
    with (demo_copy / "wattledger.toml").open("a") as settings:
        settings.write("[gate]\nmax_fallback_share = 0.1\n")
    with (demo_copy / "runs.csv").open("a") as runs:
        runs.write("late,late,x,y,2020-10-28T00:00:00Z,2020-10-28T01:00:00Z,node01,7,1,,,,,\n")
    process = wattledger("pipeline", "--project", demo_copy, env=on_server)
    assert process.returncode == 3
    assert "footprint.not_too_much_fallback" in process.stderr
    assert "run_id=late" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    assert (demo_copy / "published").resolve() == published


def test_a_persons_own_prefect_server_is_used(
    demo_copy: Path, prefect_server: str, on_server: dict[str, str]
) -> None:
    """With PREFECT_API_URL set, the flow runs there and is recorded there; it rolls up old readings."""
    with (demo_copy / "wattledger.toml").open("a") as settings:
        settings.write("\n[retention]\nroll_up_after_days = 30\n")

    def runs() -> list[dict[str, object]]:
        request = urllib.request.Request(
            f"{prefect_server}/flow_runs/filter",
            data=b"{}",
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return list(json.load(answer))

    con = connect(demo_copy / "warehouse.duckdb", read_only=True)
    [(before_rolling,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
    con.close()
    before = {run["id"] for run in runs()}
    process = wattledger("pipeline", "--project", demo_copy, env=on_server)
    assert process.returncode == 0, process.stderr
    fresh = [run for run in runs() if run["id"] not in before]
    assert {run["state_name"] for run in fresh} == {"Completed"}
    assert len(fresh) == 6  # the pipeline and its five subflows
    con = connect(demo_copy / "published/published.duckdb", read_only=True)
    [(files, readings, left)] = con.execute(
        "SELECT count(*), sum(readings), sum(readings_left) FROM rolled_up"
    ).fetchall()
    con.close()
    assert (files, readings) == (2, before_rolling)
    assert left < readings / 10
    verified = wattledger("verify", "--project", demo_copy)
    assert verified.returncode == 0, verified.stdout
