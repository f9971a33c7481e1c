"""The ledger's clock: what is known when is in the order of its moments, whatever the clocks of machines show."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from flows.accounting.compute import compute
from flows.errors import WarehouseDamaged
from flows.ingest.grid import ingest_grid
from flows.publication.publish import publish_candidate
from flows.publication.recompute import recompute_publication
from flows.publication.verify import verify_ledger
from flows.settings import Settings
from flows.warehouse.locks import MOMENT, measure_clock_lead, transaction
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import ROOT, grid_csv
from tests.flows.publication.helpers import ask_published, list_failures

LOADED = {
    "segment": "loaded_at",
    "training_run": "loaded_at",
    "run_allocation": "loaded_at",
    "grid_intensity": "fetched_at",
    "ledger_clock": "moment",
}


def set_clock_back(project: Settings, hours: int = 3) -> None:
    """As if what is stored had been stored by a clock that was ahead, and was then set right."""
    with open_for_writing(store_of(project)) as con:
        for table, column in LOADED.items():
            con.execute(f"UPDATE {table} SET {column} = {column} + to_hours({hours})")


def take_moments(con: duckdb.DuckDBPyConnection, count: int) -> list[datetime]:
    moments = []
    for _ in range(count):
        with transaction(con):
            moments.append(con.execute(f"SELECT {MOMENT}").fetchall()[0][0])
    return moments


def test_a_clock_that_was_set_back_changes_no_order(loaded: Settings) -> None:
    set_clock_back(loaded)
    compute(loaded)
    published = publish_candidate(loaded)
    assert [warning for warning in published.warnings if "ahead of this machine's clock" in warning]
    assert list_failures(verify_ledger(loaded)) == set()
    assert recompute_publication(loaded, "0001").identical
    # Another machine, whose clock is ahead, and then this one again.
    with open_for_writing(store_of(loaded)) as con:
        con.execute("UPDATE ledger_clock SET moment = moment + INTERVAL 3 HOUR")
    ingest_grid(loaded, [grid_csv(loaded.root, [100, 200, 301, 400])])
    compute(loaded)
    assert publish_candidate(loaded).changed
    assert list_failures(verify_ledger(loaded, every=True)) == set()
    [row] = ask_published(loaded, "SELECT count(*) AS n FROM restatement WHERE causes = 'grid'")
    assert row["n"] == 1


def test_moments_never_go_back(project: Settings) -> None:
    with open_for_writing(store_of(project)) as con:
        assert measure_clock_lead(con) == 0
        before = take_moments(con, 3)
        con.execute("UPDATE ledger_clock SET moment = moment + INTERVAL 3 HOUR")
        moments = take_moments(con, 3)
        assert 10_790 < measure_clock_lead(con) < 10_810
    assert [*before, *moments] == sorted({*before, *moments})
    with open_for_writing(store_of(project)) as con:
        assert take_moments(con, 1)[0] > moments[-1]


def test_a_transaction_that_fails_takes_no_moment(project: Settings) -> None:
    with open_for_writing(store_of(project)) as con:
        [first] = take_moments(con, 1)
        with pytest.raises(ZeroDivisionError), transaction(con):
            raise ZeroDivisionError
        assert con.execute("SELECT moment FROM ledger_clock").fetchall() == [(first,)]


@pytest.mark.parametrize("change", ["DELETE FROM", "INSERT INTO ledger_clock FROM"])
def test_a_ledger_without_one_clock_is_damaged(change: str, project: Settings) -> None:
    with open_for_writing(store_of(project)) as con:
        con.execute(f"{change} ledger_clock")
        with pytest.raises(WarehouseDamaged, match="ledger_clock has"), transaction(con):
            pass


def test_the_clock_of_an_older_warehouse_starts_at_the_last_time_stored(loaded: Settings) -> None:
    """As the migration finds it."""
    text = (ROOT / "sql/migrations/0010_ledger_clock.sql").read_text()
    insertion = re.search(r"INSERT INTO ledger_clock.*?;", text, re.DOTALL)
    assert insertion
    with closing(duckdb.connect(str(store_of(loaded)))) as con:
        con.execute("DELETE FROM ledger_clock")
        con.execute(
            "UPDATE grid_intensity SET superseded_at = TIMESTAMPTZ '2099-01-01 00:00:00+00'"
        )
        con.execute(insertion.group())
        [(moment,)] = con.execute("SELECT moment FROM ledger_clock").fetchall()
    assert moment.year in (2098, 2099)


def test_nothing_that_is_stored_comes_from_a_machine_clock() -> None:
    """Times of rows come from `MOMENT`: what compares them relies on their order."""
    stored = re.compile(r"_at\W{1,8}(now\(\)|datetime\.now)|now\(\) AS \w+_at")
    allowed = {
        "flows/warehouse/schema.py",  # The migrations are older than the clock.
        "flows/cli/run_summary.py",  # A warehouse in memory that nothing outlives.
    }
    for folder in ("flows", "sql/queries", "expectations"):
        for path in (ROOT / folder).rglob("*.*"):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix not in (".py", ".sql") or name.startswith("flows/node/"):
                continue
            found = stored.search(path.read_text())
            assert found is None or name in allowed, (name, found)
    assert Path(ROOT / "flows/warehouse/locks.py").read_text().count("now()") == 2
