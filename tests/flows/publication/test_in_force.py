"""What readers read is what was published; a doctored copy is refused, whoever asks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

import wattledger as package
from flows import settings as settings_module
from flows.errors import NotAsPublished, UsageError, WattledgerError
from flows.publication import in_force
from flows.publication.history import trace_run
from flows.publication.in_force import REPORT, find_in_force
from flows.publication.manifest import MANIFEST
from flows.publication.publish import publish_candidate
from flows.publication.reader import explain_published_run, fill_frame, find_store, run_query
from flows.publication.status import read_status
from flows.publication.verify import verify_ledger
from flows.reporting.frames.query import Selection
from flows.settings import Settings
from flows.warehouse.connection import connect
from tests.conftest import wattledger
from tests.flows.publication.helpers import writable


def halve(database: Path) -> None:
    with writable(database) as con:
        con.execute("UPDATE run_footprint SET co2e_ug = co2e_ug // 2")


def doctor_elsewhere(project: Settings) -> None:
    """The link leads to a doctored copy with the right name."""
    folder = project.published.resolve()
    copy = project.root / "elsewhere" / folder.name
    shutil.copytree(folder, copy)
    halve(copy / "published.duckdb")
    project.published.unlink()
    project.published.symlink_to(copy)


def doctor_in_place(project: Settings) -> None:
    halve(project.published_database)


def doctor_with_manifest(project: Settings) -> None:
    path = project.published.resolve() / MANIFEST
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"reason": null', '"reason": "x"'))


def copy_in_place_of_the_link(project: Settings) -> None:
    folder = project.published.resolve()
    project.published.unlink()
    shutil.copytree(folder, project.published)


def link_within(project: Settings) -> None:
    """Another name in publications/ is a link to the copy."""
    doctor_elsewhere(project)
    copy = project.published.resolve()
    name = project.publications / copy.name
    shutil.rmtree(name)
    name.symlink_to(copy)
    project.published.unlink()
    project.published.symlink_to(f"publications/{copy.name}")


def write_log_beside(project: Settings) -> None:
    """DuckDB takes what a .wal beside a file says for the latest changes of it."""
    folder = project.published.resolve()
    copy = project.root / "copy.duckdb"
    shutil.copy(folder / "published.duckdb", copy)
    copy.chmod(0o644)
    with closing(duckdb.connect(str(copy))) as con:
        con.execute("SET wal_autocheckpoint = '1TB'")
        con.execute("UPDATE run_footprint SET co2e_ug = co2e_ug // 2")
        shutil.copy(f"{copy}.wal", folder / "published.duckdb.wal")


def remove_manifest(project: Settings) -> None:
    (project.published / MANIFEST).unlink()


ATTACKS: dict[Callable[[Settings], None], str] = {
    doctor_elsewhere: "it is no link to a publication of this project",
    link_within: "it is no link to a publication of this project",
    copy_in_place_of_the_link: "it is no link to a publication of this project",
    doctor_in_place: "its published.duckdb is not the one that was published",
    doctor_with_manifest: "its manifest.json is not the one of the ledger",
    write_log_beside: "published.duckdb.wal lies beside its figures",
    remove_manifest: "it has no manifest.json: nobody can vouch for it",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_doctored_publication_is_read_by_nobody(
    attack: Callable[[Settings], None], published: Settings
) -> None:
    ledger = package.open(published.root)
    assert ledger.runs().height == 1
    attack(published)
    readers: list[Callable[[], object]] = [
        lambda: find_store(published),
        lambda: run_query(published, "FROM run_summary").__enter__(),
        lambda: explain_published_run(published, "r1"),
        lambda: fill_frame(published, "eu-ai-act", Selection(run="r1")),
        lambda: read_status(published),
        ledger.runs,
        lambda: ledger.explain("r1"),
        lambda: package.open(published.root),
    ]
    for read in readers:
        with pytest.raises(NotAsPublished) as error:
            read()
        assert ATTACKS[attack] in str(error.value)
    assert error.value.exit_code == 3


def test_commands_refuse_what_is_doctored(published: Settings) -> None:
    doctor_elsewhere(published)
    for words in (["query", "FROM run_summary"], ["report"]):
        said = wattledger(*words, "--project", published.root)
        assert said.returncode == 3, (words, said.stdout)
        assert "it is no link to a publication of this project" in said.stderr
        assert said.stdout == ""


def test_a_doctored_report_is_not_shown(published: Settings) -> None:
    path = published.published.resolve() / REPORT
    path.chmod(0o644)
    path.write_text(path.read_text() + " ")
    find_in_force(published)
    with pytest.raises(NotAsPublished, match=r"its report\.html is not the one"):
        find_in_force(published, file=REPORT)


def test_an_older_publication_in_the_place_of_the_last_is_named(republished: Settings) -> None:
    first, last = sorted(republished.publications.iterdir())
    republished.published.unlink()
    republished.published.symlink_to(f"publications/{first.name}")
    with pytest.raises(NotAsPublished, match=f"it leads to {first.name}, and {last.name} was"):
        find_in_force(republished)
    # It can still be asked for by its number, and compared; and publishing puts the last in force.
    assert find_store(republished, publication="0001").exists()
    assert len(trace_run(republished, "r1")) == 2
    publish_candidate(republished)
    assert find_in_force(republished) == last.resolve()
    halve(first / "published.duckdb")
    for read in (
        lambda: find_store(republished, publication="0001"),
        lambda: trace_run(republished, "r1"),
    ):
        with pytest.raises(NotAsPublished):
            read()


def test_readers_need_no_warehouse(published: Settings) -> None:
    """It may be busy, damaged or left out of a copy."""
    warehouse = published.root / "warehouse.duckdb"
    assert find_in_force(published)
    with closing(connect(warehouse)):
        in_force._checked.clear()
        assert find_in_force(published)
    warehouse.write_bytes(b"x" * 9999)
    assert find_in_force(published)
    warehouse.unlink()
    assert find_in_force(published)


def test_a_signature_is_asked_for_where_there_is_a_key(published: Settings) -> None:
    path = published.root / "wattledger.toml"
    path.write_text(f"{path.read_text()}\n[ledger]\npublic_key = 'k.pem'\n")
    project = settings_module.load(published.root)
    with pytest.raises(NotAsPublished, match="it is not signed, and this ledger has a key"):
        find_in_force(project)


def test_what_was_doctored_does_not_stand(published: Settings) -> None:
    """It is published anew, from the readings, though nothing else changed; and stays named."""
    halve(published.published_database)
    anew = publish_candidate(published)
    assert anew.changed
    assert [text for text in anew.warnings if "figures were published anew" in text]
    assert find_in_force(published).name == anew.publication_id
    assert not publish_candidate(published).changed
    found = [one for one in verify_ledger(published) if one.ok is False]
    assert {one.publication_id[:4] for one in found} == {"0001"}


def test_nothing_published_is_said(project: Settings) -> None:
    with pytest.raises(UsageError, match="nothing has been published yet"):
        find_in_force(project)


def test_the_digest_of_a_large_file_is_taken_once(
    published: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(in_force, "_LARGE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    taken: list[str] = []
    hash_file = in_force.hash_file

    def count(path: Path) -> str:
        taken.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(in_force, "hash_file", count)
    for _ in range(2):
        in_force._checked.clear()
        find_in_force(published)
    assert taken.count("published.duckdb") == 1
    folder = tmp_path / "cache" / "wattledger" / "digests"
    assert folder.stat().st_mode & 0o077 == 0
    # The same size, and a time of change that was set back.
    before = published.published_database.stat()
    halve(published.published_database)
    os.utime(published.published_database, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(NotAsPublished):
        find_in_force(published)
    # A folder that others may write is not believed.
    folder.chmod(0o777)
    assert in_force._find_cache() is None


def test_checking_costs_little(published: Settings) -> None:
    find_in_force(published)
    began = time.perf_counter()
    for _ in range(20):
        find_in_force(published)
    assert time.perf_counter() - began < 1
    assert issubclass(NotAsPublished, WattledgerError)
