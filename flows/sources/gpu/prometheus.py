"""GPU readings from a Prometheus that scrapes DCGM exporters, by `query_range` (docs/formats.md).

Prometheus answers with a value at each step, even if that value is minutes old. So each query asks for
the time of the value too (`timestamp(metric)`): a reading counts once, at the time it was taken.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import polars as pl

from flows.errors import SettingsError, SourceError
from flows.settings import PrometheusInput
from flows.sources.gpu.segments import COLUMNS
from flows.sources.gpu.staged import fill_columns
from flows.sources.secret_hosts import check_secret_host
from flows.times import EARLIEST, FUTURE
from wattledger.meters import dcgm
from wattledger.readings import Held

_POINTS = 10_000
"""Prometheus refuses more than 11,000 points per series."""
_TIMEOUT_S = 60.0
_GAP_STEPS = 5
"""Samples of a pod that are further apart than this many steps are of two holds."""


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
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> samples that were left out."""
    warnings: list[str] = field(default_factory=list)


def fetch(source: PrometheusInput, first: datetime, last: datetime) -> Fetched:
    """Ask for the readings of GPUs in a span of time.

    Args:
        source: Which Prometheus, and which of its series.
        first: Start of the span.
        last: Its end, included.

    Returns:
        Readings in the columns of a segment (`segments.COLUMNS`), and the pods that held the GPUs.

    Raises:
        SourceError: Prometheus does not answer, refuses, or says something else than JSON.
        SettingsError: the token's environment variable is not set.
    """
    parts = [pl.DataFrame(schema=_RAW)]
    holds: list[Hold] = []
    fetched = Fetched(parts[0])
    span = _POINTS * source.step_s
    with _open_client(source) as client:
        begin = first.timestamp()
        while begin <= last.timestamp():
            end = min(begin + span, last.timestamp())
            for metric, quantity, factor in _METRICS:
                selector = f"{metric}{source.selector}"
                values = [
                    series
                    for series in _query_range(client, source, selector, begin, end)
                    if series["metric"].get("__name__", metric) == metric
                ]
                times = _query_range(client, source, f"timestamp({selector})", begin, end)
                samples, held = _match_times(values, times, source, quantity, factor, fetched)
                parts.append(samples)
                holds += held
            begin = end + source.step_s
    good = _leave_out_contradictions(pl.concat(parts), fetched)
    fetched.readings, fetched.holds = _join_quantities(good), _merge_holds(holds, source.step_s)
    return fetched


_METRICS = (
    (dcgm.POWER, "power_mw", 1000),
    (dcgm.ENERGY, "energy_mj", 1),
    (dcgm.LIMIT, "power_limit_mw", 1000),
)
_BLANK, _NO_NUMBER = "samples that stand for a missing value", "samples that are no number"
_NEGATIVE = "samples below zero"
_NO_TIME = "samples without a believable time"
_CONTRADICTION = "samples of one GPU and time that contradict each other"


def _open_client(source: PrometheusInput) -> httpx.Client:
    headers = {}
    if source.token_env:
        token = os.environ.get(source.token_env)
        if not token:
            raise SettingsError(
                f"the environment variable {source.token_env} is not set",
                where="input.prometheus.token_env",
                remedy="Export the token for Prometheus under this name",
            )
        check_secret_host(source.url, f"input.prometheus {source.name!r}")
        headers["Authorization"] = f"Bearer {token}"
    transport = httpx.HTTPTransport(retries=2)
    return httpx.Client(timeout=_TIMEOUT_S, headers=headers, transport=transport)


def _query_range(
    client: httpx.Client, source: PrometheusInput, query: str, begin: float, end: float
) -> list[dict[str, Any]]:
    url = f"{source.url.rstrip('/')}/api/v1/query_range"
    params: dict[str, str | float] = {
        "query": query,
        "start": f"{begin:.3f}",
        "end": f"{end:.3f}",
        "step": source.step_s,
    }
    # A password in the URL stays out of messages.
    shown = str(httpx.URL(url).copy_with(username=None, password=None))
    try:
        response = client.get(url, params=params)
        answer = response.json()
    except httpx.HTTPError as error:
        raise SourceError(
            f"{type(error).__name__}: {error}", where=shown, remedy="Check that it runs and its URL"
        ) from None
    except RecursionError:
        raise SourceError(
            "the answer cannot be read: nested too deeply", where=shown, remedy="Check the URL"
        ) from None
    except ValueError:
        raise SourceError(
            f"the answer is not JSON (HTTP {response.status_code})",
            where=shown,
            remedy="Check the URL: it should be that of Prometheus itself, without /api",
        ) from None
    if not isinstance(answer, dict) or answer.get("status") != "success":
        why = (
            answer.get("error", "no reason given") if isinstance(answer, dict) else "not an object"
        )
        raise SourceError(
            f"refused (HTTP {response.status_code}): {str(why)[:300]}",
            where=shown,
            remedy="Check input.prometheus.selector, and the token if it needs one",
        )
    data = answer.get("data")
    result = data.get("result") if isinstance(data, dict) else None
    if not isinstance(result, list) or not all(map(_is_series, result)):
        raise SourceError(
            "the answer is not that of a range query",
            where=shown,
            remedy="Check the URL: it should be that of Prometheus itself, without /api",
        )
    return result


def _is_series(series: object) -> bool:
    """Whether a part of an answer has labels and samples of two parts each."""
    if not isinstance(series, dict):
        return False
    labels, values = series.get("metric"), series.get("values")
    return (
        isinstance(labels, dict)
        and all(isinstance(text, str) for text in labels.values())
        and isinstance(values, list)
        and all(isinstance(sample, list) and len(sample) == 2 for sample in values)
    )


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


def _match_times(
    values: Sequence[Mapping[str, Any]],
    times: Sequence[Mapping[str, Any]],
    source: PrometheusInput,
    quantity: str,
    factor: int,
    fetched: Fetched,
) -> tuple[pl.DataFrame, list[Hold]]:
    """Good samples of one metric, once each, with the times at which they were taken; what is left out is counted."""
    taken = {
        _key(series["metric"]): {str(step): at for step, at in series["values"]} for series in times
    }
    own = dcgm.find_own_pods(series["metric"] for series in values)
    rows: list[tuple[object, ...]] = []
    holds: list[Hold] = []
    for series in values:
        labels = series["metric"]
        if (gpu := dcgm.identify_gpu(labels)) is None:
            fetched.left_out["samples that name no GPU"] += len(series["values"])
            continue
        uuid, index, model, host = gpu
        samples, seen = _read_samples(
            series["values"], taken.get(_key(labels), {}), factor, fetched.left_out
        )
        is_instance = bool(labels.get("GPU_I_ID") or labels.get("GPU_I_PROFILE"))
        rows += [
            (uuid, host, index, model or None, us, is_instance, quantity, value)
            for us, value in samples.items()
        ]
        pod = dcgm.identify_pod(labels, source.run_label, own)
        if pod is None or not seen:
            continue
        held = dcgm.make_held(labels, uuid, index, model)
        if held is None:
            warning = (
                f"pod {'/'.join(pod)} holds instance {labels.get('GPU_I_ID', '?')} of {uuid}, whose "
                f"profile {labels.get('GPU_I_PROFILE', '')!r} says no size: it is no run"
            )
            fetched.warnings += [warning] if warning not in fetched.warnings else []
            continue
        gap_us = round(_GAP_STEPS * source.step_s * 1e6)
        blocks = _find_blocks(sorted(seen), gap_us)
        holds += [Hold(*pod, host, held, _to_moment(a), _to_moment(b)) for a, b in blocks]
    return pl.DataFrame(rows, schema=_RAW, orient="row"), holds


def _read_samples(
    values: Sequence[Sequence[Any]],
    times_by_step: Mapping[str, Any],
    factor: int,
    left_out: Counter[str],
) -> tuple[dict[int, int], set[int]]:
    """Samples of a series by the time they were taken, and all those times; what is left out is counted.

    Prometheus repeats a sample at every step until the next: it is one.
    """
    samples: dict[int, int] = {}
    seen: set[int] = set()
    bad: set[tuple[object, str]] = set()
    for step, text in values:
        us = _parse_moment(times_by_step.get(str(step)))
        value, fault = _parse_sample(text, factor)
        if us is None:
            bad.add((step, _NO_TIME))
            continue
        seen.add(us)
        if value is None:
            bad.add((us, fault))
        else:
            samples[us] = value
    left_out.update(fault for _, fault in bad)
    return samples, seen


def _parse_moment(text: object) -> int | None:
    """Microseconds since the epoch; None if it is no time that a clock of ours can have shown."""
    try:
        us = round(float(str(text)) * 1e6)
    except (ValueError, OverflowError):
        return None
    latest = (datetime.now(UTC) + FUTURE).timestamp() * 1e6
    return us if EARLIEST.timestamp() * 1e6 <= us <= latest else None


def _parse_sample(text: object, factor: int) -> tuple[int | None, str]:
    """A sample in its unit, or why it is left out."""
    try:
        value = float(str(text))
    except ValueError:
        return None, _NO_NUMBER
    if not math.isfinite(value):
        return None, _NO_NUMBER
    if dcgm.is_blank(value):
        return None, _BLANK
    if value < 0:
        return None, _NEGATIVE
    return round(value * factor), ""


def _leave_out_contradictions(raw: pl.DataFrame, fetched: Fetched) -> pl.DataFrame:
    """Leave out what several series say differently of one GPU and moment; instances may differ by their moments."""
    keys = ["gpu_uuid", "us", "quantity", "instance"]
    marked = raw.unique(maintain_order=True).with_columns(
        differs=~pl.col("instance") & (pl.col("value").n_unique() > 1).over(keys)
    )
    fetched.left_out[_CONTRADICTION] += int(marked["differs"].sum())
    high = {"power_mw": _MOST_MW, "energy_mj": _MOST_MJ, "power_limit_mw": _MOST_MW}
    large = pl.col("value") > pl.col("quantity").replace_strict(high, return_dtype=pl.Int64)
    fetched.left_out["samples larger than any GPU's"] += int(marked.select(large.sum()).item())
    fetched.left_out = +fetched.left_out
    return marked.filter(~pl.col("differs") & ~large).drop("differs")


_MOST_MW, _MOST_MJ = (1 << 31) - 1, 1 << 62


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in labels.items() if k != "__name__"))


def _to_moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def _find_blocks(moments: Sequence[int], gap_us: int) -> list[tuple[int, int]]:
    """First and last of the moments between which there is no longer gap."""
    blocks: list[tuple[int, int]] = []
    for moment in moments:
        if blocks and moment - blocks[-1][1] <= gap_us:
            blocks[-1] = (blocks[-1][0], moment)
        else:
            blocks.append((moment, moment))
    return blocks


def _join_quantities(raw: pl.DataFrame) -> pl.DataFrame:
    """One row per GPU and time with power and counter; the value of a GPU before that of an instance."""
    once = raw.sort("instance").unique(
        ["gpu_uuid", "us", "quantity"], keep="first", maintain_order=True
    )
    keys = ["gpu_uuid", "us"]

    def select(quantity: str) -> pl.DataFrame:
        return once.filter(pl.col("quantity") == quantity).select(
            *keys, pl.col("value").alias(quantity)
        )

    gpus = once.unique(keys, keep="first", maintain_order=True)
    joined = (
        gpus.drop("quantity", "value", "instance")
        .join(select("power_mw"), on=keys, how="left", validate="1:1")
        .join(select("energy_mj"), on=keys, how="left", validate="1:1")
        .join(select("power_limit_mw"), on=keys, how="left", validate="1:1")
        # A limit alone is no reading.
        .filter(pl.col("power_mw").is_not_null() | pl.col("energy_mj").is_not_null())
        .with_columns(
            ts=pl.from_epoch("us", "us").dt.replace_time_zone("UTC"),
            power_source=pl.lit("unknown"),
            power_mw=pl.col("power_mw").cast(pl.Int32),
            power_limit_mw=pl.col("power_limit_mw").cast(pl.Int32),
        )
    )
    return fill_columns(joined, COLUMNS).sort("gpu_uuid", "ts")


def _merge_holds(holds: Sequence[Hold], step_s: float) -> list[Hold]:
    """One hold where a pod's holds on a GPU touch: there are several by metric and query."""
    merged: list[Hold] = []
    for hold in sorted(
        holds,
        key=lambda h: (h.namespace, h.name, h.host, h.held.gpu_uuid, h.held.instance, h.first),
    ):
        before = merged[-1] if merged else None
        if before is not None and _continues(hold, before, step_s):
            merged[-1] = replace(before, last=max(before.last, hold.last))
        else:
            merged.append(hold)
    return merged


def _continues(hold: Hold, before: Hold, step_s: float) -> bool:
    same = replace(before, first=hold.first, last=hold.last) == hold
    return same and (hold.first - before.last).total_seconds() <= _GAP_STEPS * step_s
