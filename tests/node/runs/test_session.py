"""`wattledger run` and `wattledger.track`: the work as it is, and a record of it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.conftest import make_project
from tests.node.conftest import HOST, Node

RUN = [sys.executable, "-m", "flows.cli", "run", "--no-host-meter", "--rate", "20"]
PYTHON = [sys.executable, "-c"]


def run(node: Node, *words: str, code: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python under `wattledger run`."""
    env = {**node.env, **given.pop("env", {})}
    return subprocess.run(
        [*RUN, *words, "--", *PYTHON, code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=node.folder,
        **given,
    )


def test_the_command_runs_as_it_is_and_its_energy_is_said(node: Node) -> None:
    script = node.folder / "train.py"
    script.write_text(
        "import sys, time\nprint('out', sys.stdin.read(), sys.argv[1:])\n"
        "print('err', file=sys.stderr)\ntime.sleep(2)\nsys.exit(7)\n"
    )
    done = subprocess.run(
        [*RUN, "--label", "team=nlp", "--", sys.executable, "train.py", "--lr", "1", "-q"],
        env=node.env,
        input="in",
        capture_output=True,
        text=True,
        cwd=node.folder,
        timeout=60,
    )
    assert done.returncode == 7
    assert done.stdout == "out in ['--lr', '1', '-q']\n"
    first, *summary = done.stderr.splitlines()
    assert first == "err"
    assert "2 GPUs of node01, 2 s, exit code 7" in summary[0]
    # 300 + 400 W for two seconds and the start of Python.
    assert "100 % measured, 700 W on average" in summary[1]
    assert 0.388 < float(summary[1].split()[3]) < 0.5
    assert "CO2e and water: no project" in summary[2]
    [record] = node.records()
    assert record["name"] == "train"
    assert record["labels"] == {"team": "nlp"}
    assert (record["exit_code"], record["ended_by"]) == (7, "exit")
    assert [held["gpu_index"] for held in record["gpus"]] == [0, 1]
    assert "--lr" not in json.dumps(record)
    # The collector that was started for it ends by itself.
    node.until(lambda: node.spool.read_running_status() is None)
    assert node.readings().height > 0


def test_quiet_is_silent(node: Node) -> None:
    done = run(node, "--quiet", code="print('x')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")
    [record] = node.records()
    assert record["ended_at"] is not None


def test_a_command_that_is_not_there(node: Node) -> None:
    done = subprocess.run(
        [*RUN, "-q", "--", "no-such-program"], env=node.env, capture_output=True, text=True
    )
    assert done.returncode == 127
    assert "can't run 'no-such-program'" in done.stderr
    assert node.records()[0]["exit_code"] == 127


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_signals_reach_the_command(node: Node, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\ntime.sleep(30)"
    )
    process = node.start([*RUN, "-q", "--", *PYTHON, code])
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 42


def test_a_command_killed_by_a_signal_ends_us_by_it(node: Node) -> None:
    done = run(node, "-q", code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL
    [record] = node.records()
    assert (record["ended_by"], record["exit_code"]) == ("signal", 128 + signal.SIGKILL)


def test_ctrl_c_on_a_terminal_reaches_the_command_once(node: Node) -> None:
    code = (
        "import signal, time\nseen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('ready', flush=True)\nend = time.time() + 1.5\n"
        "while time.time() < end: time.sleep(0.05)\n"
        "print('seen', len(seen), flush=True)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*RUN, "-q", "--", *PYTHON, code], node.env)
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    try:
        while piece := os.read(terminal, 1024):
            output += piece
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    assert b"seen 1" in output
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_command_inherits_no_blocked_signal(node: Node) -> None:
    code = "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, set())))"
    assert run(node, "-q", code=code).stdout == "0\n"


def test_a_running_collector_is_used_and_goes_on(node: Node) -> None:
    collector = node.collect()
    done = run(node, code="import time; time.sleep(1)")
    assert "GPU energy" in done.stderr
    assert collector.poll() is None
    assert len(list(node.spool.folder.glob("collector.log"))) == 0
    node.stop(collector)


def test_without_a_driver_it_says_so_once_and_measures_the_host(node: Node) -> None:
    node.fault("no_driver")
    done = subprocess.run(
        [*RUN, "--host-meter", "--", "sleep", "5"], env=node.env, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr.count("no NVIDIA driver answers") == 1
    assert "CPU, memory" in done.stderr
    assert "estimated by codecarbon" in done.stderr
    assert node.records()[0]["gpus"] == []


def test_the_spool_can_not_be_written_and_the_work_goes_on(node: Node) -> None:
    node.spool.root.write_text("a file")
    done = run(node, code="print('trained')")
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert "the run is not recorded" in done.stderr


def test_a_launcher_that_is_killed_leaves_a_run_with_an_end(node: Node) -> None:
    process = node.start([*RUN, "-q", "--", "sleep", "3"])
    node.until(lambda: bool(node.records()) and node.records()[0]["pid"] != process.pid)
    before = time.time()
    process.kill()
    node.until(lambda: node.records()[0]["ended_at"] is not None)
    [record] = node.records()
    assert record["ended_by"] == "lost"
    # The command itself went on to its end, and that is when the run ended.
    ended = datetime.fromisoformat(record["ended_at"]).timestamp()
    assert before - 1 < ended < time.time()
    node.until(lambda: node.spool.read_running_status() is None)


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
    said = [process.communicate(timeout=40)[1] for process in ranks]
    assert "run hpc-77: 2 GPUs" in said[0]
    assert said[1] == ""
    node.until(lambda: node.spool.read_running_status() is None)
    assert [o.verdict for o in ingest_gpu(project, node.segments())] == ["loaded"]
    outcomes = ingest_runs(project, [node.spool.runs])
    assert [o.verdict for o in outcomes] == ["loaded", "loaded"]
    con = store_of(project).connect(read_only=True)
    held = query_rows(
        con, "SELECT gpu_uuid, sum(share_ppm) AS share FROM run_allocation GROUP BY 1"
    )
    assert [row["share"] for row in held if row["share"] != 1_000_000] in ([], [2_000_000] * 2)
    [one] = query_rows(con, "FROM training_run WHERE superseded_at IS NULL")
    assert one["run_id"] == "hpc-77"
    assert json.loads(one["labels"])["slurm_job_id"] == "77"
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
    done = run(node, "-q", "--run-id", "outer", code=code)
    assert done.stdout == "outer\n"
    inner = [*RUN, "-q", "--", *PYTHON, code]
    nested = run(node, "-q", code=f"import subprocess; subprocess.run({inner!r})")
    names = {record["run_id"] for record in node.records()} - {"outer"}
    assert {nested.stdout.strip()} == names


def test_a_preview_with_factors_agrees_with_the_ledger(node: Node, tmp_path: Path) -> None:
    project = make_project(tmp_path / "ledger", "[zones.XX]\nfallback_intensity_g_per_kwh = 400\n")
    done = run(node, "-p", str(project.root), code="import time; time.sleep(2)")
    assert "CO2e" in done.stderr
    assert "a preview" in done.stderr
    node.until(lambda: node.spool.read_running_status() is None)
    ingest_gpu(project, node.segments())
    ingest_runs(project, [node.spool.runs])
    from flows.accounting.compute import compute

    compute(project)
    con = store_of(project).connect(read_only=True)
    [row] = query_rows(con, "FROM run_summary")
    grams = float(done.stderr.split("CO2e")[1].split("g")[0])
    assert row["co2e_kg"] * 1000 == pytest.approx(grams, rel=0.01)
    assert row["energy_measured_share"] == 1


TRACK = """
import sys, time
import wattledger
with wattledger.track("fit", labels={"k": "v"}, host_meter=False, period_s=0.05) as run:
    time.sleep(1.5)
print(run.summary["gpus"], round(run.summary["energy_kwh"] * 3.6e6 / run.summary["seconds"]))
@wattledger.track("step", quiet=True, host_meter=False)
def step():
    "doc"
step(); step()
assert step.__doc__ == "doc"
ours = {m.split(".")[0] for m in sys.modules} & {"flows", "transforms", "pynvml", "polars"}
print(sorted(ours))
"""


def test_track_records_from_python_and_loads_nothing(node: Node) -> None:
    # A package of the user's that has the name of one of ours, beside the script.
    (node.folder / "flows").mkdir()
    (node.folder / "flows" / "__init__.py").write_text("raise SystemExit('the user's own')")
    script = node.folder / "train.py"
    script.write_text(TRACK)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**node.env, "PYTHONPATH": str(node.folder)},
        cwd=node.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    gpus, watts = done.stdout.splitlines()[0].split()
    assert (gpus, int(watts)) == ("2", pytest.approx(700, abs=15))
    assert done.stdout.splitlines()[1] == "[]"
    assert "GPU energy" in done.stderr
    assert sorted(record["name"] for record in node.records()) == ["fit", "step", "step"]
    assert all(record["ended_by"] == "exit" for record in node.records())


def test_track_passes_an_error_on_and_records_it(node: Node) -> None:
    code = "import wattledger\nwith wattledger.track(quiet=True): 1 / 0"
    done = subprocess.run([*PYTHON, code], env=node.env, capture_output=True, text=True, timeout=60)
    assert "ZeroDivisionError" in done.stderr
    assert node.records()[0]["exit_code"] == 1


def test_a_tracked_program_that_is_killed_leaves_an_end(node: Node) -> None:
    code = (
        "import time, wattledger\nwith wattledger.track(quiet=True):\n"
        "    print('in', flush=True)\n    time.sleep(30)"
    )
    process = node.start([*PYTHON, code])
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    node.until(lambda: bool(node.records()) and node.records()[0]["ended_at"] is not None)
    assert node.records()[0]["ended_by"] == "lost"


FORK = """
import os, wattledger
with wattledger.track(quiet=True) as run:
    if os.fork() == 0:
        pass
    else:
        os.wait()
        print("parent")
"""


def test_a_forked_child_does_not_end_the_run(node: Node) -> None:
    done = subprocess.run([*PYTHON, FORK], env=node.env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "parent\n"
    assert len(node.records()) == 1
    assert node.records()[0]["ended_by"] == "exit"
    assert node.records()[0]["host"] == HOST


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
