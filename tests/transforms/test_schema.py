"""The schema: every table has a role and a key, and what is declared of it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.publication import history
from flows.warehouse import digests
from flows.warehouse.connection import connect
from transforms.schema import TABLES, Table, in_role, that_change
from transforms.schema.fields import FIELDS, figures, grid, ledger, readings, views

SQL = Path(__file__).parents[2] / "sql"


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_declaration_names_columns_of_its_own(table: Table) -> None:
    named = {*table.key, *table.digested} - {"*"} | {table.known_since, table.part} - {""}
    assert named <= set(table.columns)
    assert len(set(table.columns)) == len(table.columns)
    assert (table.role == "view") == (table.kind == "view")


def test_a_column_is_described_once_and_belongs_to_a_table() -> None:
    parts = [
        field.name for part in (readings, grid, figures, ledger, views) for field in part.FIELDS
    ]
    assert len(parts) == len(set(parts))
    assert set(FIELDS) == {name for table in TABLES.values() for name in table.columns}


def test_the_header_of_a_view_says_its_grain_and_its_key() -> None:
    files = sorted((SQL / "views").glob("*.sql"))
    assert len(files) == len(in_role("view"))
    for file in files:
        grain, keys, owner, *_ = file.read_text().splitlines()
        table = TABLES[file.stem.split("_", 1)[1]]
        assert grain == f"-- grain: {table.grain}"
        assert keys == f"-- keys: {', '.join(table.key)}"
        assert owner.startswith("-- owner: ")


@pytest.mark.parametrize("file", ["warehouse.duckdb", "published/published.duckdb"])
def test_rows_in_force_have_each_key_once(demo: Path, file: str) -> None:
    con = connect(demo / file, read_only=True)
    published = file != "warehouse.duckdb"
    for table in TABLES.values():
        if published and table.published == "no":
            continue
        where = table.where_in_force
        key = ", ".join(table.key) or "1"
        repeated = con.execute(
            f"SELECT {key}, count(*) FROM {table.name} {where} GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
        assert not repeated, f"{table.name}: {repeated}"
    con.close()


def test_a_published_file_holds_the_tables_that_say_so(demo: Path) -> None:
    con = connect(demo / "published" / "published.duckdb", read_only=True)
    names = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal "
        "UNION SELECT view_name FROM duckdb_views() WHERE NOT internal"
    ).fetchall()
    con.close()
    assert {name for (name,) in names} == {
        table.name for table in TABLES.values() if table.published != "no"
    }


def test_the_digest_of_inputs_covers_them_in_this_order() -> None:
    """Another order gives another digest: figures would then seem older than their data."""
    assert [query.split(" FROM ")[1].split()[0] for query in digests._INPUTS] == [
        "segment",
        "training_run",
        "run_allocation",
        "gpu",
        "site",
        "zone",
        "contract",
        "contract_delivery",
        "tariff",
        "host",
    ]


def test_what_figures_rest_on_is_kept_by_digest_or_published() -> None:
    for name in in_role("readings", "grid", "input", "configured"):
        kept = name in that_change("by_roll_up", "by_revision")
        assert kept or TABLES[name].published != "no", name


def test_every_published_input_can_be_a_cause_of_other_figures() -> None:
    """Grid data stands as what it came to in each slot; profiles of files follow from the files."""
    assert set(history._INPUTS) == {*in_role("input", "configured"), "slot_signal"} - {
        "segment_profile"
    }


def test_no_sql_but_migrations_knows_the_length_of_a_slot() -> None:
    """It is `transforms.constants.SLOT_US`; views and queries take it as $slot_us."""
    literal = re.compile(r"300_?000_?000|300e6|INTERVAL '?5'? ?MINUTE", re.IGNORECASE)
    files = [file for folder in ("views", "queries") for file in (SQL / folder).rglob("*.sql")]
    assert files
    assert not [file.name for file in files if literal.search(file.read_text())]
