"""Sealing: journals become segments, also after a kill and beside a damaged one."""

from __future__ import annotations

import signal
import sqlite3
import subprocess

from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from tests.node.conftest import Node
from wattledger.process import module_command


def test_a_seal_that_was_killed_is_done_again_to_the_same_bytes(
    node: Node, project: Settings
) -> None:
    process = node.collect()
    node.more(process)
    node.stop(process, signal.SIGKILL)
    [journal] = node.spool.list_journals()
    # SQLite folds its log into the file when it closes it, so keep all three parts.
    kept = {p: p.read_bytes() for p in node.spool.journals.iterdir()}
    subprocess.run(module_command("wattledger.spool.seal", str(journal)), check=True)
    [segment] = node.segments()
    before = segment.read_bytes()
    assert node.spool.list_journals() == []
    for path, content in kept.items():
        path.write_bytes(content)
    subprocess.run(module_command("wattledger.spool.seal", str(journal)), check=True)
    assert segment.read_bytes() == before
    assert [o.verdict for o in ingest_gpu(project, [segment])] == ["loaded"]
    assert [o.verdict for o in ingest_gpu(project, [segment])] == ["known"]


def test_a_damaged_journal_is_kept_aside_and_the_rest_goes_on(node: Node) -> None:
    process = node.collect()
    node.stop(process, signal.SIGKILL)
    [journal] = node.spool.list_journals()
    journal.with_name("node01-00000000T000000.000000Z.sqlite").write_bytes(b"not a database" * 99)
    second = node.collect()
    node.until(lambda: (node.spool.folder / "damaged").exists())
    stderr = node.stop(second)
    assert "damaged" in stderr
    assert len(node.segments()) == 2
    assert "seal_failed" in node.events()


def test_a_journal_killed_at_its_birth_leaves_nothing(node: Node) -> None:
    node.spool.create()
    sqlite3.connect(node.spool.journals / "node01-20200101T000000.000000Z.sqlite").close()
    process = node.collect()
    node.stop(process)
    assert node.spool.list_journals() == []
    assert len(node.segments()) == 1
