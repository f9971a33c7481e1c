"""What the gate looks at before it lets readings in: one row of facts per GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

PROFILED = ("gpu_uuid", "host", "gpu_index", "model", "ts", "power_mw", "energy_mj", "util_pct")
"""Columns that are looked at."""

_WHOSE = ("segment", "gpu_uuid")
"""What tells one run of rows from the next."""

_SHORT_US = 30_000_000
"""Longer steps are gaps: power says little of them, and they are no recorder's usual step."""

_SECOND_US = 1_000_000
_BLOCK = 1 << 16
"""Readings whose columns stay in the processor's cache while several passes go over them."""

_LEAST, _MOST = np.int64(np.iinfo(np.int64).min), np.int64(np.iinfo(np.int64).max)
_COUNTED = (
    "rows_read",
    "no_time",
    "null_power",
    "null_energy",
    "no_value",
    "negative_energy",
    "steps_back",
    "conflicts",
    "counter_resets",
    "compared_counter_mj",
    "compared_power_mj",
    "short_us",
    "short_steps",
)
_SMALLEST = ("first_us", "min_power_mw", "min_util_pct")
_LARGEST = ("last_us", "max_power_mw", "max_util_pct", "max_counter_mw", "gap_us")

_Numbers = npt.NDArray[np.int64]
_Truths = npt.NDArray[np.bool_]


def pieces(readings: pl.DataFrame, *, goes_on: bool = False) -> pl.DataFrame:
    """Facts about readings, for each run of rows of one GPU.

    Takes `PROFILED` in the order of the segment (texts may be numbers that stand for them): all of it, or a part; or those
    of several, with a column `segment`. `goes_on`: the first row is the last one of the part before, and only the step from
    it counts. `profile` puts parts together.
    """
    rows = readings.height
    whose = [name for name in _WHOSE if name in readings.columns]
    other = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in whose)
    begins = readings.select(begins=other)["begins"].to_numpy(writable=True)
    if rows:
        begins[0] = True
    starts = np.flatnonzero(begins)
    t, no_time = _filled(readings["ts"].to_physical())
    p, no_power = _filled(readings["power_mw"])
    c, no_energy = _filled(readings["energy_mj"])
    u, no_util = _filled(readings["util_pct"])
    found: dict[str, list[_Numbers]] = {name: [] for name in (*_COUNTED, *_SMALLEST, *_LARGEST)}
    at: list[_Numbers] = []
    for low in range(0, rows, _BLOCK):
        high = min(low + _BLOCK, rows)
        here = slice(low, high)
        inside = starts[np.searchsorted(starts, low, "right") : np.searchsorted(starts, high)]
        cuts = np.concatenate([[0], inside - low])
        at.append(np.searchsorted(starts, cuts + low, "right") - 1)

        def total(name: str, values: npt.NDArray[Any], cuts: _Numbers = cuts) -> None:
            found[name].append(np.add.reduceat(values, cuts, dtype=np.int64))

        def count(name: str, rows: _Truths | None, cuts: _Numbers = cuts) -> None:
            if rows is None or not rows.any():
                found[name].append(np.zeros(len(cuts), np.int64))
            else:
                total(name, rows, cuts)

        def least(name: str, values: npt.NDArray[Any], cuts: _Numbers = cuts) -> None:
            found[name].append(np.minimum.reduceat(values, cuts).astype(np.int64))

        def most(name: str, values: npt.NDArray[Any], cuts: _Numbers = cuts) -> None:
            found[name].append(np.maximum.reduceat(values, cuts).astype(np.int64))

        # Masks are left out where nothing is missing, which is nearly always: each is a pass over the block.
        timeless, powerless, counterless, utilless = (
            mask if mask is None else mask[here] for mask in (no_time, no_power, no_energy, no_util)
        )
        rows_read = np.diff(cuts, append=high - low)
        elsewhere = low == 0 and goes_on  # The first row was counted in the part before.
        rows_read[0] -= elsewhere
        found["rows_read"].append(rows_read)
        for name, absent in (
            ("no_time", timeless),
            ("null_power", powerless),
            ("null_energy", counterless),
            (
                "no_value",
                None if powerless is None or counterless is None else powerless & counterless,
            ),
            ("negative_energy", c[here] < 0),
        ):
            if elsewhere and absent is not None:
                absent = np.concatenate([[False], absent[1:]])
            count(name, absent)
        least("first_us", t[here] if timeless is None else np.where(timeless, _MOST, t[here]))
        most("last_us", t[here] if timeless is None else np.where(timeless, _LEAST, t[here]))
        for name, values, absent in (("power_mw", p, powerless), ("util_pct", u, utilless)):
            if absent is None:
                least(f"min_{name}", values[here])
                most(f"max_{name}", values[here])
            else:
                least(f"min_{name}", np.where(absent, _MOST, values[here]))
                most(f"max_{name}", np.where(absent, _LEAST, values[here]))

        # Steps are from the row before (the first of all has none) of the same GPU.
        before = slice(low - 1, high - 1) if low else np.r_[0, low : high - 1]
        step = ~begins[here]
        dt = t[here] - t[before]
        rise = c[here] - c[before]
        timed = _given(step, no_time, here, before)
        counted = _given(step, no_energy, here, before)
        count("steps_back", timed & (dt < 0))
        count("conflicts", timed & (dt == 0))
        count("counter_resets", counted & (rise < 0))
        long = counted & (dt >= _SECOND_US)
        if no_time is not None:
            long &= timed
        # Exact as long as counters are below 9e15 mJ; a whole division takes four times as long.
        mean_mw = rise * 1e6
        mean_mw /= np.maximum(dt, 1)
        most_mw = np.maximum.reduceat(np.where(long, mean_mw, float(_LEAST)), cuts)
        found["max_counter_mw"].append(np.floor(most_mw).clip(_LEAST, 9e18).astype(np.int64))
        most("gap_us", np.where(timed, dt, _LEAST))
        short = timed & (dt > 0) & (dt <= _SHORT_US)
        total("short_us", np.where(short, dt, 0))
        count("short_steps", short)
        both = _given(short & counted & (rise >= 0), no_power, here, before)
        total("compared_counter_mj", np.where(both, rise, 0))
        double = np.add(p[here], p[before], dtype=np.int64)
        double *= dt
        double //= 2_000_000
        total("compared_power_mj", np.where(both, double, 0))
    names = readings[starts].select(*whose, "host", "gpu_index", "model")
    if not rows:
        return names.with_columns(pl.lit(0, pl.Int64).alias(name) for name in ("piece", *found))
    whole = (
        pl.DataFrame(
            {"piece": np.concatenate(at)} | {k: np.concatenate(v) for k, v in found.items()}
        )
        .group_by("piece")
        .agg(
            pl.col(_COUNTED).sum(),
            pl.col(_SMALLEST).min(),
            pl.col(_LARGEST).max(),
        )
    )
    return names.with_columns(piece=pl.int_range(pl.len(), dtype=pl.Int64)).join(
        whole, on="piece", maintain_order="left"
    )


def _filled(values: pl.Series) -> tuple[_Numbers, _Truths | None]:
    """Numbers with 0 for null, and where those are, if anywhere."""
    if not values.null_count():
        return values.to_numpy(), None
    return values.fill_null(0).to_numpy(), values.is_null().to_numpy()


def _given(rows: _Truths, absent: _Truths | None, here: slice, before: Any) -> _Truths:
    """Of some rows, those that have a value, as has the row before."""
    return rows if absent is None else rows & ~absent[here] & ~absent[before]


def profile(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Facts about readings, by GPU (and segment, where several were given).

    Takes the results of `pieces` for the parts of a segment, in order. Gives gpu_uuid, rows_read, first_ts,
    last_ts, null_power, null_energy, no_value, min_power_mw, max_power_mw, max_counter_mw (mean power that the
    counter implies over steps of a second and more), compared_counter_mj and compared_power_mj (the rise of the
    counter, and the trapezoid of power, over the steps up to half a minute that have both), usual_step_ms (mean
    of those steps, null if there are none), min_util_pct, max_util_pct, negative_energy, steps_back, conflicts
    (rows at the time of the row before), counter_resets, longest_gap_ms, host, gpu_index, model and no_time (rows
    without ts).
    """
    known = (pl.exclude(*_WHOSE, "host", "gpu_index", "model", "piece", "part", "goes_on")).replace(
        {int(_LEAST): None, int(_MOST): None}
    )
    both = pl.concat([one.with_columns(part=pl.lit(at)) for at, one in enumerate(parts)])
    # A GPU that goes on from one part to the next is one run; one in several was not ordered.
    ends = both.with_columns(
        goes_on=(pl.col("piece") == 0)
        & (pl.col("part") > 0)
        & pl.col("gpu_uuid").eq_missing(pl.col("gpu_uuid").shift())
    )
    whose = [name for name in _WHOSE if name in both.columns]
    times = pl.from_epoch(pl.col("first_us", "last_us"), "us").dt.replace_time_zone("UTC")
    return (
        ends.with_columns(known)
        .group_by(whose)
        .agg(
            pl.col("host", "gpu_index", "model").first(),
            pl.col(_COUNTED).sum(),
            pl.col(_SMALLEST).min(),
            pl.col(_LARGEST).max(),
            runs=pl.len() - pl.col("goes_on").sum(),
        )
        .with_columns(
            times,
            steps_back=pl.col("steps_back") + pl.col("runs").cast(pl.Int64) - 1,
            longest_gap_ms=(pl.col("gap_us") // 1000).fill_null(0),
            usual_step_ms=pl.when(pl.col("short_steps") > 0).then(
                pl.col("short_us") // pl.col("short_steps").clip(1) // 1000
            ),
        )
        .rename({"first_us": "first_ts", "last_us": "last_ts"})
        .drop("gap_us", "runs", "short_us", "short_steps")
        .sort(whose)
    )
