"""`wattledger run`: the command as it is, and a record of it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

from tests.node.conftest import Node
from tests.node.runs.conftest import PYTHON, RUN, run


def test_the_command_runs_as_it_is_and_its_energy_is_said(node: Node) -> None:
    script = node.folder / "train.py"
    script.write_text(
        "import sys, time\nprint('out', sys.stdin.read(), sys.argv[1:])\n"
        "print('err', file=sys.stderr)\ntime.sleep(2)\nsys.exit(7)\n"
    )
    completed = subprocess.run(
        [*RUN, "--label", "team=nlp", "--", sys.executable, "train.py", "--lr", "1", "-q"],
        env=node.env,
        input="in",
        capture_output=True,
        text=True,
        cwd=node.folder,
        timeout=60,
    )
    assert completed.returncode == 7
    assert completed.stdout == "out in ['--lr', '1', '-q']\n"
    first, *summary = completed.stderr.splitlines()
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
    completed = run(node, "--quiet", code="print('x')")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "x\n", "")
    [record] = node.records()
    assert record["ended_at"] is not None


def test_a_command_that_is_not_there(node: Node) -> None:
    completed = subprocess.run(
        [*RUN, "-q", "--", "no-such-program"], env=node.env, capture_output=True, text=True
    )
    assert completed.returncode == 127
    assert "cannot run 'no-such-program'" in completed.stderr
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
    completed = run(node, "-q", code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert completed.returncode == -signal.SIGKILL
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
