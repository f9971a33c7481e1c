"""Whatever is wrong around a run, the command runs as it would without us, and ends as it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node.conftest import HOST, Node
from tests.node.runs.conftest import PYTHON, RUN


def _nothing(node: Node) -> dict[str, str]:
    return {"WATTLEDGER_HOST": "../up", "MASTER_ADDR": "x", "WORLD_SIZE": "many", "RANK": "²"}


def _pipe_for_spool(node: Node) -> dict[str, str]:
    os.mkfifo(node.spool.root)
    return {}


def _pipes_in_spool(node: Node) -> dict[str, str]:
    node.spool.folder.mkdir(parents=True)
    for name in ("collector.lock", "collector.json", "runs", "open"):
        os.mkfifo(node.spool.folder / name)
    return {}


def _link_for_runs(node: Node) -> dict[str, str]:
    node.spool.journals.mkdir(parents=True)
    node.spool.runs.symlink_to(node.folder)
    return {}


def _status_of_a_stranger(node: Node) -> dict[str, str]:
    node.spool.folder.mkdir(parents=True)
    (node.spool.folder / "collector.json").write_text("[" * 100_000)
    return {"WATTLEDGER_RUN_ID": "a\x1b[2J\nb", "SLURM_JOB_NAME": "n" * 100_000}


@pytest.mark.parametrize(
    "spoil", [_nothing, _pipe_for_spool, _pipes_in_spool, _link_for_runs, _status_of_a_stranger]
)
def test_the_command_runs(spoil: Callable[[Node], dict[str, str]], node: Node) -> None:
    env = {**node.env, **spoil(node)}
    done = subprocess.run(
        [*RUN, "--", *PYTHON, "print('trained'); raise SystemExit(3)"],
        env=env, capture_output=True, text=True, timeout=60, cwd=node.folder,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "trained\n")
    assert "Traceback" not in done.stderr
    recorded = [path for path in Path(node.folder).rglob("*.json") if path.parent.name != HOST]
    assert bool(recorded) == (spoil is _status_of_a_stranger)
    assert recorded or "the run is not recorded" in done.stderr


def test_track_takes_any_label_and_any_answer(node: Node) -> None:
    code = (
        "import wattledger\n"
        "with wattledger.track('x', labels={'o': object(), 'n': 5}, host_meter=False, quiet=True): pass\n"
        "t = wattledger.Tracked({'name': 5, 'labels': [1], 'spool': {}})\n"
        "with t: print('trained')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=node.env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "trained\n")
    [record] = [one for one in node.records() if one["name"] == "x"]
    assert record["labels"]["n"] == "5"


def test_a_host_that_is_a_path_is_a_sentence(node: Node) -> None:
    for words in (["collect", "--status"], ["collect"], ["job", "begin"]):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            env={**node.env, "WATTLEDGER_HOST": "../up", "SLURM_JOB_ID": "1"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode in (1, 5)
        assert "not the name of a host" in done.stderr
        assert "Traceback" not in done.stderr
