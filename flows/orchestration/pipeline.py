"""The Prefect flows: what happens, in order. Each task is a thin wrapper around a plain function.

Importing this module imports Prefect; enter `flows.orchestration.server.use_prefect_api` before.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import Flow, flow, task

from flows.accounting.compute import Computed, compute
from flows.errors import GateFailed, LakeAway, SourceError, WarehouseBusy
from flows.files import find_matching, follow_named, is_folder
from flows.ingest.fetch_grid import fetch_zone
from flows.ingest.fetch_prometheus import fetch_prometheus
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.grid_days import Span
from flows.ingest.runs import add_user_folders, ingest_runs
from flows.orchestration.artifacts import create_publication_artifacts, emit_gate_failed
from flows.orchestration.project import load_project
from flows.orchestration.provider_tasks import make_ask, set_rate_limits
from flows.publication.publish import Published, publish_candidate
from flows.publication.retention import RolledUp, roll_up_old_readings
from flows.settings import GpuInput, GridInput, PrometheusInput, RunsInput, Settings
from flows.sources.gpu import nvidia_smi
from flows.sources.grid.layouts import Options
from flows.warehouse.locks import PIPELINE, hold_lock
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_for_writing, store_of

_R = TypeVar("_R")


@dataclass
class Report:
    """What a run of the pipeline did."""

    gpu: list[Outcome] = field(default_factory=list)
    grid: list[Outcome] = field(default_factory=list)
    runs: list[Outcome] = field(default_factory=list)
    computed: Computed | None = None
    published: Published | None = None
    rolled_up: RolledUp | None = None

    @property
    def outcomes(self) -> list[Outcome]:
        return [*self.gpu, *self.grid, *self.runs]

    @property
    def refused(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.verdict in ("quarantined", "unreachable")]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _find_files(settings: Settings, patterns: Sequence[str]) -> list[Path]:
    """Files that match patterns relative to the project; none is fine for a schedule.

    A link that a pattern finds is given as itself, and refused by name; one that is configured itself is followed.
    """
    files: dict[Path, None] = {}
    for pattern in patterns:
        if glob.has_magic(pattern):
            # An absolute pattern stays as it is.
            found = find_matching(str(Path(glob.escape(str(settings.root))) / pattern))
        else:
            found = [Path(p) for p in follow_named([str(settings.root / pattern)])]
        files.update(dict.fromkeys(p for p in found if os.path.lexists(p) and not is_folder(p)))
    return list(files)


def _should_retry(task: Any, task_run: Any, state: Any) -> bool:
    """Whether to try again: the lake was away, or another process wrote to it."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, WarehouseBusy | LakeAway)


@task(
    name="load GPU readings",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_should_retry,
)
def load_gpu_files(
    project: str, source: GpuInput, files: list[Path], wait_s: float = 0.0
) -> list[Outcome]:
    settings = load_project(project, wait_s)
    options = nvidia_smi.Options(source.host, source.tz, source.model, source.gpus_per_sweep)
    return ingest_gpu(settings, files, options, source.source)


def _load_gpu_input(project: str, settings: Settings, source: GpuInput) -> list[Outcome]:
    """Load everything that an input names; on a cluster by several workers at once."""
    files = _find_files(settings, source.paths)
    if settings.cluster is None:
        return load_gpu_files(project, source, files, settings.wait_s) if files else []
    most = settings.cluster.files
    parts = [files[start : start + most] for start in range(0, len(files), most)]
    futures = [load_gpu_files.submit(project, source, part, settings.wait_s) for part in parts]
    return [outcome for future in futures for outcome in future.result()]


@task(name="fetch from Prometheus", retries=2, retry_delay_seconds=[1, 5])
def fetch_readings(project: str, source: PrometheusInput, wait_s: float = 0.0) -> list[Outcome]:
    return fetch_prometheus(load_project(project, wait_s), source)


def _fetch_prometheus_input(project: str, source: PrometheusInput, wait_s: float) -> list[Outcome]:
    """Fetch what a Prometheus has; one that cannot be reached is reported, and the rest goes on."""
    try:
        return fetch_readings(project, source, wait_s)
    except SourceError as error:
        return [Outcome(source.name, "", "unreachable", reason=str(error))]


@flow(name="fetch-grid")
def fetch_grid_flow(
    project: str,
    zones: list[str] | None = None,
    first: str = "",
    last: str = "",
    wait_s: float = 0.0,
) -> list[Outcome]:
    """Ask the providers of the zones, all of them if none is named.

    Without a span: the days that are needed and not final; with one (ISO dates, the last excluded):
    just those, again and past the cache.
    """
    settings = load_project(project, wait_s)
    sources = [s for s in settings.input.grid_api if not zones or s.zone in zones]
    if not sources:
        return []
    set_rate_limits(sources)
    span = None
    if first and last:
        begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
        span = Span(begin, end)
    ask_of = partial(make_ask, refresh=span is not None)
    names = dict.fromkeys(source.zone for source in sources)
    return [outcome for zone in names for outcome in fetch_zone(settings, zone, ask_of, span)]


@task(name="load grid data")
def load_grid_files(project: str, source: GridInput, wait_s: float = 0.0) -> list[Outcome]:
    settings = load_project(project, wait_s)
    files = _find_files(settings, source.paths)
    options = Options(source.zone, source.signal, source.unit, source.tz, source.provider)
    return ingest_grid(settings, files, options, source.layout, source.source) if files else []


@task(name="load training runs")
def load_run_files(project: str, source: RunsInput, wait_s: float = 0.0) -> list[Outcome]:
    settings = load_project(project, wait_s)
    files = _find_files(settings, add_user_folders(source.paths))
    return ingest_runs(settings, files, source.tz) if files else []


@task(name="compute footprints")
def compute_footprints(project: str, wait_s: float = 0.0) -> Computed:
    return compute(load_project(project, wait_s))


@task(name="gate and publish")
def gate_and_publish(project: str, reason: str = "", wait_s: float = 0.0) -> Published:
    return publish_candidate(load_project(project, wait_s), reason=reason)


@task(name="roll up old readings")
def roll_up_readings(project: str, wait_s: float = 0.0) -> RolledUp:
    return roll_up_old_readings(load_project(project, wait_s))


@flow(name="ingest-gpu")
def ingest_gpu_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = load_project(project, wait_s)
    outcomes: list[Outcome] = []
    for prometheus in settings.input.prometheus:
        outcomes += _fetch_prometheus_input(project, prometheus, wait_s)
    for source in settings.input.gpu:
        outcomes += _load_gpu_input(project, settings, source)
    return outcomes


@flow(name="ingest-grid")
def ingest_grid_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = load_project(project, wait_s)
    outcomes: list[Outcome] = []
    for source in settings.input.grid:
        outcomes += load_grid_files(project, source, wait_s)
    if settings.input.grid_api:
        outcomes += fetch_grid_flow(project, wait_s=wait_s)
    return outcomes


@flow(name="ingest-runs")
def ingest_runs_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = load_project(project, wait_s)
    outcomes: list[Outcome] = []
    for source in settings.input.runs:
        outcomes += load_run_files(project, source, wait_s)
    return outcomes


@flow(name="footprint")
def footprint_flow(project: str, wait_s: float = 0.0) -> Computed:
    settings = load_project(project, wait_s)
    if settings.cluster is None:
        return compute_footprints(project, wait_s)
    from flows.orchestration.dask import OnCluster

    return compute(settings, engine=OnCluster(project, settings))


@flow(name="publish")
def publish_flow(project: str, reason: str = "", wait_s: float = 0.0) -> Published:
    """Gate and publish; what was published, or why not, shows in Prefect's interface."""
    try:
        published = gate_and_publish(project, reason, wait_s)
    except GateFailed as error:
        emit_gate_failed(load_project(project, wait_s), error)
        raise
    create_publication_artifacts(published)
    return published


def _put_on_cluster(flow: Flow[[str, float], _R], settings: Settings) -> Flow[[str, float], _R]:
    """The flow with its tasks on the Dask cluster, where there is one."""
    if settings.cluster is None:
        return flow
    from flows.orchestration.dask import make_task_runner

    return flow.with_options(task_runner=make_task_runner(settings.cluster))


def load_everything(project: str, wait_s: float = 0.0) -> Report:
    """Load all that wattledger.toml names, each file once."""
    settings = load_project(project, wait_s)
    return Report(
        gpu=_put_on_cluster(ingest_gpu_flow, settings)(project, wait_s),
        grid=ingest_grid_flow(project, wait_s),
        runs=ingest_runs_flow(project, wait_s),
    )


def compute_everything(project: str, wait_s: float = 0.0) -> Computed:
    """Bring the figures up to date."""
    settings = load_project(project, wait_s)
    return _put_on_cluster(footprint_flow, settings)(project, wait_s)


@flow(name="wattledger-pipeline")
def pipeline_flow(project: str) -> Report:
    """Ingest, compute, gate, publish: everything that wattledger.toml names, in order.

    Bad files go to quarantine and the good ones go on. A failed gate raises `GateFailed` and
    leaves what was published.
    """
    settings = load_project(project)
    # Held open over the whole run: only one process may write, and it is known at the start.
    with open_for_writing(store_of(settings)) as con, hold_lock(con, PIPELINE, wait_s=0):
        report = load_everything(project)
        # Before the figures, so that the publication names what is left.
        if settings.retention.roll_up_after_days is not None:
            report.rolled_up = roll_up_readings(project)
        report.computed = compute_everything(project)
        report.published = publish_flow(project)
    return report
