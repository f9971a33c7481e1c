"""Fetch readings from other meters into files of the project, which are then loaded like all others.

What was fetched stays under `fetched/`, so figures can be recomputed without the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from flows.errors import SourceError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.rows import describe_skipped
from flows.settings import PrometheusInput, Settings
from flows.sources.gpu import prometheus, segments
from flows.sources.gpu.prometheus import Fetched, Hold
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_for_writing, store_of
from wattledger.meters import dcgm
from wattledger.runs.fields import clean_text, is_plain_name
from wattledger.runs.records import Record, make_slug

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
    left_out = dict(series.left_out)
    if series.readings.is_empty():
        if left_out:
            raise SourceError(
                f"no sample can be used: {describe_skipped(left_out)}",
                where=f"input.prometheus {source.name!r}",
                remedy="Check that its exporters are those of DCGM, and that the GPUs report power",
            )
        return []
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    path = folder / f"{begin:%Y%m%dT%H%M%S}Z-{end:%Y%m%dT%H%M%S}Z.parquet"
    segments.write(series.readings, path)
    outcomes = ingest_gpu(settings, [path])
    _add_left_out(outcomes[0], left_out, series)
    seen = dict(series.readings.group_by("gpu_uuid").agg(pl.col("ts").max()).iter_rows())
    records = [
        _make_record(hold, source, seen.get(hold.held.gpu_uuid, hold.last)).save(folder / "runs")
        for hold in series.holds
    ]
    return outcomes + (ingest_runs(settings, records) if records else [])


def _add_left_out(outcome: Outcome, left_out: Mapping[str, int], series: Fetched) -> None:
    """Say which samples are not in the file of readings."""
    count = sum(left_out.values())
    outcome.rows_read += count
    outcome.rows_skipped += count
    outcome.skipped = {**outcome.skipped, **left_out}
    outcome.warnings = [*outcome.warnings, *series.warnings]
    if left_out:
        outcome.warnings.append(f"left out: {describe_skipped(left_out)}")


def _find_last_reading(settings: Settings, folder: Path) -> datetime | None:
    """The time of the last reading that was fetched before."""
    with open_for_writing(store_of(settings)) as con:
        [(last,)] = con.execute(
            "SELECT max(last_ts) FROM segment WHERE verdict = 'loaded' "
            "AND starts_with(source_name, $folder)",
            {"folder": f"{folder}/"},
        ).fetchall()
    return last  # type: ignore[no-any-return]


def _make_record(hold: Hold, source: PrometheusInput, last_reading: datetime) -> Record:
    """A pod's hold on a GPU as a run record: to a step after its last sample, as far as the GPU was read."""
    ended = max(hold.last, min(hold.last + timedelta(seconds=source.step_s), last_reading))
    text = f"{hold.namespace} {hold.name} {hold.held.gpu_uuid} {hold.held.instance} {hold.first}"
    prefix = source.name if is_plain_name(source.name) else make_slug(source.name)
    return Record(
        record_id=f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:16]}",
        run_id=clean_text(dcgm.make_run_id(hold.namespace, hold.name)),
        name=clean_text(hold.name),
        owner=clean_text(hold.namespace),
        host=hold.host,
        started_at=hold.first.isoformat(),
        ended_at=ended.isoformat(),
        ended_by="pod",
        gpus=[hold.held],
        kubernetes={"namespace": clean_text(hold.namespace), "pod": clean_text(hold.name)},
    )
