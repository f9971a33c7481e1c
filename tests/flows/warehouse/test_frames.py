"""Rows go into tables by name, and what a block needs does not outlive it."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import polars as pl
import pytest

from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import insert, stage, temporary


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = connect_in_memory()
    con.execute("ATTACH ':memory:' AS staging")
    con.execute("CREATE TABLE reading (gpu VARCHAR, power_mw INTEGER, loaded_at TIMESTAMPTZ)")
    yield con
    con.close()


def test_rows_are_inserted_by_name(con: duckdb.DuckDBPyConnection) -> None:
    insert(con, "reading", [{"power_mw": 5, "gpu": "a"}, {"power_mw": 6, "gpu": "b"}])
    insert(con, "reading", pl.DataFrame({"power_mw": [7], "gpu": ["c"]}), loaded_at="now()")
    insert(con, "reading", [])
    rows = con.execute(
        "SELECT gpu, power_mw, loaded_at IS NULL FROM reading ORDER BY ALL"
    ).fetchall()
    assert rows == [("a", 5, True), ("b", 6, True), ("c", 7, False)]


@pytest.mark.parametrize(
    "rows",
    [
        pl.DataFrame({"gpu": ["a"], "energy_mj": [1]}),
        [{"gpu": "a", "energy_mj": 1}],
        [{"gpu": "a"}, {"gpu": "b", "power_mw": 1}],
        [{"gpu": "a", "power_mw": 1}, {"gpu": "b"}],
    ],
)
def test_rows_that_do_not_fit_are_refused(
    rows: pl.DataFrame | list[dict[str, object]], con: duckdb.DuckDBPyConnection
) -> None:
    """A column that the table does not have, or that only some rows have."""
    con.execute("BEGIN")
    with pytest.raises(duckdb.Error):
        insert(con, "reading", rows)
    con.execute("ROLLBACK")
    assert con.execute("FROM reading").fetchall() == []


def test_tables_of_a_block_end_with_it(con: duckdb.DuckDBPyConnection) -> None:
    frame = pl.DataFrame({"gpu": ["a", "b"]})
    with temporary(con, chosen=frame, first="SELECT min(gpu) AS gpu FROM chosen"):
        assert con.execute("FROM first").fetchall() == [("a",)]
        with stage(con, reading="FROM chosen"):
            assert con.execute("SELECT count(*) FROM staging.reading").fetchall() == [(2,)]
    assert con.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("reading",)]
