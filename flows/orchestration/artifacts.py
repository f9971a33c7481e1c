"""What Prefect's interface shows of a run: tables and links as artifacts, a refusal of the gate as an event."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.events import emit_event

from flows.errors import GateFailed
from flows.publication.publish import Published
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import load_query, query_rows
from flows.warehouse.registry import Outcome

GATE_FAILED = "wattledger.gate.failed"
"""Event of a publication that was refused; docs/deploy/gate_failed.py tells a webhook of it."""
_MOST = 100
"""Rows of a table artifact, at most."""


def create_files_artifact(outcomes: Sequence[Outcome]) -> None:
    """Show what was loaded and what was refused, where there was anything new."""
    rows = [
        {
            "file": outcome.path,
            "verdict": outcome.verdict,
            "rows": outcome.rows_loaded,
            "reason": outcome.reason,
        }
        for outcome in outcomes
        if outcome.verdict != "known"
    ]
    if rows:
        # Refused files are what somebody has to see.
        rows.sort(key=lambda row: row["verdict"] == "loaded")
        create_table_artifact(
            rows[:_MOST], key="wattledger-files", description=f"{len(rows)} new files"
        )


def create_publication_artifacts(published: Published) -> None:
    """Show the figures in force and where their report is."""
    con = connect(published.database, read_only=True)
    try:
        runs = query_rows(con, load_query("orchestration/runs"), {"most": _MOST})
    finally:
        con.close()
    create_table_artifact(
        runs,
        key="wattledger-runs",
        description=f"Publication {published.publication_id}: the runs that took most energy",
    )
    for key, path in (
        ("report", published.report),
        ("summary", published.summary),
        ("data-docs", published.data_docs),
    ):
        create_link_artifact(
            path.resolve().as_uri(), key=f"wattledger-{key}", description=published.publication_id
        )


def emit_gate_failed(settings: Settings, error: GateFailed) -> None:
    """Emit the event that automations wait for."""
    emit_event(
        GATE_FAILED,
        resource={
            "prefect.resource.id": f"wattledger.project.{settings.project.name}",
            "prefect.resource.name": settings.project.title or settings.project.name,
        },
        payload={"reason": str(error), "project": str(settings.root.resolve())},
    )
