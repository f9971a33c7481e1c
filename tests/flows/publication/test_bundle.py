"""Bundles: verified with nothing else, and whatever is changed in one is found."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import settings as settings_module
from flows.errors import BadInput, UsageError
from flows.publication import bundle
from flows.publication.bundle import verify_bundle, write_bundle
from flows.publication.findings import Trust
from flows.settings import Settings
from tests.conftest import started_afresh, wattledger
from tests.flows.publication.helpers import list_failures, writable


@pytest.fixture
def packed(republished: Settings, tmp_path: Path) -> Path:
    done = write_bundle(republished, "r1", target=tmp_path / "r1.zip")
    assert done.readings == 3600
    return done.path


def test_a_bundle_is_verified_with_nothing_else(packed: Path, tmp_path: Path) -> None:
    """In another directory, by another process, with another number of threads."""
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(packed, away / "evidence.zip")
    shutil.rmtree(tmp_path / "project")
    said = started_afresh(
        "verify",
        away / "evidence.zip",
        "--json",
        env={"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert {o["what"] for o in found} == {
        "bundle", "entry", "signature", "chain", "file", "table", "view", "kept", "figures",
    }  # fmt: skip
    assert {o["place"] for o in found if o["what"] == "figures"} == {
        "run_footprint", "footprint_slot", "energy_slot", "run_alternative", "run_sensitivity", "factor_use",
    }  # fmt: skip
    assert {o["ok"] for o in found if o["what"] != "signature"} == {True}


def test_a_bundle_of_many_readings(demo: Path, tmp_path: Path) -> None:
    """More than one thread reads at a time, of two nodes with a gap and without a counter."""
    done = write_bundle(settings_module.load(demo), "vision-base", target=tmp_path / "run.zip")
    assert done.readings > 200_000
    found = list(verify_bundle(done.path))
    assert [one for one in found if one.ok is False] == []
    assert {one.ok for one in found if one.what in ("kept", "figures")} == {True}


def repacked(path: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
    return target


def test_a_changed_bundle_is_found_out(packed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"

    def other_reading(name: str, data: bytes) -> tuple[str, bytes]:
        if name != "kept.duckdb":
            return name, data
        store.write_bytes(data)
        with writable(store) as con:
            con.execute("UPDATE gpu_reading SET energy_mj = energy_mj + 1 WHERE rowid >= 600")
        return name, store.read_bytes()

    found = list_failures(verify_bundle(repacked(packed, other_reading)))
    assert any(what == "kept" and place.startswith("gpu_reading") for what, place in found)

    def other_manifest_before(name: str, data: bytes) -> tuple[str, bytes]:
        return name, data + b" " if name.startswith("ledger/") else data

    found = list_failures(verify_bundle(repacked(packed, other_manifest_before)))
    assert found == {("chain", "previous_digest")}
    expected = Trust(expected="0" * 64)
    assert ("chain", "expected digest") in list_failures(verify_bundle(packed, expected))


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt"]
)
def test_a_bundle_writes_nothing_outside(name: str, packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, "owned")
    with pytest.raises(BadInput, match="lies outside it"):
        list(verify_bundle(packed))
    assert not (tmp_path / "out.txt").exists()
    assert not Path("/out.txt").exists()


def test_a_bundle_with_a_link_or_that_is_none_is_refused(packed: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("publication/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadInput, match="lies outside it"):
        list(verify_bundle(packed))
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("bundle.json", '{"format": 1, "run_id": "r", "publication_id": "../.."}')
    cut = tmp_path / "cut.zip"
    cut.write_bytes(packed.read_bytes()[:5000])
    for path in (tmp_path / "text.zip", tmp_path / "other.zip", cut, tmp_path / "none.zip"):
        with pytest.raises(BadInput, match="not a bundle, or a damaged one"):
            list(verify_bundle(path))
    said = wattledger("verify", tmp_path / "text.zip")
    assert said.returncode == 2
    assert "wattledger bundle RUN" in said.stderr


def test_a_bundle_of_no_run_is_refused(published: Settings) -> None:
    with pytest.raises(UsageError, match="the publication has no run 'nobody'"):
        write_bundle(published, "nobody")


@pytest.mark.parametrize("run_id", ["../../etc/x", "a'; DROP TABLE segment; --", "..", "r/1\\2"])
def test_names_of_runs_lead_nowhere(run_id: str, project: Settings, tmp_path: Path) -> None:
    assert "/" not in bundle._file_name(run_id)
    assert "\\" not in bundle._file_name(run_id)
    assert not bundle._file_name(run_id).startswith(".")
