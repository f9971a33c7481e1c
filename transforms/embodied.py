"""Embodied carbon and water of the hardware, by the time that runs held it (docs/method.md, "Embodied")."""

from __future__ import annotations

import polars as pl

from transforms.constants import BOUNDS
from transforms.figures import BY_NAME
from transforms.grid import HOUR_US

HOURS_PER_YEAR = 8766
"""Of 365.25 days."""

INPUTS = ("gpu_kg", "server_kg", "gpu_l", "years", "utilisation")
"""What `compute_hourly_rates` takes, each with bounds."""

EMBODIED = (*BY_NAME["co2e_embodied"].columns, *BY_NAME["water_embodied"].columns)
_RATES = tuple(f"embodied{bound}_{unit}_per_h" for unit in ("ug", "ul") for bound in BOUNDS)


def compute_hourly_rates(devices: pl.LazyFrame) -> pl.LazyFrame:
    """Add the embodied carbon and water of an hour of a GPU in use.

    (GPU + server / GPUs per server) / (lifetime x share of it in use): SCI (ISO/IEC 21031:2024),
    amortised over the hours used as Luccioni et al. 2022 (arXiv 2211.02001), so idle hours carry
    none.

    Args:
        devices: One row per device: `INPUTS`, each with _low and _high (kg, litres, years, share),
            and gpus_per_server.

    Returns:
        The same rows with embodied_ug_per_h and embodied_ul_per_h added, each with _low and _high, as
        integers.
    """

    def rate(amount: pl.Expr, bound: str) -> pl.Expr:
        other = {"": "", "_low": "_high", "_high": "_low"}[bound]
        used_h = pl.col(f"years{other}") * HOURS_PER_YEAR * pl.col(f"utilisation{other}")
        return (amount / used_h).round().cast(pl.Int64)

    def carbon(bound: str) -> pl.Expr:
        share = pl.col(f"server_kg{bound}") / pl.col("gpus_per_server")
        return (pl.col(f"gpu_kg{bound}") + share) * 1e9

    return devices.with_columns(
        *(rate(carbon(b), b).alias(f"embodied{b}_ug_per_h") for b in BOUNDS),
        *(rate(pl.col(f"gpu_l{b}") * 1e6, b).alias(f"embodied{b}_ul_per_h") for b in BOUNDS),
    )


def add_embodied(energy: pl.LazyFrame, rates: pl.LazyFrame) -> pl.LazyFrame:
    """Add the embodied carbon and water of what runs held in each slot; idle hardware has none.

    Args:
        energy: kind, gpu_key, slot, held_us, and any further columns.
        rates: The result of `compute_hourly_rates`: one row per gpu_key.

    Returns:
        The rows of `energy` with `EMBODIED` added, as integers (ug and uL).
    """
    held = pl.when(pl.col("kind") == "run").then("held_us").otherwise(0)
    return (
        energy.join(rates.select("gpu_key", *_RATES), on="gpu_key", how="left", validate="m:1")
        .with_columns(
            (held * pl.col(rate) // HOUR_US).alias(name)
            for name, rate in zip(EMBODIED, _RATES, strict=True)
        )
        .drop(_RATES)
    )
