"""The Prefect flows: what happens, in order. Each task is a thin wrapper around a plain function.

Importing this module imports Prefect; enter `flows.orchestration.server.prefect_api` before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import Flow, flow, task
from prefect.tasks import exponential_backoff

from flows import settings as settings_module
from flows.accounting.compute import Computed, compute
from flows.errors import GateFailed, LakeAway, SourceError, WarehouseBusy
from flows.ingest.fetch_grid import fetch_zone, request_page
from flows.ingest.fetch_prometheus import fetch_prometheus
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.grid_days import Span
from flows.ingest.runs import ingest_runs
from flows.orchestration import artifacts
from flows.orchestration.secrets import read_secret_block
from flows.publication.publish import Published, publish_candidate
from flows.publication.retention import RolledUp, roll_up_old_readings
from flows.settings import GpuInput, GridApiInput, GridInput, PrometheusInput, RunsInput, Settings
from flows.sources.gpu import nvidia_smi
from flows.sources.grid.layouts import Options
from flows.sources.grid.providers.base import Ask, Page, Request
from flows.sources.grid.providers.registry import load_provider
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


def _inputs(settings: Settings, patterns: list[str]) -> list[Path]:
    """Files that match patterns relative to the project; nothing there is fine for a schedule."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        base = Path(pattern)
        matches = (
            sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
            if base.is_absolute()
            else sorted(settings.root.glob(pattern))
        )
        found.update(dict.fromkeys(path for path in matches if path.is_file()))
    return list(found)


def _may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether it may be done again: the lake was away, or another process was at it."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, WarehouseBusy | LakeAway)


@task(
    name="load GPU readings",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_may_pass,
)
def load_gpu(
    project: str, given: GpuInput, files: list[Path], wait_s: float = 0.0
) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    options = nvidia_smi.Options(given.host, given.tz, given.model, given.gpus_per_sweep)
    return ingest_gpu(settings, files, options, given.source)


def _load_gpu(project: str, settings: Settings, given: GpuInput) -> list[Outcome]:
    """Everything that an input names; on a cluster by several workers at once."""
    files = _inputs(settings, given.paths)
    if settings.cluster is None:
        return load_gpu(project, given, files, settings.wait_s) if files else []
    most = settings.cluster.files
    parts = [files[at : at + most] for at in range(0, len(files), most)]
    waiting = [load_gpu.submit(project, given, part, settings.wait_s) for part in parts]
    return [outcome for one in waiting for outcome in one.result()]


@task(name="fetch from Prometheus", retries=2, retry_delay_seconds=[1, 5])
def fetch_readings(project: str, given: PrometheusInput, wait_s: float = 0.0) -> list[Outcome]:
    return fetch_prometheus(settings_module.load(Path(project), wait_s), given)


def _fetch(project: str, given: PrometheusInput, wait_s: float) -> list[Outcome]:
    """What a Prometheus has; one that can't be reached is reported, and the rest goes on."""
    try:
        return fetch_readings(project, given, wait_s)
    except SourceError as error:
        return [Outcome(given.name, "", "unreachable", reason=str(error))]


def _asker(source: GridApiInput, *, refresh: bool) -> Ask:
    """Asks a provider page by page: each page a Prefect task with its own retries and cache."""

    def may_retry(task: Any, task_run: Any, state: Any) -> bool:
        error = state.result(raise_on_failure=False)
        if not isinstance(error, SourceError) or not error.transient:
            return False
        wait = error.retry_after_s or 0.0
        if wait > source.max_wait_s:
            return False
        time.sleep(wait)
        return True

    page = ask_provider.with_options(
        retries=source.retries,
        retry_delay_seconds=exponential_backoff(0.5)(source.retries) or 0,
        retry_jitter_factor=0.5,
        retry_condition_fn=may_retry,
        cache_expiration=timedelta(minutes=source.cache_min),
        refresh_cache=refresh,
        name=f"ask {source.name} about {source.zone}",
    )
    return lambda request: page(source, request)


def _request_key(context: Any, given: dict[str, Any]) -> str:
    """The same request to the same provider is answered from the cache."""
    return f"{given['source'].provider}-{given['request'].key}"


@task(name="ask a provider", cache_key_fn=_request_key, persist_result=True)
def ask_provider(source: GridApiInput, request: Request) -> Page:
    """One page. The secret is looked up here, and is in no argument or result."""
    from prefect.concurrency.sync import rate_limit

    rate_limit(_limit_name(source), strict=False)
    return request_page(source, request, read_secret_block)


def _limit_name(source: GridApiInput) -> str:
    return f"wattledger-{source.provider}"


def _set_limits(sources: Sequence[GridApiInput]) -> None:
    """Requests per second as global concurrency limits of Prefect; one that exists stands."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for source in sources:
            name = _limit_name(source)
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                rate = source.requests_per_s or load_provider(source.provider).requests_per_s
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(
                        name=name, limit=max(1, math.ceil(rate)), slot_decay_per_second=rate
                    )
                )


@flow(name="fetch-grid")
def fetch_grid_flow(
    project: str,
    zones: list[str] | None = None,
    first: str = "",
    last: str = "",
    wait_s: float = 0.0,
) -> list[Outcome]:
    """Ask the providers of the zones, all of them if none is named.

    Without a span the days that are needed and not final; with one (ISO dates, the last excluded)
    just those, again and past the cache.
    """
    settings = settings_module.load(Path(project), wait_s)
    sources = [s for s in settings.input.grid_api if not zones or s.zone in zones]
    if not sources:
        return []
    _set_limits(sources)
    span = None
    if first and last:
        begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
        span = Span(begin, end)
    ask = partial(_asker, refresh=span is not None)
    found = dict.fromkeys(source.zone for source in sources)
    return [outcome for zone in found for outcome in fetch_zone(settings, zone, ask, span)]


@task(name="load grid data")
def load_grid(project: str, given: GridInput, wait_s: float = 0.0) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    files = _inputs(settings, given.paths)
    options = Options(given.zone, given.signal, given.unit, given.tz, given.provider)
    return ingest_grid(settings, files, options, given.layout, given.source) if files else []


@task(name="load training runs")
def load_runs(project: str, given: RunsInput, wait_s: float = 0.0) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    files = _inputs(settings, given.paths)
    return ingest_runs(settings, files, given.tz) if files else []


@task(name="compute footprints")
def compute_footprints(project: str, wait_s: float = 0.0) -> Computed:
    return compute(settings_module.load(Path(project), wait_s))


@task(name="gate and publish")
def gate_and_publish(project: str, reason: str = "", wait_s: float = 0.0) -> Published:
    return publish_candidate(settings_module.load(Path(project), wait_s), reason=reason)


@task(name="roll up old readings")
def roll_up_readings(project: str, wait_s: float = 0.0) -> RolledUp:
    return roll_up_old_readings(settings_module.load(Path(project), wait_s))


@flow(name="ingest-gpu")
def ingest_gpu_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    fetched = [o for given in settings.input.prometheus for o in _fetch(project, given, wait_s)]
    return fetched + [
        o for given in settings.input.gpu for o in _load_gpu(project, settings, given)
    ]


@flow(name="ingest-grid")
def ingest_grid_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    loaded = [o for given in settings.input.grid for o in load_grid(project, given, wait_s)]
    return loaded + (fetch_grid_flow(project, wait_s=wait_s) if settings.input.grid_api else [])


@flow(name="ingest-runs")
def ingest_runs_flow(project: str, wait_s: float = 0.0) -> list[Outcome]:
    settings = settings_module.load(Path(project), wait_s)
    return [o for given in settings.input.runs for o in load_runs(project, given, wait_s)]


@flow(name="footprint")
def footprint_flow(project: str, wait_s: float = 0.0) -> Computed:
    settings = settings_module.load(Path(project), wait_s)
    if settings.cluster is None:
        return compute_footprints(project, wait_s)
    from flows.orchestration.dask import OnCluster

    return compute(settings, engine=OnCluster(project, settings))


@flow(name="publish")
def publish_flow(project: str, reason: str = "", wait_s: float = 0.0) -> Published:
    """Gate and publish; what was published, or why not, shows in Prefect's interface."""
    try:
        done = gate_and_publish(project, reason, wait_s)
    except GateFailed as error:
        artifacts.refused(settings_module.load(Path(project), wait_s), error)
        raise
    artifacts.published(done)
    return done


def _spread(one: Flow[[str, float], _R], settings: Settings) -> Flow[[str, float], _R]:
    """A flow with its tasks on the Dask cluster, where there is one."""
    if settings.cluster is None:
        return one
    from flows.orchestration.dask import runner

    return one.with_options(task_runner=runner(settings.cluster))


def load_everything(project: str, wait_s: float = 0.0) -> Report:
    """All that wattledger.toml names, each file once."""
    settings = settings_module.load(Path(project), wait_s)
    return Report(
        gpu=_spread(ingest_gpu_flow, settings)(project, wait_s),
        grid=ingest_grid_flow(project, wait_s),
        runs=ingest_runs_flow(project, wait_s),
    )


def compute_everything(project: str, wait_s: float = 0.0) -> Computed:
    """Bring the figures up to date."""
    settings = settings_module.load(Path(project), wait_s)
    return _spread(footprint_flow, settings)(project, wait_s)


@flow(name="wattledger-pipeline")
def pipeline(project: str) -> Report:
    """Ingest, compute, gate, publish: everything that wattledger.toml names, in order.

    Bad files go to quarantine and the good ones go on. A failed gate raises `GateFailed` and
    leaves what was published.
    """
    settings = settings_module.load(Path(project))
    # Held open over the whole run: only one process may write, and it is known at the start.
    with open_for_writing(store_of(settings)) as con, hold_lock(con, PIPELINE, wait_s=0):
        report = load_everything(project)
        # Before the figures, so that the publication names what is left.
        if settings.retention.roll_up_after_days is not None:
            report.rolled_up = roll_up_readings(project)
        report.computed = compute_everything(project)
        report.published = publish_flow(project)
    return report
