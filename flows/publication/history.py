"""What became of published figures: from one publication to another, and why.

A publication is never edited; a correction is a new one. Both keep their inputs, so what differs
between them is found by comparing them, table by table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import UsageError
from flows.publication.folders import database_in, find_publication, list_publications
from flows.publication.held import format_row
from flows.publication.in_force import check_publication
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, attach_read_only
from transforms.figures import RESTATED

FIGURES = tuple(figure.shown_as() for figure in RESTATED if figure.since == 1)
"""Figures of run_summary that are compared; there since the first version."""

_INPUTS = {
    "segment": ("readings and other files", ("segment_id", "verdict")),
    "training_run": ("runs", ("run_id", "started_at", "ended_at", "run_model", "labels")),
    "run_allocation": (
        "allocations of GPUs",
        ("run_id", "gpu_uuid", "from_ts", "to_ts", "share_ppm"),
    ),
    "slot_signal": ("grid by slot, from its data and factors", ()),
    "site": ("sites", ()),
    "zone": ("zones", ()),
    "contract": ("contracts", ()),
    "contract_delivery": ("deliveries of contracts", ()),
    "tariff": ("tariffs", ()),
    "factor": ("factors", ("factor", "scope", "value", "low", "high")),
    "host": ("hosts", ()),
    "gpu": ("GPUs", ("gpu_uuid", "host", "model")),
}
"""Table of inputs -> what it holds, and the columns that count (none named: all of them)."""


@dataclass(frozen=True)
class Cause:
    """Rows of an input that only one of two publications has."""

    table: str
    holds: str
    gone: int
    new: int
    example: str


@dataclass(frozen=True)
class Difference:
    """Two publications: figures by run, and what of their inputs differs."""

    before: str
    after: str
    runs: list[dict[str, Any]]
    causes: list[Cause]


def compare_publications(settings: Settings, before: str, after: str) -> Difference:
    """Compare two publications, each named by its id or number.

    Raises:
        UsageError: there is no such publication, or it is the same one.
    """
    old, new = find_publication(settings, before), find_publication(settings, after)
    if old == new:
        raise UsageError(f"{old.name} twice: they are one and the same", where="diff")
    for folder in (old, new):
        check_publication(settings, folder)
    with closing(_attach_publications(old, new)) as con:
        return Difference(old.name, new.name, _compare_runs(con), list(_find_causes(con)))


def trace_run(settings: Settings, run_id: str) -> list[dict[str, Any]]:
    """Follow a run through every publication that has it, oldest first.

    Returns:
        publication_id, published_at, method_version, `FIGURES`, and causes: what differs from the
        publication before.

    Raises:
        UsageError: no publication has the run.
    """
    history: list[dict[str, Any]] = []
    before: Path | None = None
    for folder in list_publications(settings):
        check_publication(settings, folder)
        with closing(_attach_publications(before or folder, folder)) as con:
            rows = query_rows(
                con,
                "SELECT p.publication_id, p.published_at, p.method_version, "
                f"{', '.join(FIGURES)} FROM new.run_summary, new.publication AS p "
                "WHERE run_id = $run AND p.publication_id = $id",
                {"run": run_id, "id": folder.name},
            )
            causes = [vars(cause) for cause in _find_causes(con)] if before is not None else []
        history += [{**row, "causes": causes} for row in rows]
        before = folder
    if not history:
        raise UsageError(
            f"no publication has a run {run_id!r}",
            where=str(settings.publications),
            remedy='`wattledger query "SELECT run_id FROM run_summary"` names those in force',
        )
    return history


def _attach_publications(old: Path, new: Path) -> duckdb.DuckDBPyConnection:
    # The first of all publications has none before it, and a file can be attached only once.
    before = {} if old == new else {"old": FileStore(database_in(old))}
    return attach_read_only(new=FileStore(database_in(new)), **before)


def _compare_runs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Each run of either publication, with figures of both; null where it is in one only."""
    columns = ", ".join(f"o.{name} AS {name}_before, n.{name} AS {name}_after" for name in FIGURES)
    return query_rows(
        con,
        f"SELECT coalesce(n.run_id, o.run_id) AS run_id, {columns} FROM old.run_summary AS o "
        "FULL JOIN new.run_summary AS n ON n.run_id = o.run_id "
        "ORDER BY coalesce(n.started_at, o.started_at), 1",
    )


def _find_causes(con: duckdb.DuckDBPyConnection) -> Iterator[Cause]:
    """Inputs that differ; columns that one of the publications does not have yet are left out."""
    [(old_method, new_method)] = con.execute(
        "SELECT (SELECT method_version FROM old.computation), "
        "(SELECT method_version FROM new.computation)"
    ).fetchall()
    if old_method != new_method:
        yield Cause("computation", "method", 1, 1, f"version {old_method} became {new_method}")
    for table, (holds, compared) in _INPUTS.items():
        in_old = _list_columns(con, "old", table)
        shared = [name for name in _list_columns(con, "new", table) if name in in_old]
        columns = [name for name in compared or shared if name in shared]
        cause = _compare_input(con, table, holds, columns) if columns else None
        if cause is not None:
            yield cause


def _compare_input(
    con: duckdb.DuckDBPyConnection, table: str, holds: str, columns: Sequence[str]
) -> Cause | None:
    names = ", ".join(columns)
    changed = f"""
        SELECT 'gone' AS side, * FROM
            (SELECT {names} FROM old.{table} EXCEPT ALL SELECT {names} FROM new.{table})
        UNION ALL SELECT 'new', * FROM
            (SELECT {names} FROM new.{table} EXCEPT ALL SELECT {names} FROM old.{table})
    """
    counts = dict(con.execute(f"SELECT side, count(*) FROM ({changed}) GROUP BY side").fetchall())
    if not counts:
        return None
    [example] = query_rows(con, f"FROM ({changed}) ORDER BY ALL DESC LIMIT 1")
    side = example.pop("side")
    return Cause(
        table,
        holds,
        counts.get("gone", 0),
        counts.get("new", 0),
        f"{side}: {format_row(example)}",
    )


def _list_columns(con: duckdb.DuckDBPyConnection, database: str, table: str) -> list[str]:
    columns = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [database, table],
    ).fetchall()
    return [name for (name,) in columns]
