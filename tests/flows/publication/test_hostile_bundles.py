"""Bundles made to deceive or to harm: each ends in a sentence, within bounds, and nothing in them is run."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import settings as settings_module
from flows.cli import main
from flows.errors import BadInput, OutOfTime, WattledgerError
from flows.publication import archive, bundle, integrity
from flows.publication.bundle import verify_bundle, write_bundle
from flows.publication.findings import Finding, Trust
from flows.warehouse import bounds
from tests.conftest import _revise, made_once

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two publications, made once: look, don't touch."""
    project = settings_module.load(made_once(tmp_path_factory, "republished", _revise))
    return write_bundle(project, "r1", target=tmp_path_factory.mktemp("bundle") / "r1.zip").path


@pytest.fixture(scope="module")
def members(packed: Path) -> Members:
    with zipfile.ZipFile(packed) as archive_:
        return {name: archive_.read(name) for name in archive_.namelist()}


def pack(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members.items():
            archive_.writestr(name, data)
    return path


def failures(path: Path, trust: Trust | None = None) -> dict[tuple[str, str], str]:
    found: list[Finding] = list(verify_bundle(path, trust))
    return {(one.what, one.place): one.detail for one in found if one.ok is False}


def with_database(members: Members, name: str, folder: Path, *statements: str) -> Members:
    """Members with one database changed, and the manifest made to fit: what a forger can do."""
    path = folder / "changed.duckdb"
    path.write_bytes(members[name])
    with duckdb.connect(str(path)) as con:
        for statement in statements:
            con.execute(statement)
    changed = {**members, name: path.read_bytes()}
    path.unlink()
    return changed


def test_a_run_that_does_not_exist_is_found(members: Members, tmp_path: Path) -> None:
    digest = Trust()
    about = json.loads(members["bundle.json"])
    name = about["publication_id"]
    for run in ("nobody", "", "r1\n"):
        changed = {
            **members,
            "bundle.json": bundle._render_about(run, name).encode(),
            "README.txt": members["README.txt"].replace(b"run r1,", f"run {run},".encode()),
        }
        found = failures(pack(changed, tmp_path / "b.zip"), digest)
        [(what, place)] = [key for key in found if key[0] == "bundle"]
        assert place.startswith("run ")
        assert found[what, place].startswith("the publication has no figures of this run")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("README.txt", b"pip install other-ledger\n"),
        ("README.txt", None),
        ("README.TXT.txt", b"x"),
        ("publication/extra.html", b"x"),
        ("ledger/0009-00000000/extra.json", b"{}"),
        ("kept.duckdb.wal", b"x"),
        ("setup.py", b"x"),
    ],
)
def test_members_are_those_of_a_bundle(
    name: str, data: bytes | None, members: Members, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(bundle, "check_figures", lambda *given: iter(()))
    changed = {key: value for key, value in members.items() if key != name}
    if data is not None:
        changed[name] = data
    found = failures(pack(changed, tmp_path / "b.zip"))
    assert len(found) == 1, found
    [(_, place)] = found
    assert place == name.removeprefix("publication/")


def test_every_byte_of_every_member_counts(members: Members, tmp_path: Path, monkeypatch) -> None:
    """But those of databases, which the mutation campaign changes."""
    for slow in ("check_figures", "_check_store"):
        monkeypatch.setattr(bundle, slow, lambda *given: iter(()))
    monkeypatch.setattr(integrity, "_check_database", lambda *given: iter(()))
    for name, data in members.items():
        if name.endswith((".duckdb", ".html", ".png", ".css", ".js", ".woff2")):
            continue
        place = len(data) // 2
        for changed in (data[:-1], data + b" ", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], b""):  # fmt: skip
            path = pack({**members, name: changed}, tmp_path / "b.zip")
            if name == "bundle.json":
                with pytest.raises(BadInput, match="not a bundle"):
                    list(verify_bundle(path))
            else:
                assert failures(path), name


def encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(signature, place + 4)
    path.write_bytes(data)


def of_method(number: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        place = data.find(b"PK\x01\x02")
        struct.pack_into("<H", data, place + 10, number)
        path.write_bytes(data)

    return change


def overlapping(path: Path) -> None:
    """All members are at the place of the first: a bomb without nesting."""
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        struct.pack_into("<L", data, place + 42, 0)
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)


def with_member(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive_:
            archive_.writestr(name, data)

    return change


def bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive_,
        archive_.open("publication/large", "w") as large,
    ):
        for _ in range(300):
            large.write(bytes(1 << 20))


def with_kind(mode: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        member = zipfile.ZipInfo("publication/special")
        member.external_attr = mode << 16
        with zipfile.ZipFile(path, "a") as archive_:
            archive_.writestr(member, "x")

    return change


def with_count(count: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into("<HHL", data, data.rfind(b"PK\x05\x06") + 8, count, count, 0xFFFFFFFF)
        path.write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (encrypted, "is encrypted"),
        (of_method(12), "is packed by method 12"),
        (of_method(14), "is packed by method 14"),
        (of_method(99), "is packed by method 99"),
        (overlapping, "lies over another one"),
        (bomb, "unpacks to 3.. MiB, more than 100 times its size"),
        (with_member("readme.TXT"), "two members README.txt and readme.TXT"),
        (with_member("publication/manife\uff53t.json"), "two members"),
        (with_member("a/" * 200 + "x"), "lies outside it"),
        (with_member("publication/" + "d/" * 20 + "x"), "lies outside it"),
        (with_member("publication/\x1b[2J"), "lies outside it"),
        (with_member("publication/../x"), "lies outside it"),
        (with_member("publication//x"), "lies outside it"),
        (with_member("publication/./x"), "lies outside it"),
        (with_member("publication/folder/"), "lies outside it"),
        (with_kind(0o120777), "lies outside it"),
        (with_kind(0o010666), "lies outside it"),
        (with_kind(0o020666), "lies outside it"),
        (with_count(0xFFFF), "its list of members cannot be found|not a bundle"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "not a bundle, or a damaged one"),
        (lambda path: path.write_bytes(b""), "not a bundle, or a damaged one"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a bundle, or a damaged one"),
        (lambda path: (path.unlink(), path.mkdir()), "not a bundle, or a damaged one"),
    ],
)  # fmt: skip
def test_archives_that_harm_end_in_a_sentence(
    change: Callable[[Path], object], sentence: str, packed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b.zip"
    shutil.copy(packed, path)
    change(path)
    with pytest.raises(BadInput, match=sentence) as caught:
        list(verify_bundle(path))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": 1, "run_id": [1], "publication_id": {}}',
        b'{"format": 1, "run_id": "r1", "publication_id": "../.."}',
        b'{"format": true, "run_id": "r1", "publication_id": "0001-00000000"}',
        b"\xff\xfe",
        b'{"format": 1, "run_id": "r1", "publication_id": "0001-00000000", "more": 1}',
    ],
)
def test_what_a_bundle_says_of_itself_is_bounded_and_typed(
    text: bytes, members: Members, tmp_path: Path
) -> None:
    path = pack({**members, "bundle.json": text}, tmp_path / "b.zip")
    with pytest.raises(BadInput, match="not a bundle, or a damaged one"):
        list(verify_bundle(path))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"files":' * 50_000,
        b"[]",
        b'{"publication": [], "files": [], "tables": [], "views": []}',
        b'{"publication": {}, "files": {"a": 1}, "tables": {"b": []}, "views": {"c": {}}}',
        b'{"publication": {"sequence": {}}, "files": {}, "tables": {}, "views": {}}',
        b"\x00",
        b'{"publication": NaN}',
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_manifests_that_are_none_are_named(
    text: bytes, *, earlier: bool, members: Members, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(bundle, "check_figures", lambda *given: iter(()))
    monkeypatch.setattr(bundle, "_check_store", lambda *given: iter(()))
    [before] = [name for name in members if name.startswith("ledger/")]
    name = before if earlier else "publication/manifest.json"
    found = failures(pack({**members, name: text}, tmp_path / "b.zip"))
    assert found["manifest", "manifest.json"].startswith("it cannot be read: ")


ENDLESS = "CREATE VIEW v AS SELECT count(*) AS n FROM range(1000000000000000)"
HOSTILE = {
    "view in a table's place": (
        "ALTER TABLE computation RENAME TO computation_",
        "CREATE VIEW computation AS SELECT content AS method_version, now() AS computed_at "
        "FROM read_text('{secret}')",
    ),
    "macro": ("CREATE MACRO sha256(x) AS '0'",),
    "table macro": ("CREATE MACRO t() AS TABLE FROM read_text('{secret}')",),
    "generated column": ("CREATE TABLE g (a INTEGER, b VARCHAR AS (repeat('x', a)))",),
    "default": ("CREATE TABLE d (a INTEGER DEFAULT 5)",),
    "constraint": ("CREATE TABLE c (a INTEGER CHECK (a > 0))",),
    "type": ("CREATE TYPE mood AS ENUM ('a')",),
    "sequence": ("CREATE SEQUENCE s",),
    "schema": ("CREATE SCHEMA other", "CREATE TABLE other.t (a INTEGER)"),
    "index": ("CREATE INDEX i ON segment (segment_id)",),
    "other type": ("ALTER TABLE segment ALTER segment_key TYPE VARCHAR",),
    "list": ("CREATE TABLE l (a INTEGER[])",),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("which", ["kept.duckdb", "publication/published.duckdb"])
def test_nothing_in_a_database_is_run(
    kind: str, which: str, members: Members, tmp_path: Path, monkeypatch, capsys
) -> None:
    if which == "kept.duckdb" and kind.startswith("view"):
        pytest.skip("a bundle's store has no such table")
    (tmp_path / "secret.txt").write_text("the-secret")
    statements = [text.format(secret=tmp_path / "secret.txt") for text in HOSTILE[kind]]
    changed = with_database(members, which, tmp_path, *statements)
    path = pack(changed, tmp_path / "b.zip")
    monkeypatch.setattr(sys, "argv", ["wattledger", "verify", str(path), "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr()
    assert ended.value.code == 3
    assert "the-secret" not in said.out + said.err
    named = [one for one in json.loads(said.out) if one["ok"] is False]
    assert any(
        "Wattledger does not write" in one["detail"] or "its column segment_key is" in one["detail"]
        for one in named
    ) or ("view" in kind and any(one["place"] == "computation" for one in named)), named


def test_a_view_that_shows_other_figures_is_named(
    members: Members, tmp_path: Path, monkeypatch
) -> None:
    """Also one that never ends: no view is run. Who vouches for the manifest vouches for its views."""
    monkeypatch.setattr(bundle, "check_figures", lambda *given: iter(()))
    changed = with_database(
        members,
        "publication/published.duckdb",
        tmp_path,
        ENDLESS,
        "CREATE OR REPLACE VIEW run_summary AS SELECT run_id, 0 AS co2e_kg FROM run_footprint",
    )
    found = failures(pack(changed, tmp_path / "b.zip"))
    for view in ("v", "run_summary"):
        assert "neither --key nor --expect vouches for it" in found["view", view]
    kept = with_database(members, "kept.duckdb", tmp_path, ENDLESS)
    assert "a view that" in failures(pack(kept, tmp_path / "c.zip"))["kept", "v"]


def test_rows_that_repeat_for_ever_are_not_read(members: Members, tmp_path: Path) -> None:
    changed = with_database(
        members,
        "kept.duckdb",
        tmp_path,
        "INSERT INTO host_reading (segment_key) SELECT 1 FROM range(20_000_000)",
    )
    assert (
        "no such file is that large" in failures(pack(changed, tmp_path / "b.zip"))["kept", "rows"]
    )


def test_statements_end(monkeypatch, packed: Path) -> None:
    with duckdb.connect() as con:
        with (
            pytest.raises(OutOfTime, match=r"it takes more than 0.2 s") as caught,
            bounds.bound_time(con, 0.2),
        ):
            con.execute("SELECT count(*) FROM range(1000000000000000)").fetchall()
        assert caught.value.exit_code == 8
        with bounds.bound_time(con, 60):
            assert con.execute("SELECT 1").fetchall() == [(1,)]
        with pytest.raises(duckdb.ParserException), bounds.bound_time(con, 60):
            con.execute("SELEC")


@settings(max_examples=60)
@given(data=st.data())
def test_mutated_archives_end_in_a_sentence(
    data: st.DataObject, packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(packed.read_bytes())
    directory = raw.find(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.sampled_from([0, directory, len(raw) - 22]))
        place = min(near + data.draw(st.integers(0, 200)), len(raw) - 1)
        raw[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("mutated")
    path = folder / "b.zip"
    path.write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) - 1, directory + 50]))])
    with suppress(WattledgerError):
        archive.unpack_archive(path, folder, bundle._is_expected)
    shutil.rmtree(folder)
