"""Another user sees what was read lately, and cannot keep the collector from writing."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.sources.gpu.spool import read_host_readings, read_readings
from tests.conftest import run_alone
from wattledger.collect.buffer import Batch
from wattledger.collect.storage import Storage
from wattledger.config import Config
from wattledger.readings import Gpu
from wattledger.spool.spool import Spool

HOST, STRANGER = "node01", 54_321
GPU = Gpu("GPU-1", 0, "H100")
AT_US = 1_700_000_000_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_stranger_reads_a_copy_and_opens_no_journal(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents][:4]:
        parent.chmod(0o755)
    spool = Spool(tmp_path / "spool", HOST)
    spool.create()
    storage = Storage(spool, Config())
    reading = (GPU, AT_US, (100_000, 1, *(None,) * 8))
    batch = Batch([reading], [], [(AT_US, 1, "cpu", 1, True, "m")])
    storage.store(batch, [GPU], (AT_US, 0), {"host": HOST})
    storage.share_recent()
    assert run_alone(_look, str(spool.root)) == 0
    assert [path.name for path in spool.folder.iterdir() if path.name.endswith(".part")] == []
    storage.close_journal()


def _look(root: str) -> int:
    """As a stranger, in a process of its own."""
    spool = Spool(Path(root), HOST)
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    first, last = (datetime.fromtimestamp(AT_US / 1e6 + s, UTC) for s in (-5, 5))
    for path in spool.folder.iterdir():
        if path.name in ("open", "collector.lock"):
            try:
                os.open(path, os.O_RDONLY)
            except PermissionError:
                continue
            return 1
    if read_readings(spool, ["GPU-1"], first, last).height != 1:
        return 2
    return 0 if read_host_readings(spool, first, last).height == 1 else 3
