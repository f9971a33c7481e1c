"""What runs on a schedule: the flows of `flows.orchestration.pipeline`, each safe to kill, to repeat and to meet the others.

Runs of one deployment never overlap: a new one is cancelled while one is under way. Those of different
deployments wait for each other at the warehouse.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import flow
from prefect import serve as prefect_serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Cancelled
from prefect.types.entrypoint import EntrypointType

from flows.accounting.compute import Computed
from flows.errors import NotAsPublished, UsageError
from flows.ingest.fetch_prometheus import fetch_prometheus
from flows.orchestration.artifacts import create_files_artifact
from flows.orchestration.pipeline import (
    Report,
    compute_everything,
    fetch_grid_flow,
    load_everything,
    publish_flow,
    roll_up_readings,
)
from flows.orchestration.project import load_project
from flows.publication.folders import database_in
from flows.publication.in_force import find_in_force
from flows.publication.publish import Published
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.registry import Outcome


def _load_settings(project: str) -> Settings:
    """The settings of a flow on a schedule: it waits while another process writes the warehouse."""
    return load_project(project, load_project(project).schedule.wait_s)


@flow(name="wattledger-ingest")
def ingest_new_flow(project: str) -> Report:
    """Load what is new."""
    settings = _load_settings(project)
    report = load_everything(project, settings.wait_s)
    create_files_artifact(report.outcomes)
    return report


@flow(name="wattledger-footprint")
def compute_changed_flow(project: str) -> Computed:
    """Compute what changed."""
    settings = _load_settings(project)
    return compute_everything(project, settings.wait_s)


@flow(name="wattledger-publish")
def publish_current_flow(project: str) -> Published:
    """Load, compute, gate and publish, so that the publication is up to date."""
    settings = _load_settings(project)
    create_files_artifact(load_everything(project, settings.wait_s).outcomes)
    if settings.retention.roll_up_after_days is not None:
        roll_up_readings(project, settings.wait_s)
    compute_everything(project, settings.wait_s)
    return publish_flow(project, wait_s=settings.wait_s)


@flow(name="wattledger-catch-up")
def catch_up_flow(project: str) -> None:
    """After a time in which nothing ran: do once what was missed, however often it was."""
    settings = _load_settings(project)
    ingest_new_flow(project)
    if compute_changed_flow(project).readings and is_publication_due(settings):
        publish_flow(project, wait_s=settings.wait_s)


@flow(name="wattledger-backfill")
def backfill_flow(project: str, first: str, last: str, reason: str = "") -> list[Outcome]:
    """Ask the sources again for some days (ISO dates, the last included), compute and publish.

    Providers of grid data and Prometheus are asked for just these days; files are looked for as always. What is
    known already stays as it is; what is revised supersedes it, and the publication says so.
    """
    settings = _load_settings(project)
    begin, end = parse_days(first, last)
    outcomes: list[Outcome] = []
    for source in settings.input.prometheus:
        for day in range((end - begin).days):
            start = begin + timedelta(days=day)
            outcomes += fetch_prometheus(settings, source, start, start + timedelta(days=1))
    if settings.input.grid_api:
        outcomes += fetch_grid_flow(
            project, None, f"{begin:%Y-%m-%d}", f"{end:%Y-%m-%d}", settings.wait_s
        )
    outcomes += load_everything(project, settings.wait_s).outcomes
    create_files_artifact(outcomes)
    compute_everything(project, settings.wait_s)
    publish_flow(project, reason or f"back-fill of {first} to {last}", settings.wait_s)
    return outcomes


def parse_days(first: str, last: str) -> tuple[datetime, datetime]:
    """The time from the beginning of the first day (an ISO date) to the end of the last one, UTC."""
    begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
    return begin, end + timedelta(days=1)


def is_publication_due(settings: Settings, now: datetime | None = None) -> bool:
    """Whether a time to publish has passed since the last publication."""
    try:
        database = database_in(find_in_force(settings))
    except (UsageError, NotAsPublished):
        return True
    con = connect(database, read_only=True)
    try:
        [(last,)] = con.execute("SELECT max(published_at) FROM publication").fetchall()
    finally:
        con.close()
    schedule = CronSchedule(cron=settings.schedule.publish, timezone="UTC")
    [due] = asyncio.run(schedule.get_dates(1, start=last))
    return bool(due <= (now or datetime.now(UTC)))


def build_deployments(settings: Settings) -> list[RunnerDeployment]:
    """What `wattledger serve` runs, and when."""
    schedule = settings.schedule
    return [
        _build_deployment(
            settings, ingest_new_flow, interval=timedelta(minutes=schedule.ingest_min)
        ),
        _build_deployment(
            settings, compute_changed_flow, interval=timedelta(minutes=schedule.footprint_min)
        ),
        _build_deployment(settings, publish_current_flow, cron=schedule.publish),
        _build_deployment(settings, catch_up_flow),
        _build_deployment(settings, backfill_flow),
    ]


def _build_deployment(settings: Settings, flow: Any, **schedule: Any) -> RunnerDeployment:
    deployment = flow.to_deployment(
        settings.project.name,
        parameters={"project": str(settings.root.resolve())},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
        tags=["wattledger", settings.project.name],
        description=flow.description,
        **schedule,
    )
    assert isinstance(deployment, RunnerDeployment)
    return deployment


def serve_deployments(settings: Settings, started: Callable[[], None]) -> None:
    """Run the deployments until told to stop (SIGTERM, Ctrl-C); begin with what was missed.

    Args:
        settings: The project.
        started: Called when the deployments are registered.
    """
    deployments = build_deployments(settings)
    ids = register_deployments(deployments)
    catch_up_missed_runs(ids)
    started()
    with warnings.catch_warnings():
        # Prefect's runner stops itself, and its talk with a flow under way, without waiting for either.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop'", RuntimeWarning)
        prefect_serve(*deployments, pause_on_shutdown=False, print_starting_message=False)


def register_deployments(deployments: Sequence[RunnerDeployment]) -> dict[str, UUID]:
    """Register deployments, in place of those of the same names; their ids by name of the flow."""
    return {str(deployment.flow_name): UUID(str(deployment.apply())) for deployment in deployments}


def catch_up_missed_runs(ids: Mapping[str, UUID]) -> None:
    """Let one run do what was missed: those that are overdue or were killed run no more.

    Args:
        ids: Flow -> id of its deployment.
    """
    with get_client(sync_client=True) as client:
        missed = client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": list(ids.values())}}),
            flow_run_filter=FlowRunFilter.model_validate(
                {
                    "state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}},
                    "expected_start_time": {"before_": datetime.now(UTC)},
                }
            ),
        )
        for run in missed:
            client.set_flow_run_state(run.id, Cancelled(message="missed"), force=True)
        client.create_flow_run_from_deployment(ids["wattledger-catch-up"])
