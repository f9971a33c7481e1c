"""Fetch readings from other meters into files of the project, which are then loaded like all others.

What was fetched stays under `fetched/`, so figures can be recomputed without the source.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import PrometheusInput, Settings
from flows.sources.gpu import prometheus, segments
from flows.sources.gpu.prometheus import Hold
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_for_writing, store_of
from wattledger.meters import dcgm
from wattledger.runs.records import Record

_SETTLE = timedelta(seconds=30)
"""Scrapes of the last seconds may still be on their way."""


def fetch_prometheus(
    settings: Settings,
    source: PrometheusInput,
    first: datetime | None = None,
    last: datetime | None = None,
) -> list[Outcome]:
    """Fetch, keep and load what one Prometheus has.

    Args:
        settings: The project.
        source: The Prometheus.
        first: Begin of the time to ask for; where the last fetch ended, if left out.
        last: Its end; now, if left out.

    Returns:
        What became of the readings, and of the runs that held the GPUs.

    Raises:
        SourceError: Prometheus does not answer or refuses; what was loaded before stands.
        SettingsError: a token is missing.
    """
    folder = settings.root / "fetched" / source.name
    end = last or datetime.now(UTC) - _SETTLE
    begin = (
        first or _find_last_reading(settings, folder) or end - timedelta(hours=source.lookback_h)
    )
    if begin >= end:
        return []
    series = prometheus.fetch(source, begin, end)
    if series.readings.is_empty():
        return []
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    path = folder / f"{begin:%Y%m%dT%H%M%S}Z-{end:%Y%m%dT%H%M%S}Z.parquet"
    segments.write(series.readings, path)
    outcomes = ingest_gpu(settings, [path])
    records = [_make_record(hold, source).save(folder / "runs") for hold in series.holds]
    return outcomes + (ingest_runs(settings, records) if records else [])


def _find_last_reading(settings: Settings, folder: Path) -> datetime | None:
    """The time of the last reading that was fetched before."""
    with open_for_writing(store_of(settings)) as con:
        [(last,)] = con.execute(
            "SELECT max(last_ts) FROM segment WHERE verdict = 'loaded' "
            "AND starts_with(source_name, $folder)",
            {"folder": f"{folder}/"},
        ).fetchall()
    return last  # type: ignore[no-any-return]


def _make_record(hold: Hold, source: PrometheusInput) -> Record:
    """A pod's hold on a GPU as a run record, ending a step after its last sample."""
    ended = hold.last + timedelta(seconds=source.step_s)
    text = f"{hold.namespace} {hold.name} {hold.held.gpu_uuid} {hold.held.instance} {hold.first}"
    return Record(
        record_id=f"{source.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}",
        run_id=dcgm.make_run_id(hold.namespace, hold.name),
        name=hold.name,
        owner=hold.namespace,
        host=hold.host,
        started_at=hold.first.isoformat(),
        ended_at=ended.isoformat(),
        ended_by="pod",
        gpus=[hold.held],
        kubernetes={"namespace": hold.namespace, "pod": hold.name},
    )
