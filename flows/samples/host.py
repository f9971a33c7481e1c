"""Seeded sample readings, modelled on nvidia-smi logs of 8 x H100 nodes.

Idle near 70 W, training near the 700 W limit with checkpoint dips, a ramp at the start, a spread
between GPUs. The energy counter is the exact sum of the power, so the true energy is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

MODEL = "NVIDIA H100 80GB HBM3"
_CHECKPOINT_EVERY_S = 1800
_CHECKPOINT_S = 45
_RAMP_S = 120
_LEVELS_W = {"training": 655.0, "finetuning": 560.0, "evaluation": 330.0, "notebook": 120.0}
"""Mean board power by what the GPU does; idle is 70 W."""
_IDLE_W = 70.0
_LIMIT_W = 700.0


@dataclass(frozen=True)
class Work:
    """What some GPUs of a host do between two times (seconds from the start)."""

    gpus: Sequence[int]
    start_s: int
    end_s: int
    kind: str = "training"


def make_gpu_uuid(host: str, index: int, seed: int) -> str:
    """A UUID in NVML's form, the same for the same host, index and seed."""
    digest = hashlib.sha256(f"{seed} {host} {index}".encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def generate_host_readings(
    host: str,
    *,
    gpus: int,
    start: datetime,
    seconds: int,
    work: Sequence[Work] = (),
    period_s: float = 1.0,
    seed: int = 7,
    counter: bool = True,
) -> pl.DataFrame:
    """Readings of one host in the columns of a segment, ordered by (gpu_uuid, ts).

    The same arguments give the same readings, byte for byte. Without `counter`, the energy
    counter is null, as on boards or logs that have none.
    """
    steps = int(seconds / period_s)
    since = np.arange(steps) * period_s
    parts = []
    for index in sorted(range(gpus), key=lambda i: make_gpu_uuid(host, i, seed)):
        uuid = make_gpu_uuid(host, index, seed)
        rng = np.random.default_rng([seed, int(uuid[4:12], 16)])
        watts, busy = _power(since, [w for w in work if index in w.gpus], rng)
        power_mw = np.rint(watts * 1000).astype(np.int32)
        jitter_us = rng.integers(0, 3000, steps)
        micros = (since * 1e6).astype(np.int64) + jitter_us
        # Power is the mean over the interval before, so the counter is its exact integral.
        spent = power_mw.astype(np.int64) * np.diff(micros, prepend=micros[0] - int(period_s * 1e6))
        counter_mj = int(rng.integers(10**9, 10**12)) + np.cumsum(spent) // 1_000_000
        parts.append(
            pl.DataFrame(
                {
                    "gpu_uuid": pl.repeat(uuid, steps, eager=True),
                    "gpu_index": pl.repeat(index, steps, dtype=pl.Int32, eager=True),
                    "ts": pl.Series(micros) + _micros(start),
                    "power_mw": power_mw,
                    "energy_mj": counter_mj,
                    "util_pct": np.where(busy, rng.integers(95, 101, steps), 0).astype(np.int16),
                    "mem_used_mib": np.where(busy, 71_000, 520).astype(np.int32),
                    "temp_c": np.rint(32 + watts / 18).astype(np.int16),
                    "sm_clock_mhz": np.where(busy, 1755, 345).astype(np.int16),
                }
            )
        )
    readings = pl.concat(parts)
    return readings.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.col("energy_mj") if counter else pl.lit(None, pl.Int64).alias("energy_mj"),
        host=pl.lit(host),
        model=pl.lit(MODEL),
        power_source=pl.lit("average_1s"),
    )


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _power(
    since: np.ndarray, work: Sequence[Work], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Power in watts and whether the GPU is busy, at each step."""
    own = rng.normal(0, 0.015)
    watts = np.full(since.size, _IDLE_W + rng.normal(0, 1.5)) + rng.normal(0, 0.6, since.size)
    busy = np.zeros(since.size, dtype=bool)
    for one in work:
        here = (since >= one.start_s) & (since < one.end_s)
        inside = since[here] - one.start_s
        level = _LEVELS_W[one.kind] * (1 + own)
        drawn = level + rng.normal(0, level * 0.02, inside.size)
        drawn *= np.clip(0.35 + 0.65 * inside / _RAMP_S, 0, 1)
        if one.kind in ("training", "finetuning"):
            saving = (inside % _CHECKPOINT_EVERY_S) >= _CHECKPOINT_EVERY_S - _CHECKPOINT_S
            drawn[saving] = 145 + rng.normal(0, 12, int(saving.sum()))
        watts[here] = np.minimum(drawn, _LIMIT_W * 1.01)
        busy |= here
    return watts, busy
