"""What became of published figures: from one publication to another, and why.

A publication is never edited; a correction is a new one. Both keep their inputs, so what differs
between them is found by comparing them, table by table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import UsageError
from flows.publication.revisions import folder_of, publications
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


def diff(settings: Settings, before: str, after: str) -> Difference:
    """Compare two publications.

    Raises:
        UsageError: there is no such publication, or it is the same one.
    """
    old, new = folder_of(settings, before), folder_of(settings, after)
    if old == new:
        raise UsageError(f"{old.name} twice: they are one and the same", where="diff")
    con = _attached(old, new)
    try:
        return Difference(old.name, new.name, _runs(con), list(_causes(con)))
    finally:
        con.close()


def history(settings: Settings, run_id: str) -> list[dict[str, Any]]:
    """A run in every publication that has it, oldest first.

    Gives publication_id, published_at, method_version, `FIGURES`, and causes: what differs from the
    publication before.

    Raises:
        UsageError: no publication has the run.
    """
    found: list[dict[str, Any]] = []
    before: Path | None = None
    for folder in publications(settings):
        con = _attached(before or folder, folder)
        try:
            said = query_rows(
                con,
                "SELECT p.publication_id, p.published_at, p.method_version, "
                f"{', '.join(FIGURES)} FROM new.run_summary, new.publication AS p "
                "WHERE run_id = $run AND p.publication_id = $id",
                {"run": run_id, "id": folder.name},
            )
            causes = list(_causes(con)) if before is not None else []
        finally:
            con.close()
        found += [{**row, "causes": [vars(cause) for cause in causes]} for row in said]
        before = folder
    if not found:
        raise UsageError(
            f"no publication has a run {run_id!r}",
            where=str(settings.publications),
            remedy='`wattledger query "SELECT run_id FROM run_summary"` names those in force',
        )
    return found


def _attached(old: Path, new: Path) -> duckdb.DuckDBPyConnection:
    # The first of all publications has none before it, and a file can be attached only once.
    before = {} if old == new else {"old": FileStore(old / "published.duckdb")}
    return attach_read_only(new=FileStore(new / "published.duckdb"), **before)


def _runs(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Each run of either publication, with figures of both; null where it is in one only."""
    columns = ", ".join(f"o.{name} AS {name}_before, n.{name} AS {name}_after" for name in FIGURES)
    return query_rows(
        con,
        f"SELECT coalesce(n.run_id, o.run_id) AS run_id, {columns} FROM old.run_summary AS o "
        "FULL JOIN new.run_summary AS n ON n.run_id = o.run_id "
        "ORDER BY coalesce(n.started_at, o.started_at), 1",
    )


def _causes(con: duckdb.DuckDBPyConnection) -> Iterator[Cause]:
    """Inputs that differ; columns that one of the publications does not have yet are left out."""
    [(then, now)] = con.execute(
        "SELECT (SELECT method_version FROM old.computation), "
        "(SELECT method_version FROM new.computation)"
    ).fetchall()
    if then != now:
        yield Cause("computation", "method", 1, 1, f"version {then} became {now}")
    for table, (holds, wanted) in _INPUTS.items():
        known = _columns(con, "old", table)
        shared = [name for name in _columns(con, "new", table) if name in known]
        names = [name for name in wanted or shared if name in shared]
        if not names:
            continue
        columns = ", ".join(names)
        changed = f"""
            SELECT 'gone' AS side, * FROM
                (SELECT {columns} FROM old.{table} EXCEPT ALL SELECT {columns} FROM new.{table})
            UNION ALL SELECT 'new', * FROM
                (SELECT {columns} FROM new.{table} EXCEPT ALL SELECT {columns} FROM old.{table})
        """
        counts = dict(
            con.execute(f"SELECT side, count(*) FROM ({changed}) GROUP BY side").fetchall()
        )
        if counts:
            [example] = query_rows(con, f"FROM ({changed}) ORDER BY ALL DESC LIMIT 1")
            side = example.pop("side")
            said = ", ".join(
                f"{name} {value}" for name, value in example.items() if value is not None
            )
            yield Cause(
                table, holds, counts.get("gone", 0), counts.get("new", 0), f"{side}: {said[:200]}"
            )


def _columns(con: duckdb.DuckDBPyConnection, database: str, table: str) -> list[str]:
    found = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [database, table],
    ).fetchall()
    return [name for (name,) in found]
