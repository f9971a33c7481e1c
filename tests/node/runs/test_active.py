"""Which runs are alive, and the end of those that are not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.node.runs.conftest import GPUS
from wattledger.runs.active import GRACE_S, ActiveRuns
from wattledger.runs.environment import begin_record
from wattledger.runs.records import load_record


def test_a_run_of_another_container_is_known_by_its_heartbeat(tmp_path: Path) -> None:
    record = begin_record({}, GPUS, "n1")
    record.pid, record.pid_started, record.pid_namespace = 1, "elsewhere", "pid:[1]"
    path = record.save(tmp_path)
    active = ActiveRuns(tmp_path, "n1")
    assert active.read_changes()
    active.end_lost_runs()
    assert active.any()
    old = path.stat().st_mtime - 3600
    os.utime(path, (old, old))
    active.end_lost_runs()
    assert active.any()  # its launcher may be writing the end just now
    time.sleep(GRACE_S + 0.1)
    active.end_lost_runs()
    assert not active.any()
    assert load_record(path).ended_by == "lost"
