"""The command: help at once, exit codes, JSON, and sentences instead of stack traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.main import app
from tests.conftest import ROOT, grid_csv, runs_csv, segment, started_afresh, wattledger

TOML = """
[[site]]
name = "main"
zone = "XX"
pue = 1.2
wue_l_per_kwh = 0.5
"""


def test_help_comes_at_once() -> None:
    shortest = min(_time_help() for _ in range(5))
    # 0.23 s on an idle machine; the limit leaves room for a busy one.
    assert shortest < 0.6, f"{shortest:.2f} s"


def _time_help() -> float:
    start = time.perf_counter()
    assert started_afresh("--help").returncode == 0
    return time.perf_counter() - start


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['wattledger', '--help']\n"
        "from flows.cli import main\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'prefect', 'great_expectations', 'polars', 'duckdb', 'codecarbon', 'pandas', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert completed.stderr.strip() == "[]"


def walk(command: Any, path: str = "wattledger") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{path} {name}")


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_documented_and_says_what_it_does(path: str) -> None:
    assert f"\n## {path}\n" in (ROOT / "docs" / "cli.md").read_text()
    command = COMMANDS[path]
    assert command.help
    silent = [parameter.name for parameter in command.params if not parameter.help]
    assert not silent


def test_the_whole_way_by_hand(tmp_path: Path) -> None:
    project = tmp_path / "p"
    assert wattledger("init", project).returncode == 0
    again = wattledger("init", project)
    assert again.returncode == 1
    assert "is a project already" in again.stderr
    (project / "wattledger.toml").write_text(TOML)
    p = ("--project", project)
    assert wattledger("ingest", "gpu", segment(tmp_path), *p).returncode == 0
    assert wattledger("ingest", "grid", grid_csv(tmp_path, [100] * 8), *p).returncode == 0
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"
    assert wattledger("ingest", "runs", runs_csv(tmp_path, [row]), *p).returncode == 0
    too_early = wattledger("query", "SELECT 1", *p)
    assert too_early.returncode == 1
    assert "nothing has been published yet" in too_early.stderr
    computed = json.loads(wattledger("footprint", "--json", *p).stdout)
    assert computed["runs"][0]["run_id"] == "r1"
    checked = wattledger("check", *p)
    assert checked.returncode == 0
    assert "passed footprint" in checked.stdout
    published = wattledger("publish", *p)
    assert published.returncode == 0
    assert "published 0001-" in published.stdout
    rows = json.loads(
        wattledger("query", "SELECT run_id, energy_kwh FROM run_summary", "--json", *p).stdout
    )
    assert rows[0]["energy_kwh"] > 0
    assert (
        wattledger("query", "SELECT run_id FROM run_summary", "--csv", *p).stdout == "run_id\nr1\n"
    )
    status = json.loads(wattledger("status", "--json", *p).stdout)
    assert status["readings"]["rows"] == 3600
    assert status["computed_is_current"] is True
    assert "r1" in wattledger("report", *p).stdout
    for command in (checked, published):
        assert "Traceback" not in command.stderr


def project_at(folder: Path) -> Path:
    folder.mkdir()
    (folder / "wattledger.toml").write_text(TOML)
    return folder


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ingest", "gpu", "nothing-here.csv"], 2, "no such file"),
        (["ingest", "gpu", "wattledger.toml", "--source", "lab"], 1, "no source 'lab'"),
        (["ingest", "grid", "wattledger.toml", "--unit", "stone"], 1, "unknown unit 'stone'"),
        (["publish"], 1, "no figures have been computed"),
        (["check"], 1, "no figures have been computed"),
        (["status"], 1, "nothing has been loaded yet"),
        (["nonsense"], 1, "No such command"),
        (["ingest", "gpu"], 1, "Missing argument"),
    ],
)
def test_mistakes_are_sentences_with_exit_codes(
    words: list[str], code: int, message: str, tmp_path: Path
) -> None:
    project = project_at(tmp_path / "p")
    named = [str(project / w) if w == "wattledger.toml" else w for w in words]
    extra = [] if words in (["nonsense"], ["ingest", "gpu"]) else ["--project", str(project)]
    completed = wattledger(*named, *extra)
    assert completed.returncode == code, completed.stderr
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr


def test_bad_input_exits_2_and_says_where(tmp_path: Path) -> None:
    project = project_at(tmp_path / "p")
    bad = tmp_path / "bad.csv"
    bad.write_text("timestamp, index, power.draw [W]\n2025/07/26 10:00:00, 0, lots\n")
    good = segment(tmp_path)
    completed = wattledger(
        "ingest", "gpu", bad, good, "--host", "h", "--tz", "UTC", "--project", project
    )
    assert completed.returncode == 2
    assert "row 2, column 'power.draw', value 'lots'" in completed.stdout
    assert "loaded" in completed.stdout


def test_no_project_and_bad_settings(tmp_path: Path) -> None:
    completed = wattledger("pipeline", "--project", tmp_path)
    assert completed.returncode == 1
    assert "wattledger init" in completed.stderr
    project = project_at(tmp_path / "p")
    for text, message in (
        ("[[site]]\nname = 'x'\n", "setting site.0.zone"),
        (TOML.replace("1.2", "0.8"), "PUE is at least 1"),
        (TOML.replace("0.5", "{ value = 1, low = 2 }"), "needs 0 <= low <= value <= high"),
        ("[projekt]\n", "setting projekt"),
        ("not toml", "not valid TOML"),
    ):
        (project / "wattledger.toml").write_text(text)
        completed = wattledger("status", "--project", project)
        assert completed.returncode == 1
        assert message in completed.stderr


def test_a_query_can_only_read(tmp_path: Path, demo: Path) -> None:
    target = tmp_path / "out.csv"
    for sql in (
        "DELETE FROM run_footprint",
        f"COPY run_footprint TO '{target}'",
        "SELECT * FROM read_csv('/etc/passwd')",
        f"ATTACH '{target}'",
        "this is no SQL",
    ):
        completed = wattledger("query", sql, "--project", demo)
        assert completed.returncode == 1, sql
        assert completed.stderr.startswith("error: ")
    assert not target.exists()


def _script(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The installed command, whose name the completion goes by."""
    command = Path(sys.executable).parent / "wattledger"
    return subprocess.run(
        [str(command)], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    completed = _script(
        env={
            "_WATTLEDGER_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "wattledger pi",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "wattledger pi",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    )
    assert "pipeline" in completed.stdout
