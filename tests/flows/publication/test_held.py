"""Every table of the warehouse is verified, or the documentation says that it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from flows import settings as settings_module
from flows.accounting import stretches
from flows.accounting.compute import compute
from flows.errors import GateFailed, NotAsPublished
from flows.publication import held
from flows.publication.caches import check_caches
from flows.publication.held import check_ledger, check_tables
from flows.publication.publish import publish_candidate
from flows.publication.reproduction import _check_candidate, check_kept_inputs
from flows.settings import Settings
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import quote_literal
from flows.warehouse.locks import MOMENT, transaction
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import ROOT, copied, made_once, wattledger
from tests.flows.publication.helpers import list_failures, writable
from tests.flows.publication.test_verify import change_a_row, columns
from transforms.schema import TABLES

FILLED = {
    "grid_fetch": "SELECT 'f', 'p', 'XX', {at}, {at}, 'fetched', '', {at}, {at}, 1, 2, 3",
    "second_meter": "SELECT 'codecarbon', 'r1', '', {at}, {at}, 1, 2, 3, 1",
    "meter_reading": "SELECT 'pdu', 'host', 'node01', {at}, {at} + INTERVAL 1 HOUR, 5, 'f', 1",
    "collector_event": "SELECT 'node01', NULL, {at}, 'lost', '', 1",
    "gpu_instance": "SELECT 'mig', 'node01/gpu0', 500000",
    "quarantine": "SELECT 'ab', 'f', 's', 'r', 'k', {at}",
    "quarantined_row": "SELECT segment_id, 1, 'r', 'f', 'v', {at} FROM segment LIMIT 1",
    "run_record": "SELECT 'r', 'r1', 'node01', {at}, NULL, NULL, '{{}}', 'f', {at}, 1, true, 'd'",
    "host_key": "SELECT 'node01', 'k', 'first sight', '', {at}",
    "signed_segment": "SELECT segment_id, 'node01', 'k', 1, '', 's', loaded_at FROM segment LIMIT 1",
    "seen_record": "SELECT 'd', 'node01', 1, {at}, segment_id FROM segment LIMIT 1",
}
"""Table -> a row of it, where a project without collectors and providers has none."""


def fill(folder: Path) -> None:
    """A publication whose tables all hold something, with nothing loaded since."""
    project = _copy_accounted(folder)
    with open_for_writing(store_of(project)) as con, transaction(con):
        for table, row in FILLED.items():
            con.execute(f"INSERT INTO {table} {row.format(at=MOMENT)}")
    compute(project)
    path = project.root / "wattledger.toml"
    path.write_text(path.read_text() + "\n[project]\ntitle = 'filled'\n")
    project = settings_module.load(project.root)
    compute(project)
    assert publish_candidate(project).changed


_templates: list[Path] = []


def _copy_accounted(folder: Path) -> Settings:
    return copied(_templates[-1], folder)


@pytest.fixture
def filled(
    tmp_path_factory: pytest.TempPathFactory, accounted: Settings, tmp_path: Path
) -> Settings:
    _templates.append(accounted.root)
    return copied(made_once(tmp_path_factory, "filled", fill), tmp_path / "filled")


@pytest.fixture
def con(filled: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(connect_in_memory()) as con:
        con.execute(f"ATTACH {quote_literal(store_of(filled))} AS store")
        con.execute(f"ATTACH {quote_literal(filled.published_database)} AS published (READ_ONLY)")
        yield con


def list_wrong(
    con: duckdb.DuckDBPyConnection, project: Settings, *, deciding: bool = False
) -> set[str]:
    """Tables that are named; of those that decide only, where only these were changed."""
    name = project.published.resolve().name
    found = [*check_tables(con, name), *check_ledger(con, name)]
    if not deciding:
        found += [*check_kept_inputs(con, name), *_check_candidate(con, name)]
    return {one.place.split()[0] for one in found if one.ok is not True}


NO_ROWS = {"gate_override", "restatement", "rolled_up", "gpu_piece", "host_reading", "grid_mix"}
NO_ROWS |= {"contract", "contract_delivery", "contract_slot", "grid_intensity", "run_alternative"}
NO_ROWS |= {"host_slot", "kept_input"}
"""Tables that stay empty in this project."""
DECIDING = {"computation", "publication", "segment", "schema_migration", "ledger_clock", "setting"}
"""Tables by which it is decided how others are checked: changed one at a time."""
CLASSES = ("BOOLEAN", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "DOUBLE", "INT")
UNSEEN = {
    # Another check compares a publication's row with its manifest, whole.
    ("publication", "manifest_sha256"),
    # When a migration was applied is told by nothing else; the thresholds of the gate may be others by now.
    ("schema_migration", "applied_at"),
    ("setting", "value_json"),
    # The clock goes on with every transaction.
    ("ledger_clock", "moment"),
}


def list_first_columns(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, tuple[str, str]]:
    """The first column of each class that a table has: (name, type)."""
    found: dict[str, tuple[str, str]] = {}
    for name, kind in columns(con, f"store.{table}"):
        for kinds in CLASSES:
            if kinds in kind and (table, name) not in UNSEEN:
                found.setdefault(kinds, (name, kind))
    return found


def change_all(
    con: duckdb.DuckDBPyConnection, project: Settings, changes: dict[str, tuple[str, str]]
) -> set[str]:
    """The tables that are not named although a value in a column was changed."""
    con.execute("BEGIN")
    for table, (column, kind) in changes.items():
        change_a_row(con, f"store.{table}", column, kind)
    missed = changes.keys() - list_wrong(con, project, deciding=changes.keys() <= DECIDING)
    con.execute("ROLLBACK")
    return missed


def test_every_change_of_every_table_is_named(
    con: duckdb.DuckDBPyConnection, filled: Settings
) -> None:
    assert list_wrong(con, filled) == set()
    checked = [
        name
        for name, table in TABLES.items()
        if table.kind == "table"
        and name not in {*held.CACHES, *held.OUTSIDE, *held.ONLY_KEPT}
        and con.execute(f"SELECT 1 FROM store.{name} LIMIT 1").fetchall()
    ]
    empty = {
        name
        for name, table in TABLES.items()
        if table.kind == "table"
        and name not in {*checked, *held.CACHES, *held.OUTSIDE, *held.ONLY_KEPT}
    }
    assert empty <= NO_ROWS
    together = [name for name in checked if name not in DECIDING]
    for change in (
        "DELETE FROM store.{0} WHERE rowid = (SELECT min(rowid) FROM store.{0})",
        "INSERT INTO store.{0} FROM store.{0} LIMIT 1",
    ):
        for tables in (together, *([name] for name in sorted(DECIDING))):
            con.execute("BEGIN")
            for name in tables:
                con.execute(change.format(name))
            found = list_wrong(con, filled, deciding=set(tables) <= DECIDING)
            assert set(tables) <= found, (change, tables)
            con.execute("ROLLBACK")
    of_tables = {name: list_first_columns(con, name) for name in checked}
    for kinds in CLASSES:
        changes = {name: of_tables[name][kinds] for name in together if kinds in of_tables[name]}
        assert change_all(con, filled, changes) == set(), kinds
    for name in sorted(DECIDING):
        for changed in list(of_tables[name].values())[:2]:
            assert change_all(con, filled, {name: changed}) == set(), (name, changed)


def test_published_verdicts_are_still_there(
    con: duckdb.DuckDBPyConnection, filled: Settings
) -> None:
    for table in held.ONLY_KEPT:
        con.execute(f"DELETE FROM store.{table}")
    assert list_wrong(con, filled) == set(held.ONLY_KEPT)


def test_rows_added_to_growing_tables_are_named_by_their_time(
    con: duckdb.DuckDBPyConnection, filled: Settings
) -> None:
    """A row that was there before the publication was published with it; a later one may be there."""
    times = {
        table: at.removeprefix("t.")
        for table, at in held.ADDED_AT.items()
        if con.execute(f"SELECT 1 FROM store.{table}").fetchall() and table not in DECIDING
    }

    def add(table: str, at: str, later: str) -> None:
        text = next(name for name, kind in columns(con, f"store.{table}") if kind == "VARCHAR")
        changed = f"{text} || 'new' AS {text}" if table != "segment_profile" else "0 AS rows_read"
        names = {at, "last_attempt_at"} if table == "grid_fetch" else {at}
        moved = "".join(f", {name} + {later} AS {name}" for name in names) if later else ""
        con.execute(
            f"INSERT INTO store.{table} SELECT * REPLACE ({changed}{moved}) FROM store.{table} LIMIT 1"
        )

    con.execute("BEGIN")
    for table, at in times.items():
        add(table, at, "")
    assert times.keys() <= list_wrong(con, filled)
    con.execute("ROLLBACK")
    con.execute("BEGIN")
    con.execute("UPDATE store.ledger_clock SET moment = moment + INTERVAL 1 HOUR")
    dated = {table: at for table, at in times.items() if held.ADDED_AT[table].startswith("t.")}
    for table, at in dated.items():
        add(table, at, "INTERVAL 1 HOUR")
    assert len(dated) > 5
    assert dated.keys() & list_wrong(con, filled) == set()
    con.execute("ROLLBACK")


def test_every_table_is_verified_or_listed() -> None:
    """A new table has to be put somewhere, and what is outside is on the page."""
    ways = [
        set(held.ADDED_AT),
        set(held.ONLY_KEPT),
        set(held.WHILE_NOTHING_IS_LOADED),
        set(held.WITH_COMPUTATION),
        set(held.KEPT),
        set(held.WHILE_COMPUTED),
        set(held.CACHES),
        set(held.OF_LEDGER),
        set(held.OUTSIDE),
    ]
    tables = {name for name, table in TABLES.items() if table.kind == "table"}
    assert set().union(*ways) == tables
    assert sum(map(len, ways)) == len(tables), "a table is verified in one way"
    page = (ROOT / "docs" / "verification.md").read_text()
    for table in tables:
        assert f"`{table}`" in page, table


def test_later_attempts_and_replacements_are_no_forgery(
    con: duckdb.DuckDBPyConnection, filled: Settings
) -> None:
    con.execute("UPDATE store.ledger_clock SET moment = moment + INTERVAL 1 HOUR")
    later = "moment FROM store.ledger_clock"
    con.execute(
        f"UPDATE store.grid_fetch SET attempts = 2, changed = 9, last_attempt_at = (SELECT {later})"
    )
    con.execute(
        "INSERT INTO store.segment SELECT * REPLACE (99 AS segment_key, 'later' AS segment_id, 0 AS rows_loaded, "
        f"(SELECT {later}) AS loaded_at) FROM store.segment LIMIT 1"
    )
    con.execute("UPDATE store.second_meter SET gpu_mj = 7, segment_key = 99")
    con.execute("UPDATE store.meter_reading SET energy_mj = 7, segment_key = 99")
    con.execute(f"UPDATE store.run_record SET ended_at = loaded_at, loaded_at = (SELECT {later})")
    assert list_wrong(con, filled) == set()


def poison(project: Settings, change: str) -> None:
    with writable(project.root / "warehouse.duckdb") as con:
        con.execute(change)


HALF = "UPDATE segment_piece SET power_dnj = power_dnj // 2, last_c = last_c - 1000 WHERE rowid = 5"
POISONS = {
    "segment_piece": HALF,
    "device_energy": "UPDATE device_energy SET counter_mj = counter_mj // 2",
    "site_energy_slot": "UPDATE site_energy_slot SET energy_mj = energy_mj // 2",
    "energy_slot": "UPDATE energy_slot SET energy_mj = energy_mj // 2",
    "computed_power": "INSERT INTO computed_power VALUES ('main', 1, 5)",
    "computed_segment": "INSERT INTO computed_segment VALUES (77)",
    "computed_span": "UPDATE computed_span SET share_ppm = 1",
    "computed_device": "UPDATE computed_device SET facts = 'x'",
}


def test_what_is_kept_is_checked_before_it_is_used(accounted: Settings) -> None:
    compute(accounted)
    name = accounted.published.resolve().name
    warehouse = accounted.root / "warehouse.duckdb"
    sound = warehouse.read_bytes()
    for table, change in POISONS.items():
        poison(accounted, change)
        with pytest.raises(NotAsPublished, match="Run `wattledger rebuild`") as error:
            compute(accounted)
        assert f"table {table}" in str(error.value)
        found = list_failures(iter(check_caches(store_of(accounted), name)))
        assert {place for _, place in found} >= {table}, table
        warehouse.write_bytes(sound)


def test_how_stretches_are_cut_does_not_count(
    loaded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings come in batches, which end elsewhere when all of them are read again."""
    monkeypatch.setattr(stretches, "_BATCH", 97)
    compute(loaded)
    monkeypatch.undo()
    with closing(store_of(loaded).connect(read_only=True)) as con:
        [(pieces, slots)] = con.execute(
            "SELECT count(*), count(DISTINCT (gpu_key, slot)) FROM segment_piece"
        ).fetchall()
        assert pieces > slots + 10
        assert stretches.find_wrong_stretches(con) == []


def test_a_poisoned_ledger_is_rebuilt_from_readings(accounted: Settings) -> None:
    """Also where whoever did it knew how what is kept is checked."""
    before = ask_footprints(accounted)
    poison(accounted, HALF)
    poison(accounted, "DELETE FROM computed_table")
    poison(
        accounted,
        "UPDATE reduced_segment SET fingerprint = (SELECT version() || ' ' || sum(hash("
        + ", ".join(f"t.{name}" for name in TABLES["segment_piece"].columns)
        + ")) FROM segment_piece AS t)",
    )
    compute(accounted)
    assert ask_footprints(accounted) != before
    name = accounted.published.resolve().name
    found = list_failures(check_caches(store_of(accounted), name))
    assert found == {("cache", "segment_piece")}
    said = wattledger("rebuild", "--project", accounted.root)
    assert said.returncode == 0, said.stderr
    assert ask_footprints(accounted) == before
    assert list_failures(check_caches(store_of(accounted), name)) == set()
    assert publish_candidate(accounted).publication_id == name


def ask_footprints(project: Settings) -> list[tuple[object, ...]]:
    with closing(duckdb.connect(str(store_of(project)), read_only=True)) as con:
        return con.execute("FROM run_footprint ORDER BY kind, run_id").fetchall()


def test_a_candidate_that_was_changed_is_no_defect_of_the_arithmetic(accounted: Settings) -> None:
    poison(
        accounted, "UPDATE conservation SET attributed_mj = attributed_mj - 5, difference_mj = 5"
    )
    with pytest.raises(
        GateFailed, match=r"tables conservation are not what .* `wattledger rebuild`"
    ):
        publish_candidate(accounted)
