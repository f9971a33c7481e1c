"""GPU readings from a Prometheus that scrapes DCGM exporters, by `query_range` (docs/formats.md).

Prometheus answers with a value at each step, also with one that is minutes old. So the time of each
value is asked for too (`timestamp(metric)`): a reading counts once, at the time it was taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import polars as pl

from flows.errors import SettingsError, SourceError
from flows.settings import PrometheusInput
from flows.sources.gpu.segments import COLUMNS
from flows.sources.gpu.staged import fill_columns
from wattledger.meters import dcgm
from wattledger.readings import Held

_POINTS = 10_000
"""Prometheus refuses more than 11,000 points per series."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Hold:
    """A pod that held a GPU, from its first to its last sample."""

    namespace: str
    name: str
    host: str
    held: Held
    first: datetime
    last: datetime


@dataclass
class Fetched:
    """Readings in the columns of a segment, and who held the GPUs."""

    readings: pl.DataFrame
    holds: list[Hold] = field(default_factory=list)


def fetch(source: PrometheusInput, first: datetime, last: datetime) -> Fetched:
    """Readings of GPUs in a span of time.

    Raises:
        SourceError: Prometheus does not answer, refuses, or says something else than JSON.
        SettingsError: the token's environment variable is not set.
    """
    readings = [pl.DataFrame(schema=_RAW)]
    holds: list[Hold] = []
    span = _POINTS * source.step_s
    with _client(source) as client:
        begin = first.timestamp()
        while begin <= last.timestamp():
            end = min(begin + span, last.timestamp())
            for metric, quantity, factor in (
                (dcgm.POWER, "power_mw", 1000),
                (dcgm.ENERGY, "energy_mj", 1),
            ):
                selector = f"{metric}{source.selector}"
                values = _range(client, source, selector, begin, end)
                times = _range(client, source, f"timestamp({selector})", begin, end)
                found, held = _series(values, times, source, quantity, factor)
                readings.append(found)
                holds += held
            begin = end + source.step_s
    return Fetched(_joined(pl.concat(readings)), _merged(holds, source.step_s))


def _client(source: PrometheusInput) -> httpx.Client:
    headers = {}
    if source.token_env:
        token = os.environ.get(source.token_env)
        if not token:
            raise SettingsError(
                f"the environment variable {source.token_env} is not set",
                where="input.prometheus.token_env",
                remedy="Export the token for Prometheus under this name",
            )
        headers["Authorization"] = f"Bearer {token}"
    transport = httpx.HTTPTransport(retries=2)
    return httpx.Client(timeout=_TIMEOUT_S, headers=headers, transport=transport)


def _range(
    client: httpx.Client, source: PrometheusInput, query: str, begin: float, end: float
) -> list[dict[str, Any]]:
    url = f"{source.url.rstrip('/')}/api/v1/query_range"
    asked: dict[str, str | float] = {
        "query": query,
        "start": f"{begin:.3f}",
        "end": f"{end:.3f}",
        "step": source.step_s,
    }
    # A password in the URL stays out of messages.
    shown = str(httpx.URL(url).copy_with(username=None, password=None))
    try:
        answer = client.get(url, params=asked)
        said = answer.json()
    except httpx.HTTPError as error:
        raise SourceError(
            f"{type(error).__name__}: {error}", where=shown, remedy="Check that it runs and its URL"
        ) from None
    except ValueError:
        raise SourceError(
            f"the answer is not JSON (HTTP {answer.status_code})",
            where=shown,
            remedy="Check the URL: it should be that of Prometheus itself, without /api",
        ) from None
    if not isinstance(said, dict) or said.get("status") != "success":
        why = said.get("error", "no reason given") if isinstance(said, dict) else "not an object"
        raise SourceError(
            f"refused (HTTP {answer.status_code}): {str(why)[:300]}",
            where=shown,
            remedy="Check input.prometheus.selector, and the token if it needs one",
        )
    result = said["data"]["result"]
    return list(result)


_RAW = {
    "gpu_uuid": pl.String(),
    "host": pl.String(),
    "gpu_index": pl.Int32(),
    "model": pl.String(),
    "us": pl.Int64(),
    "instance": pl.Boolean(),
    "quantity": pl.String(),
    "value": pl.Int64(),
}


def _series(
    values: Sequence[Mapping[str, Any]],
    times: Sequence[Mapping[str, Any]],
    source: PrometheusInput,
    quantity: str,
    factor: int,
) -> tuple[pl.DataFrame, list[Hold]]:
    """Samples of one metric with the times at which they were taken."""
    taken = {_key(series["metric"]): dict(series["values"]) for series in times}
    rows: list[tuple[object, ...]] = []
    holds: list[Hold] = []
    for series in values:
        labels = series["metric"]
        if (who := dcgm.identify_gpu(labels)) is None:
            continue
        uuid, index, model, host = who
        at = taken.get(_key(labels), {})
        mine = [
            (
                uuid,
                host,
                index,
                model or None,
                round(float(at[step]) * 1e6),
                round(float(value) * factor),
            )
            for step, value in series["values"]
            if step in at and value not in ("NaN", "+Inf", "-Inf")
        ]
        is_instance = bool(labels.get("GPU_I_ID"))
        rows += [(*one[:5], is_instance, quantity, one[5]) for one in mine]
        pod = dcgm.identify_pod(labels, source.run_label)
        if pod is not None and mine:
            part = dcgm.make_held(labels, uuid, index, model)
            moments = sorted({one[4] for one in mine})
            holds += [
                Hold(*pod, host, part, _when(a), _when(b))
                for a, b in _blocks(moments, round(5 * source.step_s * 1e6))
            ]
    return pl.DataFrame(rows, schema=_RAW, orient="row"), holds


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in labels.items() if k != "__name__"))


def _when(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def _blocks(moments: Sequence[int], gap_us: int) -> list[tuple[int, int]]:
    """First and last of each stretch without a longer gap."""
    blocks: list[tuple[int, int]] = []
    for moment in moments:
        if blocks and moment - blocks[-1][1] <= gap_us:
            blocks[-1] = (blocks[-1][0], moment)
        else:
            blocks.append((moment, moment))
    return blocks


def _joined(raw: pl.DataFrame) -> pl.DataFrame:
    """One row per GPU and time with power and counter; a GPU's own value before an instance's."""
    once = raw.sort("instance").unique(
        ["gpu_uuid", "us", "quantity"], keep="first", maintain_order=True
    )
    keys = ["gpu_uuid", "us"]

    def of(quantity: str) -> pl.DataFrame:
        return once.filter(pl.col("quantity") == quantity).select(
            *keys, pl.col("value").alias(quantity)
        )

    who = once.unique(keys, keep="first", maintain_order=True).drop("quantity", "value", "instance")
    joined = (
        who.join(of("power_mw"), on=keys, how="left")
        .join(of("energy_mj"), on=keys, how="left")
        .with_columns(
            ts=pl.from_epoch("us", "us").dt.replace_time_zone("UTC"),
            power_source=pl.lit("unknown"),
            power_mw=pl.col("power_mw").cast(pl.Int32),
        )
    )
    return fill_columns(joined, COLUMNS).sort("gpu_uuid", "ts")


def _merged(holds: Sequence[Hold], step_s: float) -> list[Hold]:
    """The same pod on the same GPU in touching stretches (two metrics, two queries) as one."""
    merged: list[Hold] = []
    for hold in sorted(
        holds,
        key=lambda h: (h.namespace, h.name, h.host, h.held.gpu_uuid, h.held.instance, h.first),
    ):
        last = merged[-1] if merged else None
        same = last is not None and (last.namespace, last.name, last.host, last.held) == (
            hold.namespace,
            hold.name,
            hold.host,
            hold.held,
        )
        if last is not None and same and (hold.first - last.last).total_seconds() <= 5 * step_s:
            merged[-1] = Hold(
                hold.namespace,
                hold.name,
                hold.host,
                hold.held,
                last.first,
                max(last.last, hold.last),
            )
        else:
            merged.append(hold)
    return merged
