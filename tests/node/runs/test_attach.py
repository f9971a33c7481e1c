"""`wattledger.track`: recorded beside the program, which loads nothing for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.node.conftest import HOST, Node
from tests.node.runs.conftest import PYTHON

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
    completed = subprocess.run(
        [sys.executable, str(script)],
        env={**node.env, "PYTHONPATH": str(node.folder)},
        cwd=node.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    gpus, watts = completed.stdout.splitlines()[0].split()
    assert (gpus, int(watts)) == ("2", pytest.approx(700, abs=15))
    assert completed.stdout.splitlines()[1] == "[]"
    assert "GPU energy" in completed.stderr
    assert sorted(record["name"] for record in node.records()) == ["fit", "step", "step"]
    assert all(record["ended_by"] == "exit" for record in node.records())


def test_track_passes_an_error_on_and_records_it(node: Node) -> None:
    code = "import wattledger\nwith wattledger.track(quiet=True): 1 / 0"
    completed = subprocess.run(
        [*PYTHON, code], env=node.env, capture_output=True, text=True, timeout=60
    )
    assert "ZeroDivisionError" in completed.stderr
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
    completed = subprocess.run(
        [*PYTHON, FORK], env=node.env, capture_output=True, text=True, timeout=60
    )
    assert completed.stdout == "parent\n"
    assert len(node.records()) == 1
    assert node.records()[0]["ended_by"] == "exit"
    assert node.records()[0]["host"] == HOST
