"""The registry of figures, held to the tables, the migrations and the view that show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.warehouse.connection import connect
from transforms.constants import BOUNDS
from transforms.figures import BY_NAME, ESTIMATED, FIGURES, RESTATED, SUMMED, TOTALS, Figure, Total
from transforms.schema import TABLES

MIGRATIONS = Path(__file__).parents[2] / "sql" / "migrations"


def test_names_are_given_once() -> None:
    assert len(BY_NAME) == len(FIGURES) + len(TOTALS)
    labels = [figure.label for figure in BY_NAME.values() if figure.label]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("table", ["footprint_slot", "run_footprint"])
def test_a_table_of_footprints_holds_every_figure_and_nothing_else(table: str) -> None:
    values = [c for c in TABLES[table].columns if c not in {*TABLES[table].key, "gpus"}]
    assert [c for c in values if c not in ("first_slot", "last_slot")] == list(SUMMED)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_the_migration_that_a_figure_names_adds_its_columns(figure: Figure) -> None:
    texts = [file.read_text() for file in sorted(MIGRATIONS.glob("*.sql"))]
    for column in figure.columns:
        names = [f"footprint_slot ADD COLUMN {column} ", f"    {column} BIGINT"]
        added = [n for n, text in enumerate(texts, 1) if any(name in text for name in names)]
        assert figure.since in added, column


def test_restatements_hold_each_restated_figure_before_and_after() -> None:
    columns = {f.stored(when) for f in RESTATED for when in ("_before", "_after")}
    others = {"publication_id", "previous_id", "run_id", "causes"}
    assert columns == set(TABLES["restatement"].columns) - others


def test_an_estimate_gives_figures_that_people_read() -> None:
    assert all(figure.bounded for figure in ESTIMATED)
    assert all(figure in ESTIMATED for figure in TOTALS)


def test_the_summary_of_runs_shows_every_figure_in_its_unit(demo: Path) -> None:
    """What the view computes, computed from the registry: the stored value in shown units."""
    con = connect(demo / "published" / "published.duckdb", read_only=True)
    stored = con.execute("FROM run_footprint WHERE kind = 'run' ORDER BY run_id").pl()
    shown = con.execute("FROM run_summary ORDER BY run_id").pl()
    con.close()
    assert stored.height == shown.height > 0
    for figure in BY_NAME.values():
        count = {"no": 0, "value": 1, "bounds": len(BOUNDS)}[figure.shown]
        for bound in BOUNDS[:count]:
            parts = figure.parts if isinstance(figure, Total) else (figure,)
            rows = stored.select(part.stored(bound) for part in parts).rows()
            expected = [sum(row) / figure.unit.per for row in rows]
            if figure.name == "co2e_marginal":  # Nothing is known of it without a marginal rate.
                known = (stored["marginal_mj"] > 0).to_list()
                expected = [e if k else None for e, k in zip(expected, known, strict=True)]
            assert shown[figure.shown_as(bound)].to_list() == expected, figure.shown_as(bound)
        for bound in BOUNDS[count:]:
            assert not figure.unit.shown or figure.shown_as(bound) not in shown.columns
