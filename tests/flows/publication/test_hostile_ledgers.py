"""Manifests, databases and warehouses that are not what they should be: sentences, and nothing in them is run."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from flows.errors import BadInput, OutOfMemory, WarehouseNewer, WarehouseOlder
from flows.publication import extents
from flows.publication.findings import Trust
from flows.publication.integrity import check_folder
from flows.publication.manifest import MANIFEST
from flows.publication.reproduction import check_figures, check_warehouse
from flows.publication.verify import verify_ledger
from flows.settings import Settings
from flows.warehouse import connection
from flows.warehouse.store import store_of
from tests.flows.publication.helpers import list_failures, writable
from transforms.schema import TABLES


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"publication": ' * 9_999, b"{}", b"[1]", b"\xff", b"", b" " * (65 << 20)],
)
def test_a_manifest_that_is_none_is_named(text: bytes, published: Settings) -> None:
    folder = published.published.resolve()
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_bytes(text)
    [finding] = [one for one in check_folder(folder, Trust(), "", {}) if one.what != "signature"]
    assert (finding.what, finding.ok) == ("manifest", False)
    assert finding.detail.startswith("it cannot be read: ")


def test_a_manifest_of_other_types_is_named(published: Settings) -> None:
    folder = published.published.resolve()
    (folder / MANIFEST).chmod(0o644)
    right = json.loads((folder / MANIFEST).read_bytes())
    for part in ("publication", "files", "tables", "views"):
        for wrong in (None, [], "x", 1, {"a": [1]}, {"a": None}, {"a": {"b": {"c": []}}}):
            (folder / MANIFEST).write_text(json.dumps({**right, part: wrong}))
            found = list(check_folder(folder, Trust(), "", {}))
            assert [one for one in found if one.ok is False], (part, wrong)


@pytest.mark.parametrize(
    ("statement", "place", "detail"),
    [
        ("DROP TABLE publication", "publication", "the table is missing"),
        ("ALTER TABLE publication RENAME TO publications", "publication", "the table is missing"),
        ("DROP TABLE rolled_up CASCADE", "rolled_up", "the table is missing"),
        ("ALTER TABLE factor RENAME COLUMN value TO other", "factor", "its column value is missing"),
        ("ALTER TABLE host ADD COLUMN x INTEGER; ALTER TABLE host ALTER x TYPE VARCHAR", "", ""),
        ("ALTER TABLE restatement ALTER run_id TYPE BIGINT", "restatement", "its column run_id is BIGINT"),
        ("DROP TABLE second_meter; CREATE VIEW second_meter AS FROM read_text('/etc/hostname')", "second_meter", "missing"),
        ("DROP TABLE second_meter; CREATE VIEW second_meter AS FROM range(1000000000000000)", "second_meter", "missing"),
    ],
)  # fmt: skip
def test_a_warehouse_of_another_schema_is_named(
    statement: str, place: str, detail: str, published: Settings
) -> None:
    with duckdb.connect(str(store_of(published))) as con:
        for view in con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall():
            con.execute(f"DROP VIEW {view[0]}")
        con.execute(statement)
    found = [one for one in check_warehouse(store_of(published), published.published.resolve()) if one.ok is False]  # fmt: skip
    assert [one.place for one in found] == ([place] if place else [])
    assert not place or detail in found[0].detail
    # Nothing ends in a traceback on the way there.
    assert list_failures(verify_ledger(published)) or not place


def test_a_warehouse_of_another_version_is_said(published: Settings) -> None:
    folder = published.published.resolve()
    for statement, kind, sentence in (
        ("UPDATE schema_migration SET version = 9999 WHERE version = 1", WarehouseNewer, "newer Wattledger"),
        ("DELETE FROM schema_migration WHERE version > 2", WarehouseOlder, "an older Wattledger"),
        ("DROP TABLE schema_migration", WarehouseOlder, "no warehouse of Wattledger"),
    ):  # fmt: skip
        with duckdb.connect(str(store_of(published))) as con:
            con.execute(statement)
        with pytest.raises(kind, match=sentence) as caught:
            list(check_warehouse(store_of(published), folder))
        assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE MACRO sha256(x) AS '0'",
        "CREATE MACRO to_json(x) AS '{}'",
        "CREATE TABLE g (a INTEGER, b VARCHAR AS (repeat('x', a)))",
        "CREATE TYPE t AS ENUM ('a')",
    ],
)
def test_nothing_in_a_published_file_is_run(statement: str, published: Settings) -> None:
    """A macro of the file was taken for the function of that name: digests were what it said."""
    folder = published.published.resolve()
    with writable(folder / "published.duckdb") as con:
        con.execute(statement)
    found = [one for one in check_folder(folder, Trust(), "", {}) if one.ok is False]
    assert any("Wattledger does not write" in one.detail for one in found)


def test_too_little_memory_is_no_difference(published: Settings, monkeypatch) -> None:
    monkeypatch.setitem(connection._CONFIG, "memory_limit", "1MB")
    folder, store = published.published.resolve(), store_of(published)
    for check in (
        lambda: check_folder(folder, Trust(), "", {}),
        lambda: check_warehouse(store, folder),
        lambda: check_figures(store, folder),
    ):
        with pytest.raises(OutOfMemory, match="neither confirmed nor changed"):
            list(check())


def test_a_damaged_published_file_is_named(published: Settings, tmp_path: Path) -> None:
    folder = published.published.resolve()
    path = folder / "published.duckdb"
    path.chmod(0o644)
    right = path.read_bytes()
    for data in (b"", b"no database", right[:5000], right[:4096] + bytes(64) + right[4160:]):
        path.write_bytes(data)
        for found in (
            list(check_folder(folder, Trust(), "", {})),
            list(check_warehouse(store_of(published), folder)),
            list(check_figures(store_of(published), folder)),
        ):
            wrong = [one for one in found if one.ok is False]
            assert wrong
            assert all("\n" not in one.detail for one in wrong)


def test_rows_about_more_time_than_can_be_are_not_computed() -> None:
    """Spread over slots, one reading in the year 9999 took all memory, and the process with it."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for table in extents._EXTENTS:
            columns = ", ".join(f"{f.name} {f.sql_type}" for f in TABLES[table].fields)
            con.execute(f"CREATE TABLE {table} ({columns})")
        con.execute("INSERT INTO gpu_reading (gpu_key, ts) SELECT 1, '2024-05-01'::TIMESTAMPTZ + to_seconds(i) FROM range(1000) r(i)")  # fmt: skip
        con.execute("INSERT INTO run_allocation (gpu_uuid, from_ts) VALUES ('g', '2024-05-01')")
        con.execute("INSERT INTO grid_mix (zone, valid_from, valid_to) VALUES ('DE', '2000-01-01', '2026-01-01')")  # fmt: skip
        extents.check_extents(con, "memory", "here")
        for statement in (
            "UPDATE gpu_reading SET ts = '9999-01-01' WHERE rowid = 5",
            "UPDATE gpu_reading SET ts = '-infinity' WHERE rowid = 5",
            "UPDATE gpu_reading SET ts = NULL",
            "UPDATE run_allocation SET to_ts = 'infinity'",
            "UPDATE grid_mix SET valid_to = 'infinity'",
            "INSERT INTO gpu_piece (gpu_key, slot) VALUES (1, 9223372036854775807)",
            "INSERT INTO host_reading (host, ts, span_us) VALUES ('h', '2024-05-01', 9223372036854775807)",
            "INSERT INTO gpu_reading (gpu_key, ts) SELECT i, unnest(['2001-01-01'::TIMESTAMPTZ, '2099-01-01'::TIMESTAMPTZ]) FROM range(3) r(i)",
        ):
            con.execute("BEGIN")
            con.execute(statement)
            with pytest.raises(
                BadInput, match=r"times that no measurement has|slots of five minutes"
            ):
                extents.check_extents(con, "memory", "here")
            con.execute("ROLLBACK")
