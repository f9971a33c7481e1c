"""Run a flow to its end: a Prefect server is there while it runs.

Importing this module does not import Prefect, which must see the server's settings first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.errors import PipelineFailed
from flows.orchestration.project import serve_only
from flows.orchestration.server import use_prefect_api
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.orchestration.pipeline import Report
    from flows.warehouse.registry import Outcome


def run_pipeline(settings: Settings) -> Report:
    """Load what is new, compute, check and publish.

    Raises:
        GateFailed: a check refused; what was published stands.
        PipelineFailed: Prefect failed.
    """
    with use_prefect_api(settings):
        from prefect.exceptions import PrefectException

        from flows.orchestration.pipeline import pipeline_flow

        try:
            return pipeline_flow(_project(settings))
        except PrefectException as error:
            raise PipelineFailed(
                f"Prefect: {error}", remedy="Run it again; see .wattledger/prefect/server.log"
            ) from None


def fetch_grid(
    settings: Settings, zones: list[str] | None = None, first: str = "", last: str = ""
) -> list[Outcome]:
    """Ask grid providers for what is missing.

    Args:
        settings: The project.
        zones: Grid zones; None for all of them.
        first: First day to ask for, as an ISO date; empty for what is needed and not final.
        last: The day after the last one; empty with `first`.
    """
    with use_prefect_api(settings):
        from flows.orchestration.pipeline import fetch_grid_flow

        return fetch_grid_flow(_project(settings), zones, first, last)


def backfill_days(settings: Settings, first: str, last: str, reason: str = "") -> list[Outcome]:
    """Ask the sources again for past days, compute and publish.

    Args:
        settings: The project.
        first: First day, as an ISO date.
        last: Last day, included.
        reason: Kept with the publication.
    """
    with use_prefect_api(settings):
        from flows.orchestration.deployments import backfill_flow

        return backfill_flow(_project(settings), first, last, reason)


def serve_on_schedule(settings: Settings, started: Callable[[str], None]) -> None:
    """Run the deployments until told to stop.

    Args:
        settings: The project, with its `schedule`.
        started: Called with the address of Prefect's interface once the deployments are there.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    serve_only(settings)
    with use_prefect_api(settings, lasting=True) as api:
        from flows.orchestration.deployments import serve_deployments

        serve_deployments(settings, lambda: started(api.removesuffix("/api")))


def _project(settings: Settings) -> str:
    return str(settings.root.resolve())
