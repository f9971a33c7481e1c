"""Work for processes of their own that start with the heavy imports done: commands, and what is killed."""

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


def command(words: list[str], env: dict[str, str], folder: Path, at: Path) -> None:
    """Run the command in folder `at`; what it prints goes to files in `folder`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(at)
    sys.argv = ["wattledger", *words]
    main.main()


def load(project: Path, files: list[Path], said: Connection) -> None:
    settings = flows.settings.load(project)
    said.send("go")
    ingest_gpu(settings, files)


def put_in_force(project: Path, said: Connection) -> None:
    settings = flows.settings.load(project)
    said.send("go")
    publish_candidate(settings)


def roll_up_all(project: Path, said: Connection) -> None:
    settings = flows.settings.load(project)
    said.send("go")
    roll_up_old_readings(settings, 30)


def make_warehouse(path: Path, said: Connection) -> None:
    said.send("go")
    open_warehouse(FileStore(path)).close()


def load_files(project: Path, files: list[Path]) -> None:
    from flows import settings
    from flows.ingest.gpu import ingest_gpu

    for path in files:
        ingest_gpu(settings.load(project), [path])
