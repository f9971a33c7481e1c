"""What people read on a terminal is text, whoever wrote it."""

from __future__ import annotations

import json

import pytest

from flows.cli.output.console import make_console, make_table
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from tests.conftest import grid_csv, segment, wattledger

STEERING = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\x08\u202egnp.exe"


def test_no_text_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    table = make_table()
    table.add_column(STEERING)
    table.add_row(f"run{STEERING}")
    console.print(table)
    console.print(f"[bold]run[/]{STEERING}", soft_wrap=True)
    make_console(stderr=True).print(f"error: {STEERING}", soft_wrap=True)
    shown = capsys.readouterr()
    assert "run\ufffd[2J\ufffd]0;owned\ufffd" in shown.out
    assert not set(shown.out + shown.err) & set("\x1b\x07\r\x9b\x08\u202e")


def test_names_from_files_do_not_steer_the_terminal(project: Settings) -> None:
    """From a run table to what commands print, on both streams."""
    ingest_gpu(project, [segment(project.root)])
    ingest_grid(project, [grid_csv(project.root, [100, 200, 300, 400])])
    run = {
        "run_id": f"r{STEERING}",
        "name": f"n{STEERING}",
        "started_at": "2024-05-01T12:05:00Z",
        "ended_at": "2024-05-01T12:15:00Z",
        "host": "node01",
        "gpu": "all",
    }
    table = project.root / "runs.json"
    table.write_text(json.dumps([run, {**run, "run_id": "unknown", "host": f"h{STEERING}"}]))
    assert ingest_runs(project, [table])[0].rows_loaded == 1
    refused = project.root / "refused.json"
    refused.write_text(json.dumps([{**run, "started_at": STEERING}]))
    for command in (
        ("ingest", "runs", refused),
        ("status",),
        ("footprint",),
        ("query", "--warehouse", "SELECT run_id, name FROM training_run"),
        ("explain", f"x{STEERING}"),
    ):
        done = wattledger(*command, "-p", project.root)
        assert not set(done.stdout + done.stderr) & set("\x1b\x07\r\x9b\x08\u202e"), command
