"""What the gate looks at before it lets readings in: one row of facts per GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

PROFILED = (
    "gpu_uuid",
    "host",
    "gpu_index",
    "model",
    "ts",
    "power_mw",
    "energy_mj",
    "util_pct",
    "power_limit_mw",
)
"""Columns that are looked at."""

_NUMBERS = ("power_mw", "energy_mj", "util_pct", "power_limit_mw")
_KEYS = ("segment", "gpu_uuid")
"""What tells one sequence of rows from the next."""

_SHORT_US = 30_000_000
"""Longer steps are gaps: power says little of them, and they are no recorder's usual step."""

_SECOND_US = 1_000_000
_BLOCK = 1 << 15
"""Readings whose columns stay in the processor's cache while several passes go over them.

The arrays of a larger block are given back to the system after it, and asked for again."""

_LEAST, _MOST = np.int64(np.iinfo(np.int64).min), np.int64(np.iinfo(np.int64).max)
_COUNTED = (
    "rows_read",
    "no_time",
    "null_power",
    "null_energy",
    "power_sum_mw",
    "no_value",
    "negative_energy",
    "steps_back",
    "conflicts",
    "counter_resets",
    "still_us",
    "compared_counter_mj",
    "compared_power_mj",
    "short_us",
    "short_steps",
)
_SMALLEST = ("first_us", "min_power_mw", "min_util_pct")
_LARGEST = (
    "last_us",
    "max_power_mw",
    "max_util_pct",
    "max_counter_mw",
    "max_energy_mj",
    "board_limit_mw",
    "gap_us",
)
_FACTS = ("sequence", *_COUNTED, *_SMALLEST, *_LARGEST)

_Numbers = npt.NDArray[np.int64]
_Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Column:
    """The numbers of a column, 0 for null, and where the nulls are, if anywhere."""

    values: _Numbers
    missing: _Booleans | None

    def missing_at(self, rows: slice) -> _Booleans | None:
        return None if self.missing is None else self.missing[rows]


@dataclass(frozen=True)
class _Rows:
    """Readings as arrays."""

    begins: _Booleans
    """Whether a row is the first of a sequence of rows of one GPU."""
    ts: _Column
    power: _Column
    energy: _Column
    util: _Column
    limit: _Column


@dataclass(frozen=True)
class _Sequences:
    """The sequences of a block: each begins at one of `cuts`."""

    cuts: _Numbers

    def add(self, values: npt.NDArray[Any]) -> _Numbers:
        return np.add.reduceat(values, self.cuts, dtype=np.int64)

    def count(self, rows: _Booleans | None) -> _Numbers:
        if rows is None or not rows.any():
            return np.zeros(len(self.cuts), np.int64)
        return self.add(rows)

    def least(self, values: npt.NDArray[Any], missing: _Booleans | None = None) -> _Numbers:
        # Masks are left out where nothing is missing, which is nearly always: each is a pass over the block.
        known = values if missing is None else np.where(missing, _MOST, values)
        return np.minimum.reduceat(known, self.cuts).astype(np.int64)

    def most(self, values: npt.NDArray[Any], missing: _Booleans | None = None) -> _Numbers:
        known = values if missing is None else np.where(missing, _LEAST, values)
        return np.maximum.reduceat(known, self.cuts).astype(np.int64)


def profile_rows(readings: pl.DataFrame, *, goes_on: bool = False) -> pl.DataFrame:
    """Collect facts about readings, by sequence of rows of one GPU; `merge_profiles` puts them together.

    Args:
        readings: `PROFILED` in the order of the segment (texts may be numbers that stand for them): all of it, or a
            part; or those of several, with a column `segment`.
        goes_on: Whether the first row is the last one of the part before, so that only the step from it counts.

    Returns:
        gpu_uuid (and segment), host, gpu_index, model, sequence (its number), and what is counted or compared of it.
    """
    keys = [name for name in _KEYS if name in readings.columns]
    changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in keys)
    begins = readings.select(begins=changes)["begins"].to_numpy(writable=True)
    begins[:1] = True
    starts = np.flatnonzero(begins)
    names = readings[starts].select(*keys, "host", "gpu_index", "model")
    if readings.is_empty():
        return names.with_columns(pl.lit(0, pl.Int64).alias(name) for name in _FACTS)
    rows = _Rows(
        begins,
        _fill_nulls(readings["ts"].to_physical()),
        *(_fill_nulls(readings[name]) for name in _NUMBERS),
    )
    blocks = list(_profile_blocks(rows, starts, goes_on))
    facts = (
        pl.DataFrame({name: np.concatenate([block[name] for block in blocks]) for name in _FACTS})
        .group_by("sequence")
        .agg(pl.col(_COUNTED).sum(), pl.col(_SMALLEST).min(), pl.col(_LARGEST).max())
    )
    return names.with_columns(sequence=pl.int_range(pl.len(), dtype=pl.Int64)).join(
        facts, on="sequence", maintain_order="left", validate="1:1"
    )


def _fill_nulls(values: pl.Series) -> _Column:
    if not values.null_count():
        return _Column(values.to_numpy(), None)
    return _Column(values.fill_null(0).to_numpy(), values.is_null().to_numpy())


def _profile_blocks(rows: _Rows, starts: _Numbers, goes_on: bool) -> Iterator[dict[str, _Numbers]]:
    """Facts about rows, block by block, for each sequence that has any in it; `starts` are their first rows."""
    height = len(rows.begins)
    for low in range(0, height, _BLOCK):
        high = min(low + _BLOCK, height)
        inside = starts[np.searchsorted(starts, low, "right") : np.searchsorted(starts, high)]
        sequences = _Sequences(np.concatenate([[0], inside - low]))
        number = np.searchsorted(starts, sequences.cuts + low, "right") - 1
        block = slice(low, high)
        yield (
            {"sequence": number}
            | _profile_values(rows, sequences, block, skip_first=goes_on and low == 0)
            | _profile_steps(_measure_steps(rows, block), sequences)
        )


def _profile_values(
    rows: _Rows, sequences: _Sequences, block: slice, *, skip_first: bool
) -> dict[str, _Numbers]:
    """Facts about rows by themselves; `skip_first`: the first one was counted in the part before."""
    t, p, c, u = (column.values[block] for column in (rows.ts, rows.power, rows.energy, rows.util))
    no_time, no_power, no_energy, no_util = (
        column.missing_at(block) for column in (rows.ts, rows.power, rows.energy, rows.util)
    )
    no_value = None if no_power is None or no_energy is None else no_power & no_energy

    def count(found: _Booleans | None) -> _Numbers:
        if skip_first and found is not None:
            found = np.concatenate([[False], found[1:]])
        return sequences.count(found)

    rows_read = np.diff(sequences.cuts, append=len(t))
    rows_read[0] -= skip_first
    power_sum = sequences.add(p)
    power_sum[0] -= p[0] if skip_first else 0
    return {
        "rows_read": rows_read,
        "no_time": count(no_time),
        "null_power": count(no_power),
        "null_energy": count(no_energy),
        "power_sum_mw": power_sum,
        "no_value": count(no_value),
        "negative_energy": count(c < 0),
        "first_us": sequences.least(t, no_time),
        "last_us": sequences.most(t, no_time),
        "min_power_mw": sequences.least(p, no_power),
        "max_power_mw": sequences.most(p, no_power),
        "min_util_pct": sequences.least(u, no_util),
        "max_util_pct": sequences.most(u, no_util),
        "max_energy_mj": sequences.most(c, no_energy),
        "board_limit_mw": sequences.most(rows.limit.values[block], rows.limit.missing_at(block)),
    }


@dataclass(frozen=True)
class _Steps:
    """Steps to the rows of a block from the row before (the first of all has none) of the same GPU."""

    dt: _Numbers
    rise: _Numbers
    """Of the counter."""
    power_mj: _Numbers
    """Trapezoid of power."""
    mean_mw: npt.NDArray[np.float64]
    """Mean power that the counter implies."""
    timed: _Booleans
    """Whether the time is known at both ends."""
    counted: _Booleans
    powered: _Booleans


def _measure_steps(rows: _Rows, block: slice) -> _Steps:
    low, high = block.start, block.stop
    before: Any = slice(low - 1, high - 1) if low else np.r_[0, low : high - 1]
    t, p, c = (column.values for column in (rows.ts, rows.power, rows.energy))
    step = ~rows.begins[block]

    def known(column: _Column) -> _Booleans:
        missing = column.missing
        return step if missing is None else step & ~missing[block] & ~missing[before]

    dt = t[block] - t[before]
    rise = c[block] - c[before]
    power_mj = np.add(p[block], p[before], dtype=np.int64)
    power_mj *= dt
    power_mj //= 2_000_000
    # Exact as long as counters are below 9e15 mJ; a whole division takes four times as long.
    mean_mw = rise * 1e6
    mean_mw /= np.maximum(dt, 1)
    return _Steps(
        dt, rise, power_mj, mean_mw, known(rows.ts), known(rows.energy), known(rows.power)
    )


def _profile_steps(steps: _Steps, sequences: _Sequences) -> dict[str, _Numbers]:
    dt, rise, timed, counted = steps.dt, steps.rise, steps.timed, steps.counted
    long = timed & counted & (dt >= _SECOND_US)
    most_mw = np.maximum.reduceat(np.where(long, steps.mean_mw, float(_LEAST)), sequences.cuts)
    short = timed & (dt > 0) & (dt <= _SHORT_US)
    compared = short & counted & (rise >= 0) & steps.powered
    return {
        "steps_back": sequences.count(timed & (dt < 0)),
        "conflicts": sequences.count(timed & (dt == 0)),
        "counter_resets": sequences.count(counted & (rise < 0)),
        "still_us": sequences.add(np.where(timed & counted & (rise == 0) & (dt > 0), dt, 0)),
        "max_counter_mw": np.floor(most_mw).clip(_LEAST, 9e18).astype(np.int64),
        "gap_us": sequences.most(np.where(timed, dt, _LEAST)),
        "short_us": sequences.add(np.where(short, dt, 0)),
        "short_steps": sequences.count(short),
        "compared_counter_mj": sequences.add(np.where(compared, rise, 0)),
        "compared_power_mj": sequences.add(np.where(compared, steps.power_mj, 0)),
    }


def merge_profiles(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Merge facts about the parts of a segment into one row of facts per GPU.

    Args:
        parts: As `profile_rows` gives them, in the order of the segment.

    Returns:
        By gpu_uuid (and segment, where several were given): rows_read, first_ts, last_ts, null_power, null_energy,
        power_sum_mw (of the readings that have a power), no_value, min_power_mw, max_power_mw, max_counter_mw (mean power that the counter implies over steps of a
        second and more), compared_counter_mj and compared_power_mj (the rise of the counter, and the trapezoid of
        power, over the steps up to half a minute that have both), usual_step_ms (mean of those steps, null if there
        are none), min_util_pct, max_util_pct, negative_energy, steps_back, conflicts (rows at the time of the row
        before), counter_resets, still_us (time over which the counter did not move), max_energy_mj, board_limit_mw (the
        largest power limit), longest_gap_ms, host, gpu_index, model and no_time (rows without ts).
    """
    facts = pl.exclude(*_KEYS, "host", "gpu_index", "model", "sequence", "part", "goes_on")
    sequences = pl.concat(
        [part.with_columns(part=pl.lit(number)) for number, part in enumerate(parts)]
    )
    # A GPU that goes on from one part to the next is one sequence; one in several was not ordered.
    marked = sequences.with_columns(
        goes_on=(pl.col("sequence") == 0)
        & (pl.col("part") > 0)
        & pl.col("gpu_uuid").eq_missing(pl.col("gpu_uuid").shift())
    )
    keys = [name for name in _KEYS if name in sequences.columns]
    times = pl.from_epoch(pl.col("first_us", "last_us"), "us").dt.replace_time_zone("UTC")
    return (
        marked.with_columns(facts.replace({int(_LEAST): None, int(_MOST): None}))
        .group_by(keys)
        .agg(
            pl.col("host", "gpu_index", "model").first(),
            pl.col(_COUNTED).sum(),
            pl.col(_SMALLEST).min(),
            pl.col(_LARGEST).max(),
            sequences=pl.len() - pl.col("goes_on").sum(),
        )
        .with_columns(
            times,
            steps_back=pl.col("steps_back") + pl.col("sequences").cast(pl.Int64) - 1,
            longest_gap_ms=(pl.col("gap_us") // 1000).fill_null(0),
            usual_step_ms=pl.when(pl.col("short_steps") > 0).then(
                pl.col("short_us") // pl.col("short_steps").clip(1) // 1000
            ),
        )
        .rename({"first_us": "first_ts", "last_us": "last_ts"})
        .drop("gap_us", "sequences", "short_us", "short_steps")
        .sort(keys)
    )
