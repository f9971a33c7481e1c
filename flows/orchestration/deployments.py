"""What runs on a schedule: the flows of `flows.orchestration.pipeline`, each safe to kill, to repeat and to meet the others.

Runs of one deployment never overlap: a new one is cancelled while one is under way. Those of different
deployments wait for each other at the warehouse.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
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

from flows import settings as settings_module
from flows.accounting.compute import Computed
from flows.ingest.fetch_prometheus import fetch_prometheus
from flows.orchestration import artifacts
from flows.orchestration.pipeline import (
    Report,
    compute_everything,
    fetch_grid_flow,
    load_everything,
    publish_flow,
    roll_up_readings,
)
from flows.publication.publish import Published
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.registry import Outcome


def _load_settings(project: str) -> Settings:
    """The settings of a flow on a schedule: it waits while another process writes the warehouse."""
    wait_s = settings_module.load(Path(project)).schedule.wait_s
    return settings_module.load(Path(project), wait_s)


@flow(name="wattledger-ingest")
def ingest(project: str) -> Report:
    """Load what is new."""
    settings = _load_settings(project)
    report = load_everything(project, settings.wait_s)
    artifacts.loaded(report.outcomes)
    return report


@flow(name="wattledger-footprint")
def footprint(project: str) -> Computed:
    """Compute what changed."""
    settings = _load_settings(project)
    return compute_everything(project, settings.wait_s)


@flow(name="wattledger-publish")
def publish(project: str) -> Published:
    """Load, compute, gate and publish, so that what is published is of now."""
    settings = _load_settings(project)
    artifacts.loaded(load_everything(project, settings.wait_s).outcomes)
    if settings.retention.roll_up_after_days is not None:
        roll_up_readings(project, settings.wait_s)
    compute_everything(project, settings.wait_s)
    return publish_flow(project, wait_s=settings.wait_s)


@flow(name="wattledger-catch-up")
def catch_up(project: str) -> None:
    """After a time in which nothing ran: once what was missed, however often it was."""
    settings = _load_settings(project)
    ingest(project)
    if footprint(project).readings and publication_is_due(settings):
        publish_flow(project, wait_s=settings.wait_s)


@flow(name="wattledger-backfill")
def backfill(project: str, first: str, last: str, reason: str = "") -> list[Outcome]:
    """Ask the sources again for some days (ISO dates, the last included), compute and publish.

    Providers of grid data and Prometheus are asked for just these days; files are looked for as always. What is
    known already stays as it is; what is revised supersedes it, and the publication says so.
    """
    settings = _load_settings(project)
    begin, end = days(first, last)
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
    artifacts.loaded(outcomes)
    compute_everything(project, settings.wait_s)
    publish_flow(project, reason or f"back-fill of {first} to {last}", settings.wait_s)
    return outcomes


def days(first: str, last: str) -> tuple[datetime, datetime]:
    """The time from the first day to the end of the last one, UTC."""
    begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
    return begin, end + timedelta(days=1)


def publication_is_due(settings: Settings, now: datetime | None = None) -> bool:
    """Whether a time to publish has passed since the last publication."""
    if not settings.published_database.exists():
        return True
    con = connect(settings.published_database, read_only=True)
    try:
        [(last,)] = con.execute("SELECT max(published_at) FROM publication").fetchall()
    finally:
        con.close()
    schedule = CronSchedule(cron=settings.schedule.publish, timezone="UTC")
    [then] = asyncio.run(schedule.get_dates(1, start=last))
    return bool(then <= (now or datetime.now(UTC)))


def deployments(settings: Settings) -> list[RunnerDeployment]:
    """What `wattledger serve` runs, and when."""
    when = settings.schedule
    project = str(settings.root.resolve())
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)

    def one(of: Any, **schedule: Any) -> RunnerDeployment:
        found = of.to_deployment(
            f"{settings.project.name}",
            parameters={"project": project},
            concurrency_limit=alone,
            entrypoint_type=EntrypointType.MODULE_PATH,
            tags=["wattledger", settings.project.name],
            description=of.description,
            **schedule,
        )
        assert isinstance(found, RunnerDeployment)
        return found

    return [
        one(ingest, interval=timedelta(minutes=when.ingest_min)),
        one(footprint, interval=timedelta(minutes=when.footprint_min)),
        one(publish, cron=when.publish),
        one(catch_up),
        one(backfill),
    ]


def serve(settings: Settings, started: Callable[[], None]) -> None:
    """Run the deployments until told to stop (SIGTERM, Ctrl-C); begin with what was missed."""
    found = deployments(settings)
    ids = {one.flow_name: UUID(str(one.apply())) for one in found}
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
            # One run does for all of them; those that were killed run no more.
            client.set_flow_run_state(run.id, Cancelled(message="missed"), force=True)
        client.create_flow_run_from_deployment(ids["wattledger-catch-up"])
    started()
    with warnings.catch_warnings():
        # Prefect's runner stops itself, and its talk with a flow under way, without waiting for either.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop'", RuntimeWarning)
        prefect_serve(*found, pause_on_shutdown=False, print_starting_message=False)
