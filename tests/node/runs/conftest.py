"""Runs on a node: how they are started here, and the GPUs that a driver might list."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.node.conftest import Node
from wattledger.readings import Gpu, Instance

RUN = [sys.executable, "-m", "flows.cli", "run", "--no-host-meter", "--rate", "20"]
PYTHON = [sys.executable, "-c"]

GPUS = [
    Gpu("GPU-aaaa1111", 0, "H100"),
    Gpu("GPU-aaaa2222", 1, "H100"),
    Gpu(
        "GPU-bbbb0000",
        2,
        "H100",
        (Instance("MIG-cccc", 571_428), Instance("MIG-dddd", 428_571)),
    ),
]


def run(node: Node, *words: str, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python under `wattledger run`."""
    env = {**node.env, **options.pop("env", {})}
    return subprocess.run(
        [*RUN, *words, "--", *PYTHON, code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=node.folder,
        **options,
    )
