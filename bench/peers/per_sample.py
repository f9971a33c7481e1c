"""Sample by sample, as a tracker accumulates while a run goes on, in codecarbon's own units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from codecarbon.core.units import Energy, Power, Time

_SLOT = 300_000_000


def slots(paths: Sequence[Path]) -> pl.DataFrame:
    total: dict[tuple[str, int], Energy] = {}
    last: dict[str, tuple[int, int, int | None]] = {}
    for path in paths:
        table = pl.read_parquet(path)
        if "energy_mj" not in table.columns:
            table = table.with_columns(energy_mj=pl.lit(None, pl.Int64))
        rows = table.select(
            "gpu_uuid", pl.col("ts").to_physical(), "power_mw", "energy_mj", "power_source"
        ).iter_rows()
        for gpu, t1, p1, c1, source in rows:
            if gpu in last:
                t0, p0, c0 = last[gpu]
                duration = Time.from_seconds((t1 - t0) / 1e6)
                if c0 is not None and c1 is not None and c1 >= c0:
                    energy = Energy.from_millijoules(c1) - Energy.from_millijoules(c0)
                elif duration.seconds > 30:
                    energy = Energy(0)
                else:
                    averaged = source == "average_1s" and duration.seconds <= 1.5
                    power = Power.from_milli_watts(p1 if averaged else (p0 + p1) / 2)
                    energy = Energy.from_power_and_time(power=power, time=duration)
                at = t0
                while at < t1:
                    end = min(t1, (at // _SLOT + 1) * _SLOT)
                    part = energy if end - at == t1 - t0 else energy * ((end - at) / (t1 - t0))
                    key = gpu, at // _SLOT
                    total[key] = total[key] + part if key in total else part
                    at = end
            last[gpu] = t1, p1, c1
    return pl.DataFrame(
        [(gpu, slot, round(energy.kWh * 3.6e9)) for (gpu, slot), energy in total.items()],
        schema={"gpu_uuid": pl.String, "slot": pl.Int64, "energy_mj": pl.Int64},
        orient="row",
    ).sort("gpu_uuid", "slot")
