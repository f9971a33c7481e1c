"""What Prefect's interface shows of a run: tables and links as artifacts, a refusal of the gate as an event."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.events import emit_event

from flows.errors import GateFailed
from flows.publication.publish import Published
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.registry import Outcome

GATE_FAILED = "wattledger.gate.failed"
"""Event of a publication that was refused; docs/deploy/gate_failed.py tells a webhook of it."""
_MOST = 100
_RUNS = f"""
    SELECT run_id, round(energy_kwh, 3) AS energy_kwh, round(facility_kwh, 3) AS facility_kwh,
        round(co2e_kg, 3) AS co2e_kg, round(co2e_low_kg, 3) AS co2e_low_kg,
        round(co2e_high_kg, 3) AS co2e_high_kg, round(water_onsite_l + water_offsite_l, 3) AS water_l,
        round(energy_measured_share, 3) AS energy_measured_share
    FROM run_summary ORDER BY energy_kwh DESC LIMIT {_MOST}
"""


def loaded(outcomes: list[Outcome]) -> None:
    """What was loaded and what was refused, where there was anything new."""
    found = [
        {"file": one.path, "verdict": one.verdict, "rows": one.rows_loaded, "reason": one.reason}
        for one in outcomes
        if one.verdict != "known"
    ]
    if found:
        # Refused files are what somebody has to see.
        found.sort(key=lambda row: row["verdict"] == "loaded")
        create_table_artifact(
            found[:_MOST], key="wattledger-files", description=f"{len(found)} new files"
        )


def published(done: Published) -> None:
    """The figures in force and where their report is."""
    con = connect(done.database, read_only=True)
    try:
        runs = query_rows(con, _RUNS)
    finally:
        con.close()
    create_table_artifact(
        runs,
        key="wattledger-runs",
        description=f"Publication {done.publication_id}: the runs that took most energy",
    )
    for key, path in (
        ("report", done.report),
        ("summary", done.summary),
        ("data-docs", done.data_docs),
    ):
        create_link_artifact(
            path.resolve().as_uri(), key=f"wattledger-{key}", description=done.publication_id
        )


def refused(settings: Settings, error: GateFailed) -> None:
    """The event that automations wait for."""
    emit_event(
        GATE_FAILED,
        resource={
            "prefect.resource.id": f"wattledger.project.{settings.project.name}",
            "prefect.resource.name": settings.project.title or settings.project.name,
        },
        payload={"reason": str(error), "project": str(settings.root.resolve())},
    )
