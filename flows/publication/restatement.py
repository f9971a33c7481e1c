"""What a candidate restates of the publication in force: by run, with the inputs that changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from flows.warehouse.frames import load_query, quote_literal
from transforms.figures import RESTATED

FIGURES = tuple(figure.stored() for figure in RESTATED)
"""Figures of run_footprint whose change restates a run."""


def stage_restatement(con: duckdb.DuckDBPyConnection, database: Path | None) -> None:
    """Write staging.restatement: the table `restatement` of the candidate, without publication_id.

    Args:
        con: The warehouse, with the candidate.
        database: The file of the publication in force; without one there is nothing to restate.
    """
    con.execute(
        "CREATE OR REPLACE TABLE staging.restatement AS "
        "SELECT * EXCLUDE (publication_id) FROM main.restatement LIMIT 0"
    )
    if database is None:
        return
    con.execute(f"ATTACH {quote_literal(database)} AS published (READ_ONLY)")
    try:
        description = con.execute("DESCRIBE published.run_footprint").fetchall()
        columns = {name for name, *_ in description}
        figures = [name for name in FIGURES if name in columns]
        con.execute(_insert_changed_runs(figures, _select_causes(con)))
    finally:
        con.execute("DETACH published")


def _select_causes(con: duckdb.DuckDBPyConnection) -> str:
    """SQL: runs with the causes for which their figures may have changed."""
    [(same_method,)] = con.execute(
        "SELECT (SELECT method_version FROM main.computation) "
        "= (SELECT method_version FROM published.computation)"
    ).fetchall()
    if same_method:
        return load_query("publication/restatement_causes")
    # Older methods have other tables; the method alone is cause enough.
    return "SELECT run_id, 'method' AS cause FROM main.run_footprint"


def _insert_changed_runs(figures: Sequence[str], causes: str) -> str:
    """SQL: write the runs with other figures, before and after, and why."""
    pairs = ", ".join(
        f"before.{name} AS {_name_at('before', name)}, after.{name} AS {_name_at('after', name)}"
        for name in figures
    )
    differs = " OR ".join(f"before.{name} IS DISTINCT FROM after.{name}" for name in figures)
    return f"""
        INSERT INTO staging.restatement BY NAME
        SELECT (SELECT max_by(publication_id, sequence) FROM published.publication) AS previous_id,
            coalesce(after.run_id, before.run_id) AS run_id, {pairs}, coalesce(causes, '') AS causes
        FROM (FROM published.run_footprint WHERE kind = 'run') AS before
        FULL JOIN (FROM main.run_footprint WHERE kind = 'run') AS after
            ON after.run_id = before.run_id
        LEFT JOIN (
            SELECT run_id, string_agg(cause, ', ' ORDER BY cause) AS causes
            FROM ({causes}) GROUP BY run_id
        ) AS caused ON caused.run_id = coalesce(after.run_id, before.run_id)
        WHERE {differs}
        ORDER BY 2
    """


def _name_at(time: str, figure: str) -> str:
    """Column of a figure before or after: `co2e_before_ug`, `co2e_after_ug`."""
    head, unit = figure.rsplit("_", 1)
    return f"{head}_{time}_{unit}"
