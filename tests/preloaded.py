"""Work for processes that are killed: the heavy imports are done before they start."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import flows.settings
from expectations.gate import _great_expectations
from flows.ingest_gpu import ingest_gpu
from flows.publish import publish

_great_expectations()


def load(project: Path, files: list[Path], said: Connection) -> None:
    settings = flows.settings.load(project)
    said.send("go")
    ingest_gpu(settings, files)


def put_in_force(project: Path, said: Connection) -> None:
    settings = flows.settings.load(project)
    said.send("go")
    publish(settings)
