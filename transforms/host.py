"""What a host draws beside its GPUs: CPU and memory, measured or modelled (docs/method.md, "Host").

A host's energy is divided among its GPUs in equal parts, and on each it follows the GPU: to the runs
that hold it, to idle or to the unallocated rest. A host without GPUs has one *host device* in their
place, which draws nothing itself.
"""

from __future__ import annotations

import polars as pl

from transforms.attribution import add_share_sums, find_unallocated_shares, share_energy
from transforms.constants import PPM, SLOT_US
from transforms.energy import explode_slots, floor_share

ENERGY = ("host_measured_mj", "host_modelled_mj")
"""The parts of a host's energy; each is conserved by itself."""

_CELL = ["gpu_key", "slot", "cell_start", "cell_end"]
_ROW = ["kind", "run_id", "gpu_key", "slot"]


def _take_between(energy: str, a: str, b: str) -> pl.Expr:
    """The energy of t0..t1 that falls into a..b, in proportion to time."""
    length = pl.col("t1") - pl.col("t0")
    before, after = (floor_share(energy, pl.col(at) - pl.col("t0"), length) for at in (a, b))
    return (after - before).alias(energy)


def _cut_at_slots(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Intervals cut at slot borders: host, component, slot, t0, t1 (us) and `ENERGY`."""
    end = pl.col("ts").to_physical()
    nothing = pl.lit(0, pl.Int64)
    spans = readings.filter(pl.col("span_us") > 0).select(
        "host",
        "component",
        t0=end - pl.col("span_us"),
        t1=end,
        host_measured_mj=pl.when("is_modelled").then(nothing).otherwise("energy_mj"),
        host_modelled_mj=pl.when("is_modelled").then("energy_mj").otherwise(nothing),
    )
    cut = explode_slots(spans, "t0", "t1").with_columns(
        a=pl.max_horizontal("t0", pl.col("slot") * SLOT_US),
        b=pl.min_horizontal("t1", (pl.col("slot") + 1) * SLOT_US),
    )
    return cut.select(
        "host",
        "component",
        "slot",
        *(_take_between(name, "a", "b") for name in ENERGY),
        t0="a",
        t1="b",
    )


def _sum_components(intervals: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Energy of all components, and metered_us: the time for which any of them is known."""
    return (
        intervals.group_by(*keys, "component")
        .agg(pl.col(ENERGY).sum(), metered_us=(pl.col("t1") - pl.col("t0")).sum())
        .group_by(keys)
        .agg(pl.col(ENERGY).sum(), pl.col("metered_us").max())
    )


def sum_host_slots(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Sum the energy of hosts by slot.

    Args:
        readings: host, component, ts (end of an interval), span_us, energy_mj, is_modelled; intervals of one component
            do not overlap.

    Returns:
        host, slot, host_mj (all components), host_modelled_mj, metered_us.
    """
    return (
        _sum_components(_cut_at_slots(readings), ["host", "slot"])
        .select(
            "host",
            "slot",
            "host_modelled_mj",
            "metered_us",
            host_mj=pl.sum_horizontal(ENERGY),
        )
        .sort("host", "slot")
    )


def divide_among_gpus(
    readings: pl.LazyFrame, carriers: pl.LazyFrame, cut_cells: pl.LazyFrame
) -> pl.LazyFrame:
    """Divide the energy of hosts among their GPUs, by cell.

    Args:
        readings: As `sum_host_slots` takes them.
        carriers: gpu_key, host, place (0, 1, ... among the `count` GPUs of the host), count.
        cut_cells: As `transforms.attribution.cut_slots` gives them.

    Returns:
        gpu_key, slot, cell_start, cell_end, `ENERGY` (mJ) and metered_us, one row per cell. Over the GPUs of a host
        they add up to the host's energy.
    """
    intervals = _cut_at_slots(readings)
    # Where no border cuts a slot on any GPU of the host, its total is all that is needed.
    fine = cut_cells.join(carriers, on="gpu_key", validate="m:1").select("host", "slot").unique()
    whole = _divide_slots(intervals.join(fine, on=["host", "slot"], how="anti"), carriers)
    cut = _divide_cells(intervals.join(fine, on=["host", "slot"], how="semi"), carriers, cut_cells)
    return pl.concat([whole, cut])


_DIVIDED = [*_CELL, *ENERGY, "metered_us"]


def _divide_slots(intervals: pl.LazyFrame, carriers: pl.LazyFrame) -> pl.LazyFrame:
    slot = pl.col("slot")
    return (
        _sum_components(intervals, ["host", "slot"])
        .join(carriers, on="host")
        .with_columns(*_take_gpu_part(), cell_start=slot * SLOT_US, cell_end=(slot + 1) * SLOT_US)
        .select(_DIVIDED)
    )


def _divide_cells(
    intervals: pl.LazyFrame, carriers: pl.LazyFrame, cut_cells: pl.LazyFrame
) -> pl.LazyFrame:
    slot = pl.col("slot")
    by_gpu = (
        intervals.join(carriers, on="host")
        .with_columns(_take_gpu_part())
        .join(cut_cells, on=["gpu_key", "slot"], how="left")
        .with_columns(
            pl.col("cell_start").fill_null(slot * SLOT_US),
            pl.col("cell_end").fill_null((slot + 1) * SLOT_US),
        )
        .with_columns(
            a=pl.max_horizontal("t0", "cell_start"), b=pl.min_horizontal("t1", "cell_end")
        )
        .filter(pl.col("b") > pl.col("a"))
        .select(
            "component", *_CELL, *(_take_between(name, "a", "b") for name in ENERGY), t0="a", t1="b"
        )
    )
    return _sum_components(by_gpu, _CELL).select(_DIVIDED)


def _take_gpu_part() -> list[pl.Expr]:
    """One GPU's part of the host's energy: cumulative floor over the GPUs in order of place."""
    return [
        (
            floor_share(name, pl.col("place") + 1, pl.col("count"))
            - floor_share(name, pl.col("place"), pl.col("count"))
        ).alias(name)
        for name in ENERGY
    ]


def attribute_host_energy(energy: pl.LazyFrame, held_cells: pl.LazyFrame) -> pl.LazyFrame:
    """Attribute the energy of hosts to runs, by their share of the GPU that carries it, idle and unallocated.

    Args:
        energy: As `divide_among_gpus` gives it.
        held_cells: As `transforms.attribution.list_held_cells` gives them.

    Returns:
        kind, run_id, gpu_key, slot, `ENERGY` (mJ) and metered_us (weighted by share). Over all kinds they add up to
        `energy`.
    """
    # One row of energy per cell, as `divide_among_gpus` sums by cell.
    shared = add_share_sums(held_cells.join(energy, on=_CELL, how="inner")).with_columns(
        kind=pl.lit("run")
    )
    unallocated = find_unallocated_shares(shared).with_columns(
        kind=pl.lit("unallocated"), run_id=pl.lit(None, pl.String)
    )
    held = pl.concat([shared, unallocated]).select(
        *_ROW,
        *(share_energy(name) for name in ENERGY),
        metered_us=pl.col("metered_us") * pl.col("share_ppm") // PPM,
    )
    idle = energy.join(held_cells, on=_CELL, how="anti").select(
        pl.lit("idle").alias("kind"),
        pl.lit(None, pl.String).alias("run_id"),
        "gpu_key",
        "slot",
        *ENERGY,
        "metered_us",
    )
    return pl.concat([held, idle]).group_by(_ROW).agg(pl.col(*ENERGY, "metered_us").sum())


def add_host_energy(
    energy: pl.LazyFrame,
    hosts: pl.LazyFrame,
    *,
    measured_ppm: int,
    modelled_low_ppm: int,
    modelled_high_ppm: int,
) -> pl.LazyFrame:
    """Add the energy of hosts, with its bounds, to that of GPUs.

    Args:
        energy: As `transforms.attribution.add_bounds` gives it.
        hosts: As `attribute_host_energy` gives it.
        measured_ppm: Tolerance of measured energy.
        modelled_low_ppm: Lower bound of modelled energy, as a part of its value.
        modelled_high_ppm: Its upper bound, likewise.

    Returns:
        The energy of GPUs with host_mj, host_measured_mj, host_low_mj, host_high_mj, and metered_us: the part of
        held_us for which the host was metered.
    """
    numbers = [name for name, dtype in energy.collect_schema().items() if dtype.is_integer()]
    # Both are sums by these columns, so they have one row each.
    joined = energy.join(hosts, on=_ROW, how="full", coalesce=True, nulls_equal=True).with_columns(
        pl.col(*(n for n in numbers if n not in _ROW), *ENERGY, "metered_us").fill_null(0)
    )
    measured, modelled = (pl.col(name) for name in ENERGY)
    slack = (measured * measured_ppm + PPM - 1) // PPM
    return joined.with_columns(
        # The host may be known while its GPU is not: that time is nobody's GPU time.
        pl.min_horizontal("metered_us", "held_us").alias("metered_us"),
        host_mj=measured + modelled,
        host_low_mj=measured - slack + modelled * modelled_low_ppm // PPM,
        host_high_mj=measured + slack + (modelled * modelled_high_ppm + PPM - 1) // PPM,
    ).drop("host_modelled_mj")
