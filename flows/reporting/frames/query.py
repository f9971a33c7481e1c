"""Reports of a frame from a published file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from flows import __version__
from flows.errors import UsageError
from flows.reporting.frames.model import Frame
from flows.warehouse.frames import load_query, query_rows
from transforms.constants import BOUNDS, SLOT_US

_PERIOD_NAME = (
    "strftime(min(slot_start), '%Y-%m-%d %H:%MZ') || ' to ' || "
    "strftime(max(slot_start) + to_microseconds($slot_us), '%Y-%m-%d %H:%MZ')"
)


@dataclass(frozen=True)
class Selection:
    """A part of the ledger: slots of a period, a family or a run; all of it where left out."""

    first: datetime | None = None
    last: datetime | None = None
    family: str = ""
    run: str = ""


@dataclass(frozen=True)
class _Source:
    """Where reports are read from: what each is called, and the rows that entries are evaluated on."""

    subject: str
    rows: str
    parameters: dict[str, Any]


def query_reports(
    con: duckdb.DuckDBPyConnection, frame: Frame, selection: Selection
) -> list[dict[str, Any]]:
    """Query the reports of a frame.

    Args:
        con: A connection to a published file.
        frame: Which form.
        selection: Which part; only what the frame is about can be selected.

    Returns:
        One report for the period, or for each family or run: subject and entries, each with field,
        value, low, high, unit and remark.

    Raises:
        UsageError: nothing is published of the selection, or it does not fit the frame.
    """
    _check_selection(frame, selection)
    rows = query_rows(con, *_build_query(con, frame, selection))
    if not rows or (frame.per == "period" and rows[0]["slots"] == 0):
        raise UsageError(
            "nothing is published for that period, family or run",
            where=frame.name,
            remedy='`wattledger query "SELECT run_id, family, started_at FROM run_summary"` shows what there is',
        )
    return [
        {
            "subject": row["subject"],
            "entries": [
                {
                    "field": entry.field,
                    "value": row[f"v{n}"],
                    "low": row[f"low{n}"],
                    "high": row[f"high{n}"],
                    "unit": entry.unit,
                    "remark": entry.remark,
                }
                for n, entry in enumerate(frame.entries)
            ],
        }
        for row in rows
    ]


def query_publication(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The publication that a published file holds."""
    return query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")[0]


def _check_selection(frame: Frame, selection: Selection) -> None:
    """Refuse options that a frame has no use for."""
    useless = {
        "--from and --to": frame.per != "period" and (selection.first or selection.last),
        "--family": frame.per != "family" and selection.family,
        "--run": frame.per != "run" and selection.run,
    }
    for option, is_given in useless.items():
        if is_given:
            raise UsageError(
                f"{option} makes no sense here: it is one report a {frame.per}", where=frame.name
            )


def _build_query(
    con: duckdb.DuckDBPyConnection, frame: Frame, selection: Selection
) -> tuple[str, dict[str, Any]]:
    columns = []
    for n, entry in enumerate(frame.entries):
        columns.append(f"{entry.sql('')} AS v{n}")
        columns += [f"{entry.sql(bound)} AS {bound[1:]}{n}" for bound in BOUNDS[1:]]
    if frame.per == "period":
        columns.append("count(*) AS slots")
    source = {"period": _select_slots, "family": _select_families, "run": _select_runs}[frame.per](
        selection
    )
    listing = ", ".join(columns)
    parameters = dict(source.parameters)
    if "$version" in listing:
        parameters["version"] = __version__
    if "$publication" in listing:
        parameters["publication"] = query_publication(con)["publication_id"]
    return f"SELECT {source.subject} AS subject, {listing} FROM {source.rows}", parameters


def _select_slots(selection: Selection) -> _Source:
    conditions = ["true"]
    parameters: dict[str, Any] = {"slot_us": SLOT_US}
    if selection.first:
        conditions.append("slot_start >= $first")
        parameters["first"] = selection.first
    if selection.last:
        conditions.append("slot_start < $last")
        parameters["last"] = selection.last
    return _Source(_PERIOD_NAME, f"footprint_slot WHERE {' AND '.join(conditions)}", parameters)


def _select_families(selection: Selection) -> _Source:
    condition = "WHERE energy_kwh IS NOT NULL "
    condition += "AND family = $family " if selection.family else ""
    return _Source(
        "coalesce(family, '(no family)')",
        f"run_summary {condition}GROUP BY family ORDER BY sum(facility_kwh) DESC",
        {"family": selection.family} if selection.family else {},
    )


def _select_runs(selection: Selection) -> _Source:
    runs = load_query("reporting/runs_to_report")
    condition = "WHERE run_id = $run " if selection.run else ""
    return _Source(
        "run_id",
        f"({runs}) {condition}ORDER BY started_at, run_id",
        {"slot_us": SLOT_US, **({"run": selection.run} if selection.run else {})},
    )
