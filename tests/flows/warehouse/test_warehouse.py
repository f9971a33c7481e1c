"""Migrations: in order, recorded, safe to run again, refused when the file is newer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from flows.errors import WarehouseError
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.locks import commit_or_roll_back
from flows.warehouse.schema import migrate
from flows.warehouse.store import FileStore, open_warehouse
from tests import preloaded
from tests.conftest import ROOT
from transforms.schema import TABLES


def test_migrations_are_recorded_and_run_once(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    con = open_warehouse(FileStore(path))
    first = con.execute("FROM schema_migration").fetchall()
    assert [row[0] for row in first] == list(range(1, len(first) + 1))
    assert migrate(con, str(path)) == []
    con.close()
    con = open_warehouse(FileStore(path))
    assert con.execute("FROM schema_migration").fetchall() == first
    con.close()


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    con = open_warehouse(FileStore(path))
    con.execute("INSERT INTO schema_migration VALUES (9999, '9999_later', 'x', now())")
    con.close()
    before = path.read_bytes()
    with pytest.raises(WarehouseError, match=r"newer Wattledger.*9999.*Upgrade") as caught:
        open_warehouse(FileStore(path))
    assert caught.value.exit_code == 5
    assert path.read_bytes() == before


def test_an_edited_migration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    con = open_warehouse(FileStore(path))
    con.execute("UPDATE schema_migration SET sha256 = 'other' WHERE version = 1")
    con.close()
    with pytest.raises(WarehouseError, match=r"0001_ledger\.sql differs"):
        open_warehouse(FileStore(path))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_text("this is not a database " * 1000)
    with pytest.raises(WarehouseError, match="it is not a DuckDB file"):
        open_warehouse(FileStore(path))


def test_nothing_is_fetched_behind_the_users_back(tmp_path: Path) -> None:
    con = connect(tmp_path / "w.duckdb")
    for setting in ("autoinstall_known_extensions", "autoload_known_extensions"):
        assert con.execute(f"SELECT current_setting('{setting}')").fetchall() == [(False,)]
    assert con.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    con.close()


def test_a_warehouse_of_the_first_migration_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    first = ROOT / "sql" / "migrations" / "0001_ledger.sql"
    con = duckdb.connect(str(path))
    con.execute(first.read_text())
    con.execute(
        "CREATE TABLE schema_migration (version INTEGER NOT NULL, migration VARCHAR NOT NULL, "
        "sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
    )
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    con.execute("INSERT INTO schema_migration VALUES (1, '0001_ledger', ?, now())", [digest])
    con.execute("INSERT INTO gpu_reading VALUES (1, now(), 300000, 5, 99, 70, 55, 1755, 1, 1)")
    con.close()
    con = open_warehouse(FileStore(path))
    [row] = query_rows(con, "FROM gpu_reading")
    assert (row["power_mw"], row["power_limit_mw"]) == (300_000, None)
    versions = [row["version"] for row in query_rows(con, "FROM schema_migration ORDER BY 1")]
    assert versions == list(range(1, len(list(first.parent.glob("*.sql"))) + 1))
    assert query_rows(con, "FROM gpu_readings") == []  # its segment and GPU are not there
    con.close()


def test_what_is_prepared_is_in_no_file(tmp_path: Path) -> None:
    """Also where one connection is still open when the next begins, as in the pipeline."""
    path = tmp_path / "warehouse.duckdb"
    con = open_warehouse(FileStore(path))
    con.execute("CREATE TABLE staging.half (n INTEGER)")
    again = open_warehouse(FileStore(path))
    again.execute("CREATE VIEW staging.half AS SELECT 1 AS n")
    again.close()
    con.close()
    con = connect(path, read_only=True)
    assert not query_rows(con, "FROM duckdb_tables() WHERE table_name = 'half'")
    assert not query_rows(con, "FROM duckdb_schemas() WHERE schema_name = 'staging'")
    con.close()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_kill_while_migrating_leaves_all_or_nothing(
    after_s: float, tmp_path: Path, kill_while: Callable[..., None]
) -> None:
    path = tmp_path / "w.duckdb"
    kill_while(preloaded.make_warehouse, path, after_s=after_s)
    con = open_warehouse(FileStore(path))
    views = query_rows(con, "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
    con.close()
    assert {view["view_name"] for view in views} == {
        table.name for table in TABLES.values() if table.kind == "view"
    }
    assert all(view["comment"] for view in views)


def test_a_large_commit_does_not_pass_through_the_log(tmp_path: Path) -> None:
    """A log cut off by a kill would give back its large inserts without the rest of their transaction."""
    path = tmp_path / "w.duckdb"
    con = connect(path)
    con.execute("CREATE TABLE large (n BIGINT); CREATE TABLE small (n BIGINT)")
    with commit_or_roll_back(con):
        con.execute("INSERT INTO small VALUES (1)")
        con.execute("INSERT INTO large SELECT range FROM range(1_000_000)")
    assert not Path(f"{path}.wal").exists() or Path(f"{path}.wal").stat().st_size < 1000
    con.close()
