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
    """What some GPUs of a host do between two times, in seconds from the start."""

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
    """Generate readings of one host. The same arguments give the same readings, byte for byte.

    Args:
        host: Its name.
        gpus: How many GPUs it has.
        start: Time of the first reading.
        seconds: For how long.
        work: What its GPUs do; without any they idle.
        period_s: Time between readings of a GPU.
        seed: Another seed, other GPUs and other noise.
        counter: Without it the energy counter is null, as on boards or in logs that have none.

    Returns:
        Readings in the columns of a segment, ordered by (gpu_uuid, ts).
    """
    uuids = {make_gpu_uuid(host, index, seed): index for index in range(gpus)}
    readings = pl.concat(
        _generate_gpu_readings(
            uuid,
            uuids[uuid],
            [w for w in work if uuids[uuid] in w.gpus],
            start_us=int(start.timestamp()) * 1_000_000,
            steps=int(seconds / period_s),
            period_s=period_s,
            seed=seed,
        )
        for uuid in sorted(uuids)
    )
    return readings.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.col("energy_mj") if counter else pl.lit(None, pl.Int64).alias("energy_mj"),
        host=pl.lit(host),
        model=pl.lit(MODEL),
        power_source=pl.lit("average_1s"),
    )


def _generate_gpu_readings(
    uuid: str,
    index: int,
    work: Sequence[Work],
    *,
    start_us: int,
    steps: int,
    period_s: float,
    seed: int,
) -> pl.DataFrame:
    """Readings of one GPU, in order of time."""
    since_s = np.arange(steps) * period_s
    rng = np.random.default_rng([seed, int(uuid[4:12], 16)])
    watts, busy = _draw_power(since_s, work, rng)
    power_mw = np.rint(watts * 1000).astype(np.int32)
    jitter_us = rng.integers(0, 3000, steps)
    since_us = (since_s * 1e6).astype(np.int64) + jitter_us
    # Power is the mean over the interval before, so the counter is its exact integral.
    interval_us = np.diff(since_us, prepend=since_us[0] - int(period_s * 1e6))
    spent_nj = power_mw.astype(np.int64) * interval_us
    counter_mj = int(rng.integers(10**9, 10**12)) + np.cumsum(spent_nj) // 1_000_000
    return pl.DataFrame(
        {
            "gpu_uuid": pl.repeat(uuid, steps, eager=True),
            "gpu_index": pl.repeat(index, steps, dtype=pl.Int32, eager=True),
            "ts": pl.Series(since_us) + start_us,
            "power_mw": power_mw,
            "energy_mj": counter_mj,
            "util_pct": np.where(busy, rng.integers(95, 101, steps), 0).astype(np.int16),
            "mem_used_mib": np.where(busy, 71_000, 520).astype(np.int32),
            "temp_c": np.rint(32 + watts / 18).astype(np.int16),
            "sm_clock_mhz": np.where(busy, 1755, 345).astype(np.int16),
        }
    )


def _draw_power(
    since_s: np.ndarray, work: Sequence[Work], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Power in watts and whether the GPU is busy, at each step."""
    own = rng.normal(0, 0.015)
    watts = np.full(since_s.size, _IDLE_W + rng.normal(0, 1.5)) + rng.normal(0, 0.6, since_s.size)
    busy = np.zeros(since_s.size, dtype=bool)
    for task in work:
        during = (since_s >= task.start_s) & (since_s < task.end_s)
        task_s = since_s[during] - task.start_s
        level = _LEVELS_W[task.kind] * (1 + own)
        drawn = level + rng.normal(0, level * 0.02, task_s.size)
        drawn *= np.clip(0.35 + 0.65 * task_s / _RAMP_S, 0, 1)
        if task.kind in ("training", "finetuning"):
            saving = (task_s % _CHECKPOINT_EVERY_S) >= _CHECKPOINT_EVERY_S - _CHECKPOINT_S
            drawn[saving] = 145 + rng.normal(0, 12, int(saving.sum()))
        watts[during] = np.minimum(drawn, _LIMIT_W * 1.01)
        busy |= during
    return watts, busy
