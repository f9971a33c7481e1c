"""What the gate looks at before it lets readings in: one row of facts per GPU."""

from __future__ import annotations

import polars as pl

_SHORT_US = 30_000_000
"""Longer steps are gaps: power says little of them, and they are no recorder's usual step."""


def profile(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Facts about readings, by GPU, in one pass.

    Takes gpu_uuid, host, gpu_index, model, ts, power_mw, energy_mj and util_pct in the order of
    the segment. Gives gpu_uuid, rows_read, first_ts, last_ts, null_power, null_energy, no_value,
    min_power_mw, max_power_mw, max_counter_mw (mean power that the counter implies over steps of
    a second and more), compared_counter_mj and compared_power_mj (the rise of the counter, and the
    trapezoid of power, over the steps that have both), usual_step_ms (mean of the steps up to half
    a minute, null if there are none), min_util_pct, max_util_pct, negative_energy, steps_back, conflicts (rows
    at the time of the row before), counter_resets, longest_gap_ms, host, gpu_index, model and
    no_time (rows without ts).
    """
    columns = readings.select(
        "gpu_uuid", "host", "gpu_index", "model", "ts", "power_mw", "energy_mj", "util_pct"
    )
    stepped = columns.with_columns(
        begins=(pl.col("gpu_uuid") != pl.col("gpu_uuid").shift()).fill_null(True),
        step_us=pl.col("ts").to_physical() - pl.col("ts").to_physical().shift(),
        rise_mj=pl.col("energy_mj") - pl.col("energy_mj").shift(),
        double_mw=pl.col("power_mw").cast(pl.Int64) + pl.col("power_mw").shift(),
    )
    same = ~pl.col("begins")
    step, rise, double = pl.col("step_us"), pl.col("rise_mj"), pl.col("double_mw")
    short = same & (step > 0) & (step <= _SHORT_US)
    both = short & (rise >= 0) & double.is_not_null()
    facts = stepped.select(
        pl.col("begins").cum_sum().set_sorted().alias("piece"),
        "gpu_uuid",
        "host",
        "gpu_index",
        "model",
        "ts",
        "power_mw",
        "energy_mj",
        "util_pct",
        no_value=pl.col("power_mw").is_null() & pl.col("energy_mj").is_null(),
        negative_energy=pl.col("energy_mj") < 0,
        steps_back=same & (step < 0),
        conflicts=same & (step == 0),
        counter_resets=same & (rise < 0),
        counter_mw=pl.when(same & (step >= 1_000_000)).then(rise * 1_000_000 // step),
        gap_us=pl.when(same).then(step),
        compared_counter_mj=pl.when(both).then(rise),
        compared_power_mj=pl.when(both).then(double * step // 2_000_000),
        short_us=pl.when(short).then(step),
        short_steps=short,
    )
    counts = ["no_value", "negative_energy", "steps_back", "conflicts", "counter_resets"]
    sums = ["compared_counter_mj", "compared_power_mj", "short_us", "short_steps"]
    pieces = facts.group_by("piece", maintain_order=True).agg(
        pl.col("gpu_uuid", "host", "gpu_index", "model").first(),
        pl.len().cast(pl.Int64).alias("rows_read"),
        pl.col("ts").min().alias("first_ts"),
        pl.col("ts").max().alias("last_ts"),
        pl.col("ts").null_count().cast(pl.Int64).alias("no_time"),
        pl.col("power_mw").null_count().cast(pl.Int64).alias("null_power"),
        pl.col("energy_mj").null_count().cast(pl.Int64).alias("null_energy"),
        pl.col("power_mw").min().cast(pl.Int64).alias("min_power_mw"),
        pl.col("power_mw").max().cast(pl.Int64).alias("max_power_mw"),
        pl.col("util_pct").min().cast(pl.Int64).alias("min_util_pct"),
        pl.col("util_pct").max().cast(pl.Int64).alias("max_util_pct"),
        pl.col("counter_mw").max().alias("max_counter_mw"),
        pl.col("gap_us").max(),
        pl.col(counts).sum().cast(pl.Int64),
        pl.col(sums).sum().cast(pl.Int64),
    )
    totals = [*counts, *sums, "rows_read", "no_time", "null_power", "null_energy"]
    return (
        pieces.group_by("gpu_uuid")
        .agg(
            pl.col("host", "gpu_index", "model").first(),
            pl.col(totals).sum(),
            pl.col("first_ts", "min_power_mw", "min_util_pct").min(),
            pl.col("last_ts", "max_power_mw", "max_util_pct", "max_counter_mw", "gap_us").max(),
            pl.len().alias("pieces"),
        )
        # A GPU in several pieces was not ordered: its time goes back, or it would be in one.
        .with_columns(steps_back=pl.col("steps_back") + pl.col("pieces").cast(pl.Int64) - 1)
        .with_columns(
            longest_gap_ms=(pl.col("gap_us") // 1000).fill_null(0),
            usual_step_ms=pl.when(pl.col("short_steps") > 0).then(
                pl.col("short_us") // pl.col("short_steps").clip(1) // 1000
            ),
        )
        .drop("gap_us", "pieces", "short_us", "short_steps")
        .sort("gpu_uuid")
    )
