"""Copies of refused files hold what was refused, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import Settings
from flows.warehouse import registry
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import ask


def test_a_file_that_became_a_link_is_not_copied(project: Settings, tmp_path: Path) -> None:
    """Between reading and refusing, whoever wrote a file can put a link in its place."""
    secret = tmp_path / "secret"
    secret.write_text("token")
    link = tmp_path / "log.csv"
    link.symlink_to(secret)
    with open_for_writing(store_of(project)) as con:
        outcome = registry.quarantine_file(con, project, link, "0" * 64, "gpu", "not believed")
    assert outcome.verdict == "quarantined"
    assert "a link, which is not followed" in outcome.reason
    assert list(project.quarantine.iterdir()) == []
    assert ask(project, "FROM quarantine") == []


@pytest.mark.parametrize("leftover", ["file", "link"])
def test_a_copy_never_goes_through_what_a_killed_process_left(
    leftover: str, project: Settings, tmp_path: Path
) -> None:
    bad = tmp_path / "log.csv"
    bad.write_text("refused")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    project.quarantine.mkdir()
    part = project.quarantine / f"{'0' * 12}-log.csv.part"
    part.symlink_to(victim) if leftover == "link" else part.write_text("half")
    with open_for_writing(store_of(project)) as con:
        registry.quarantine_file(con, project, bad, "0" * 64, "gpu", "not believed")
    assert victim.read_text() == "untouched"
    copy = project.quarantine / f"{'0' * 12}-log.csv"
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("refused", 0o600)
    assert not part.exists()
