"""From readings to metered energy per GPU and slot (docs/method.md, "Energy of a GPU").

The work is done in two steps so that it can be cut anywhere. `reduce_readings` reduces any part of the readings
to *stretches*: unbroken sequences of one kind of measurement within a slot. `compute_slot_energy` adds them and what
lies between them, from one part or from thousands. All sums are integers: counter energy in millijoules, power integrals in
"double nanojoules" ((p0 + p1) mW x dt us = 2 nJ), so order and partitioning cannot change them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from transforms.constants import SLOT_US
from transforms.gaps import NOBODY, GapRule, estimate_gaps

READING_COLUMNS = ("gpu_key", "ts", "power_mw", "energy_mj", "averaged")
"""Input of `reduce_readings`: `averaged` is true where power is NVML's 1 s average."""

_AVERAGE_WINDOW_US = 1_500_000
"""Up to this step a 1 s average stands for the whole interval before it; beyond, it is a sample."""

_BLOCK = 1 << 15
"""Readings whose columns stay in the processor's cache while several passes go over them."""

_Numbers = npt.NDArray[np.signedinteger[Any]]
_Booleans = npt.NDArray[np.bool_]

_DNJ_PER_MJ = 2_000_000
"""Double nanojoules in a millijoule."""

_SUMS = ("counter_mj", "power_dnj", "gap_dnj", "covered_us", "gap_us", "counter_resets")
_ENDS = ("t", "p", "c", "averaged")


def _measure(ends: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame) -> pl.LazyFrame:
    """Energy of intervals t0..t1 with end values p0, p1 (mW), c0, c1 (mJ), as `_SUMS` columns.

    Counter where both ends have one and it did not go back; else the trapezoid of power (or the 1 s average
    itself); beyond `max_gap_us` it is a gap.
    """
    dt = pl.col("t1") - pl.col("t0")
    counted = pl.col("c1") - pl.col("c0")
    has_counter = (counted >= 0).fill_null(False)
    rectangle = pl.col("averaged1") & (dt <= _AVERAGE_WINDOW_US)
    double_power = pl.when(rectangle).then(pl.col("p1") * 2).otherwise(pl.col("p0") + pl.col("p1"))
    has_power = ~has_counter & double_power.is_not_null()
    measured = has_power & (dt <= rule.max_gap_us)
    nothing = pl.lit(0, pl.Int64)
    intervals = ends.select(
        "gpu_key",
        "t0",
        "t1",
        "p0",
        "p1",
        counter_mj=pl.when(has_counter).then(counted).otherwise(nothing),
        power_dnj=pl.when(measured).then(double_power * dt).otherwise(nothing),
        gap_dnj=nothing,
        covered_us=pl.when(has_counter | measured).then(dt).otherwise(nothing),
        gap_us=nothing,
        counter_resets=(counted < 0).fill_null(False).cast(pl.Int64),
        is_gap=has_power & ~measured,
    )
    gaps = estimate_gaps(intervals.filter("is_gap"), rule, spans)
    return pl.concat([rows.select("gpu_key", "t0", "t1", *_SUMS) for rows in (intervals, gaps)])


def _has_value() -> pl.Expr:
    """Readings with neither power nor counter say nothing and are left out."""
    return pl.col("power_mw").is_not_null() | pl.col("energy_mj").is_not_null()


def reduce_readings(readings: pl.DataFrame, rule: GapRule) -> pl.DataFrame:
    """Reduce readings to one row per GPU, slot and unbroken stretch of one kind of measurement.

    A new stretch begins with another GPU or slot, after a step longer than `max_gap_us`, where the
    counter goes back, and where counter or power begin or cease to be there. So a stretch with a
    counter has measured last - first, one without it the integral of its power, and everything
    in between stretches (gaps, resets, slot borders) is left to `measure_seams`.

    Args:
        readings: `READING_COLUMNS`, best in order of time within each sequence of rows of one GPU. Any contiguous part
            will do, and a GPU may come in several sequences (segments one after the other; see `find_overlaps`).
        rule: How long a step between readings may be.

    Returns:
        gpu_key, slot (its number since the epoch), readings (how many), power_dnj (integral of power within the
        stretch), and the first and last reading: first_t, first_p, first_c, first_averaged, last_t, ... Readings
        without any value are left out.
    """
    # Leaving rows out copies them all, and there are some only where both columns have nulls.
    if readings["power_mw"].null_count() and readings["energy_mj"].null_count():
        readings = readings.filter(_has_value())
    columns = readings.select(
        "gpu_key",
        t=pl.col("ts").to_physical(),
        p=pl.col("power_mw"),
        c=pl.col("energy_mj"),
        averaged=pl.col("averaged").fill_null(False),
    )
    starts, power_dnj = _find_stretches(columns, rule)
    if _goes_back_in_time(columns, starts):
        return reduce_readings(readings.sort(READING_COLUMNS, nulls_last=True), rule)
    lengths = np.diff(starts, append=columns.height)
    first, last = columns[starts], columns[starts + lengths - 1]
    ends = {
        f"{side}_{name}": rows[name].cast(pl.Int64) if name == "p" else rows[name]
        for side, rows in (("first", first), ("last", last))
        for name in _ENDS
    }
    made = {"slot": first["t"] // SLOT_US, "readings": lengths, "power_dnj": power_dnj}
    return pl.DataFrame({"gpu_key": first["gpu_key"], **made, **ends})


def _goes_back_in_time(columns: pl.DataFrame, starts: _Numbers) -> bool:
    """Whether a reading is earlier than the one before of its GPU; such steps all begin a stretch."""
    now, before = columns[starts[1:]], columns[starts[1:] - 1]
    earlier = (now["gpu_key"] == before["gpu_key"]) & (now["t"] < before["t"])
    return bool(earlier.any())


def _find_stretches(columns: pl.DataFrame, rule: GapRule) -> tuple[_Numbers, _Numbers]:
    """Find where stretches begin, and the integral of power within each (docs/performance.md).

    In NumPy, block by block: the passes over a block find it in the processor's cache, and the
    results are small. The same in expressions took twice as long.
    """
    gpu, t = columns["gpu_key"].to_numpy(), columns["t"].to_numpy()
    averaged = _as_booleans(columns["averaged"])
    (p, no_power), (c, no_counter) = (_fill_unless_absent(columns[name]) for name in ("p", "c"))
    counted = columns["c"].null_count() < columns.height
    starts = [np.zeros(min(1, columns.height), np.int64)]
    sums = [np.zeros(min(1, columns.height), np.int64)]
    for low in range(0, columns.height - 1, _BLOCK):
        high = min(low + 1 + _BLOCK, columns.height)
        # The intervals that end at readings low + 1 to high - 1.
        before, after = slice(low, high - 1), slice(low + 1, high)
        dt = t[after] - t[before]
        slot = t[low:high] // SLOT_US
        edge = gpu[after] != gpu[before]
        edge |= slot[1:] != slot[:-1]
        # Steps back become huge.
        edge |= dt.view(np.uint64) > rule.max_gap_us
        edge |= c[after] < c[before]
        for missing in (no_power, no_counter):
            if missing is not None:
                edge |= missing[after] != missing[before]
        begins = np.flatnonzero(edge)
        starts.append(begins + low + 1)
        if no_counter is None and counted:
            sums.append(np.zeros(begins.size, np.int64))
            continue
        rectangle = averaged[after] & (dt <= _AVERAGE_WINDOW_US)
        power_dnj = np.where(rectangle, p[after], p[before]).astype(np.int64)
        power_dnj += p[after]
        power_dnj *= dt
        power_dnj[edge] = 0
        if no_counter is not None:
            power_dnj *= no_counter[after]
        parts = np.add.reduceat(power_dnj, np.concatenate([[0], begins]))
        # The first part belongs to the stretch that was open before the block.
        open_sums = next(block for block in reversed(sums) if block.size)
        open_sums[-1] += parts[0]
        sums.append(parts[1:])
    return np.concatenate(starts), np.concatenate(sums)


def _as_booleans(values: pl.Series) -> _Booleans:
    """Truth values, without an array of their own where all are the same."""
    if values.all() or not values.any():
        return np.broadcast_to(np.bool_(values.any()), len(values))
    return values.to_numpy()


def _fill_unless_absent(values: pl.Series) -> tuple[_Numbers, _Booleans | None]:
    """Numbers with 0 for null; and where those are, unless all are or none is."""
    if not values.null_count():
        return values.to_numpy(), None
    if values.null_count() == len(values):
        return np.broadcast_to(np.int64(0), len(values)), None
    return values.fill_null(0).to_numpy(), values.is_null().to_numpy()


def _sum_within(stretches: pl.LazyFrame) -> pl.LazyFrame:
    """Energy inside each stretch, in the columns of `_SUMS`."""
    counted = pl.col("first_c").is_not_null()
    length = pl.col("last_t") - pl.col("first_t")
    nothing = pl.lit(0, pl.Int64)
    return stretches.select(
        "gpu_key",
        "slot",
        "readings",
        counter_mj=pl.when(counted).then(pl.col("last_c") - pl.col("first_c")).otherwise(nothing),
        power_dnj=pl.when(counted).then(nothing).otherwise("power_dnj"),
        gap_dnj=nothing,
        covered_us=length,
        gap_us=nothing,
        counter_resets=nothing,
    )


def find_overlaps(stretches: pl.DataFrame) -> pl.DataFrame:
    """Find the slots in which stretches overlap, so that their readings must be merged first.

    Stretches that only touch are fine.

    Args:
        stretches: As `reduce_readings` gives them, all of each slot.

    Returns:
        gpu_key, slot.
    """
    ordered = stretches.sort("gpu_key", "first_t", "last_t")
    overlap = (
        (pl.col("gpu_key") == pl.col("gpu_key").shift())
        & (pl.col("slot") == pl.col("slot").shift())
        & (pl.col("first_t") < pl.col("last_t").shift())
    )
    return ordered.filter(overlap).select("gpu_key", "slot").unique()


def measure_seams(
    stretches: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame = NOBODY
) -> pl.LazyFrame:
    """Measure the intervals between one stretch and the next of the same GPU.

    Args:
        stretches: As `reduce_readings` gives them; they do not overlap.
        rule: How long a step between readings may be.
        spans: All allocations of these GPUs (gpu_key, from_us, to_us): who held a GPU tells what a gap may hold.

    Returns:
        gpu_key, t0, t1 (us since the epoch), counter_mj, power_dnj, gap_dnj, covered_us, gap_us, counter_resets.
    """
    return _measure(_list_seams(stretches), rule, spans)


def _list_seams(stretches: pl.LazyFrame) -> pl.LazyFrame:
    """The ends of the intervals between stretches: gpu_key, t0, t1, p0, p1, c0, c1, averaged1."""
    ordered = stretches.sort("gpu_key", "first_t", "last_t")
    return (
        ordered.select(
            "gpu_key",
            same=pl.col("gpu_key") == pl.col("gpu_key").shift(),
            t0=pl.col("last_t").shift(),
            t1=pl.col("first_t"),
            p0=pl.col("last_p").shift(),
            p1=pl.col("first_p"),
            c0=pl.col("last_c").shift(),
            c1=pl.col("first_c"),
            averaged1=pl.col("first_averaged"),
        )
        .filter(pl.col("same") & (pl.col("t1") > pl.col("t0")))
        .drop("same")
    )


def measure_slot_crossings(
    stretches: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame = NOBODY
) -> pl.LazyFrame:
    """Measure the intervals that lead from one slot into another, as `measure_seams` does."""
    crossing = pl.col("t0") // SLOT_US != pl.col("t1") // SLOT_US
    return _measure(_list_seams(stretches).filter(crossing), rule, spans)


def measure_intervals(
    readings: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame = NOBODY
) -> pl.LazyFrame:
    """Measure the intervals between successive readings of one GPU inside one slot.

    Args:
        readings: `READING_COLUMNS`, ordered by (gpu_key, ts).
        rule: How long a step between readings may be.
        spans: As `measure_seams` takes them.

    Returns:
        The columns of `measure_seams`.
    """
    timed = readings.filter(_has_value()).with_columns(
        t=pl.col("ts").to_physical(), p=pl.col("power_mw").cast(pl.Int64)
    )
    ends = (
        timed.select(
            "gpu_key",
            same=(pl.col("gpu_key") == pl.col("gpu_key").shift())
            & (pl.col("t") // SLOT_US == pl.col("t").shift() // SLOT_US),
            t0=pl.col("t").shift(),
            t1=pl.col("t"),
            p0=pl.col("p").shift(),
            p1=pl.col("p"),
            c0=pl.col("energy_mj").shift(),
            c1=pl.col("energy_mj"),
            averaged1=pl.col("averaged").fill_null(False),
        )
        .filter(pl.col("same") & (pl.col("t1") > pl.col("t0")))
        .drop("same")
    )
    return _measure(ends, rule, spans)


def spread_stretches(stretches: pl.LazyFrame) -> pl.LazyFrame:
    """Spread the energy of stretches evenly over them, where their readings are no longer there.

    What does not divide evenly by the length of a stretch falls into its last microsecond, so that
    `compute_cell_energy` adds up exactly.

    Args:
        stretches: As `reduce_readings` gives them.

    Returns:
        Intervals in the columns of `measure_seams`.
    """
    length = pl.col("last_t") - pl.col("first_t")
    within = (
        stretches.filter(length > 0)
        .with_columns(
            dt=length,
            counter_mj=(pl.col("last_c") - pl.col("first_c")).fill_null(0),
            power_dnj=pl.when(pl.col("first_c").is_null()).then("power_dnj").otherwise(0),
        )
        .with_columns(
            most_mj=floor_share("counter_mj", pl.col("dt") - 1, pl.col("dt")),
            most_dnj=pl.col("power_dnj") // pl.col("dt") * (pl.col("dt") - 1),
        )
    )
    nothing = pl.lit(0, pl.Int64)

    def part(t0: pl.Expr, t1: pl.Expr, counter: pl.Expr, power: pl.Expr) -> pl.LazyFrame:
        return within.select(
            "gpu_key",
            t0=t0,
            t1=t1,
            counter_mj=counter,
            power_dnj=power,
            gap_dnj=nothing,
            covered_us=t1 - t0,
            gap_us=nothing,
            counter_resets=nothing,
        ).filter(pl.col("t1") > pl.col("t0"))

    first, last = pl.col("first_t"), pl.col("last_t")
    most, most_dnj = pl.col("most_mj"), pl.col("most_dnj")
    return pl.concat(
        [
            part(first, last - 1, most, most_dnj),
            part(last - 1, last, pl.col("counter_mj") - most, pl.col("power_dnj") - most_dnj),
        ]
    )


def explode_slots(spans: pl.LazyFrame, start: str, end: str) -> pl.LazyFrame:
    """Repeat each row for every slot that start..end (us; the end is excluded) touches, with its number as `slot`."""
    return spans.with_columns(
        slot=pl.int_ranges(pl.col(start) // SLOT_US, (pl.col(end) - 1) // SLOT_US + 1)
    ).explode("slot")


def floor_share(energy: str, part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """floor(energy * part / whole), in 128 bits: differences of it add up to the energy exactly."""
    wide = pl.col(energy).cast(pl.Int128) * part.cast(pl.Int128)
    return (wide // whole.cast(pl.Int128)).cast(pl.Int64)


def _share_over_time(cut: pl.LazyFrame) -> pl.LazyFrame:
    """Share out each interval to its part a..b, in proportion to time.

    Counter energy by cumulative floor from the interval's start, in 128 bits: the parts of one
    interval add up to it exactly, however it is cut.
    """
    dt = pl.col("t1") - pl.col("t0")

    def counted(at: str) -> pl.Expr:
        return floor_share("counter_mj", pl.col(at) - pl.col("t0"), dt)

    part = pl.col("b") - pl.col("a")
    return cut.filter(part > 0).with_columns(
        counter_mj=counted("b") - counted("a"),
        # Whole multiples of dt, so the division is exact.
        **{
            name: pl.col(name) // dt * part
            for name in ("power_dnj", "gap_dnj", "covered_us", "gap_us")
        },
        counter_resets=pl.when(pl.col("b") == pl.col("t1"))
        .then(pl.col("counter_resets"))
        .otherwise(0),
    )


def _cut_at_slots(intervals: pl.LazyFrame) -> pl.LazyFrame:
    slots = explode_slots(intervals, "t0", "t1")
    return _share_over_time(
        slots.with_columns(
            a=pl.max_horizontal("t0", pl.col("slot") * SLOT_US),
            b=pl.min_horizontal("t1", (pl.col("slot") + 1) * SLOT_US),
        )
    )


def compute_slot_energy(
    stretches: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame = NOBODY
) -> pl.LazyFrame:
    """Compute metered energy per GPU and slot from stretches (docs/method.md, "Slots").

    Args:
        stretches: As `reduce_readings` gives them; those of one GPU must not overlap (see `find_overlaps`).
        rule: How long a step between readings may be.
        spans: As `measure_seams` takes them.

    Returns:
        gpu_key, slot, readings, counter_mj, power_dnj, gap_dnj, covered_us, gap_us, counter_resets.
    """
    between = _cut_at_slots(measure_seams(stretches, rule, spans)).select(
        "gpu_key", "slot", pl.lit(0, pl.Int64).alias("readings"), *_SUMS
    )
    return (
        pl.concat([_sum_within(stretches), between])
        .group_by("gpu_key", "slot")
        .agg(pl.col("readings", *_SUMS).sum())
        .sort("gpu_key", "slot")
    )


def convert_to_millijoules(energy: pl.LazyFrame, *, within: list[str], order: str) -> pl.LazyFrame:
    """Turn power_dnj and gap_dnj into power_integral_mj and gap_mj.

    The running total of a group is rounded, so that the parts of a slot add up to the slot, however it is cut.

    Args:
        energy: power_dnj, gap_dnj and the columns named below.
        within: Columns that tell one group from another.
        order: Column that orders a group.

    Returns:
        The same with power_integral_mj and gap_mj for power_dnj and gap_dnj.
    """

    def rounded(name: str) -> pl.Expr:
        total = (pl.col(name).cum_sum() + _DNJ_PER_MJ // 2) // _DNJ_PER_MJ
        return (total - total.shift(fill_value=0)).over(within, order_by=order)

    return energy.with_columns(
        power_integral_mj=rounded("power_dnj"), gap_mj=rounded("gap_dnj")
    ).drop("power_dnj", "gap_dnj")


def compute_gpu_slots(
    stretches: pl.LazyFrame, rule: GapRule, spans: pl.DataFrame = NOBODY
) -> pl.LazyFrame:
    """Compute metered energy per GPU and slot, in millijoules.

    Args:
        stretches: As `compute_slot_energy` takes them.
        rule: How long a step between readings may be.
        spans: As `measure_seams` takes them.

    Returns:
        The columns of the table `gpu_slot`, and gap_us.
    """
    half = _DNJ_PER_MJ // 2
    return compute_slot_energy(stretches, rule, spans).select(
        "gpu_key",
        slot_start=pl.from_epoch(pl.col("slot") * SLOT_US, "us").dt.replace_time_zone("UTC"),
        counter_mj="counter_mj",
        power_integral_mj=(pl.col("power_dnj") + half) // _DNJ_PER_MJ,
        gap_mj=(pl.col("gap_dnj") + half) // _DNJ_PER_MJ,
        covered_us="covered_us",
        gap_us="gap_us",
        readings="readings",
        counter_resets="counter_resets",
    )


def compute_cell_energy(intervals: pl.LazyFrame, cells: pl.LazyFrame) -> pl.LazyFrame:
    """Compute metered energy of the cells of slots that an allocation border cuts.

    Args:
        intervals: Those of these slots, as `measure_intervals` and `measure_slot_crossings` give them together.
        cells: gpu_key, slot, cell_start, cell_end (us since the epoch), which together fill each slot.

    Returns:
        gpu_key, slot, cell_start, cell_end, counter_mj, power_integral_mj, gap_mj, covered_us, gap_us, one row per cell.
        Sums over a slot equal those of `compute_gpu_slots`.
    """
    sums = ["counter_mj", "power_dnj", "gap_dnj", "covered_us", "gap_us"]
    keys = ["gpu_key", "slot", "cell_start", "cell_end"]
    cut = (
        explode_slots(intervals, "t0", "t1")
        .join(cells, on=["gpu_key", "slot"], how="inner")
        .with_columns(
            a=pl.max_horizontal("t0", "cell_start"), b=pl.min_horizontal("t1", "cell_end")
        )
    )
    energy = _share_over_time(cut).group_by(keys).agg(pl.col(sums).sum())
    whole = cells.join(energy, on=keys, how="left", validate="1:1").with_columns(
        pl.col(sums).fill_null(0)
    )
    return convert_to_millijoules(whole, within=["gpu_key", "slot"], order="cell_start")
