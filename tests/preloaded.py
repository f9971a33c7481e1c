"""Work for separate processes that start with the heavy imports done: commands, and what tests kill."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import flows.reporting.report.charts
import flows.settings
from expectations.gate import load_great_expectations
from flows.cli import main
from flows.ingest.gpu import ingest_gpu
from flows.publication.publish import publish_candidate
from flows.publication.retention import roll_up_old_readings
from flows.warehouse.store import FileStore, open_warehouse

load_great_expectations()


def run_command(words: list[str], env: dict[str, str], output: Path, folder: Path) -> None:
    """Run the command in `folder`; what it prints goes to files in `output`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        handle = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["wattledger", *words]
    main.main()


def load_gpu_files(project: Path, files: list[Path], ready: Connection) -> None:
    settings = flows.settings.load(project)
    ready.send("go")
    ingest_gpu(settings, files)


def publish(project: Path, ready: Connection) -> None:
    settings = flows.settings.load(project)
    ready.send("go")
    publish_candidate(settings)


def roll_up(project: Path, ready: Connection) -> None:
    settings = flows.settings.load(project)
    ready.send("go")
    roll_up_old_readings(settings, 30)


def make_warehouse(path: Path, ready: Connection) -> None:
    ready.send("go")
    open_warehouse(FileStore(path)).close()


def load_gpu_files_one_by_one(project: Path, files: list[Path]) -> None:
    for path in files:
        ingest_gpu(flows.settings.load(project), [path])
