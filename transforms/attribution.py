"""Who holds the energy: runs, nobody (idle), or the unheld share of a shared GPU.

docs/method.md, "Attribution". A *cell* is a stretch of one slot on one GPU during which nothing
changes hands: a whole slot, mostly; slots that an allocation border cuts have several.
"""

from __future__ import annotations

import polars as pl

from transforms.constants import PPM, SLOT_US
from transforms.energy import explode_slots

METERED = ("counter_mj", "power_integral_mj", "gap_mj")
"""The parts of metered energy; each is conserved by itself."""

_CELL = ["gpu_key", "slot", "cell_start", "cell_end"]


def close_allocations(allocations: pl.LazyFrame, as_of_us: int) -> pl.LazyFrame:
    """Allocations in microseconds, those without an end closed at `as_of_us`.

    Takes run_id, gpu_key, from_ts, to_ts (null = goes on), share_ppm. Gives run_id, gpu_key,
    from_us, to_us, share_ppm; allocations of no length are left out.
    """
    return allocations.select(
        "run_id",
        "gpu_key",
        from_us=pl.col("from_ts").to_physical(),
        to_us=pl.col("to_ts").to_physical().fill_null(as_of_us),
        share_ppm=pl.col("share_ppm").cast(pl.Int64),
    ).filter(pl.col("to_us") > pl.col("from_us"))


def cut_slots(held: pl.LazyFrame) -> pl.LazyFrame:
    """The cells of every slot that an allocation border cuts: `_CELL` columns.

    Takes the frame of `close_allocations`. Borders on the slot grid cut nothing.
    """
    borders = (
        pl.concat(
            [
                held.select("gpu_key", at="from_us"),
                held.select("gpu_key", at="to_us"),
            ]
        )
        .filter(pl.col("at") % SLOT_US != 0)
        .unique()
        .with_columns(slot=pl.col("at") // SLOT_US)
    )
    starts = pl.concat(
        [
            borders.select("gpu_key", "slot", cell_start="at"),
            borders.select("gpu_key", "slot")
            .unique()
            .with_columns(cell_start=pl.col("slot") * SLOT_US),
        ]
    ).sort("gpu_key", "slot", "cell_start")
    return starts.with_columns(
        cell_end=pl.col("cell_start")
        .shift(-1)
        .over("gpu_key", "slot", order_by="cell_start")
        .fill_null((pl.col("slot") + 1) * SLOT_US)
    )


def list_held_cells(held: pl.LazyFrame, cut: pl.LazyFrame) -> pl.LazyFrame:
    """Every cell that some run holds: run_id, share_ppm and the `_CELL` columns.

    Takes the frames of `close_allocations` and `cut_slots`.
    """
    slots = explode_slots(held, "from_us", "to_us")
    cells = slots.join(cut, on=["gpu_key", "slot"], how="left").with_columns(
        cell_start=pl.col("cell_start").fill_null(pl.col("slot") * SLOT_US),
        cell_end=pl.col("cell_end").fill_null((pl.col("slot") + 1) * SLOT_US),
    )
    inside = (pl.col("cell_start") >= pl.col("from_us")) & (pl.col("cell_end") <= pl.col("to_us"))
    # A run may name one GPU twice over; its shares then add up.
    return cells.filter(inside).group_by("run_id", *_CELL).agg(pl.col("share_ppm").sum())


def share_energy(energy: str) -> pl.Expr:
    """A run's part of a cell's energy: cumulative floor over the runs of the cell.

    What the shares leave is the cell's energy less the last cumulative floor, so parts and rest
    add up to the cell exactly.
    """
    upto = (pl.col(energy).cast(pl.Int128) * pl.col("upto_ppm") // PPM).cast(pl.Int64)
    before = (
        pl.col(energy).cast(pl.Int128) * (pl.col("upto_ppm") - pl.col("share_ppm")) // PPM
    ).cast(pl.Int64)
    return (upto - before).alias(energy)


def attribute_energy(
    slots: pl.LazyFrame,
    cut_energy: pl.LazyFrame,
    held: pl.LazyFrame,
    limits: pl.LazyFrame,
) -> pl.LazyFrame:
    """Share metered energy out to runs, idle and unallocated (docs/method.md, "Attribution").

    Takes `slots` (gpu_key, slot, `METERED`, covered_us, gap_us), `cut_energy` (the same by cell,
    from `transforms.energy.compute_cell_energy`), `held` (from `list_held_cells`) and `limits` (gpu_key,
    idle_mw, limit_mw). Gives kind, run_id, gpu_key, slot, `METERED`, gap_low_mj, gap_high_mj,
    filled_mj, filled_low_mj, held_us; per GPU and slot the `METERED` columns add up to `slots`.
    """
    metered = [*METERED, "covered_us", "gap_us"]
    whole = (
        slots.join(cut_energy, on=["gpu_key", "slot"], how="anti")
        .with_columns(cell_start=pl.col("slot") * SLOT_US, cell_end=(pl.col("slot") + 1) * SLOT_US)
        .select(*_CELL, *metered)
    )
    energy = pl.concat([whole, cut_energy.select(*_CELL, *metered)])

    shared = (
        held.join(energy, on=_CELL, how="left")
        .with_columns(pl.col(metered).fill_null(0))
        .with_columns(
            upto_ppm=pl.col("share_ppm").cum_sum().over(_CELL, order_by="run_id"),
            total_ppm=pl.col("share_ppm").sum().over(_CELL),
            length_us=pl.col("cell_end") - pl.col("cell_start"),
        )
        .join(limits, on="gpu_key", how="left")
    )
    runs = shared.with_columns(
        pl.lit("run").alias("kind"),
        unseen_us=(pl.col("length_us") - pl.col("covered_us") - pl.col("gap_us")),
    ).select(
        "kind",
        "run_id",
        "gpu_key",
        "slot",
        *(share_energy(name) for name in METERED),
        **_bounds(pl.col("share_ppm")),
        held_us=pl.col("length_us") * pl.col("share_ppm") // PPM,
    )
    rest_ppm = PPM - pl.col("total_ppm")
    unallocated = (
        shared.filter((pl.col("upto_ppm") == pl.col("total_ppm")) & (pl.col("total_ppm") < PPM))
        # The last run of each cell: upto = total marks it, once, as shares are above zero.
        .with_columns(upto_ppm=pl.lit(PPM, pl.Int64), share_ppm=rest_ppm)
        .with_columns(pl.lit("unallocated").alias("kind"), unseen_us=pl.lit(0, pl.Int64))
        .select(
            "kind",
            pl.lit(None, pl.String).alias("run_id"),
            "gpu_key",
            "slot",
            *(share_energy(name) for name in METERED),
            **_bounds(pl.col("share_ppm")),
            held_us=(pl.col("covered_us") + pl.col("gap_us")) * pl.col("share_ppm") // PPM,
        )
    )
    idle = (
        energy.join(held.select(_CELL).unique(), on=_CELL, how="anti")
        .join(limits, on="gpu_key", how="left")
        .with_columns(
            pl.lit("idle").alias("kind"),
            share_ppm=pl.lit(PPM, pl.Int64),
            unseen_us=pl.lit(0, pl.Int64),
        )
        .select(
            "kind",
            pl.lit(None, pl.String).alias("run_id"),
            "gpu_key",
            "slot",
            *METERED,
            **_bounds(pl.col("share_ppm")),
            held_us=pl.col("covered_us") + pl.col("gap_us"),
        )
    )
    return (
        pl.concat([runs, unallocated, idle])
        .group_by("kind", "run_id", "gpu_key", "slot")
        .agg(
            pl.col(
                *METERED, "gap_low_mj", "gap_high_mj", "filled_mj", "filled_low_mj", "held_us"
            ).sum()
        )
        .sort("kind", "run_id", "gpu_key", "slot")
    )


def _bounds(share_ppm: pl.Expr) -> dict[str, pl.Expr]:
    """Bounds of gaps and of time without readings: idle power below, the board limit above."""

    def at(power: str, duration: str) -> pl.Expr:
        millijoules = pl.col(power) * pl.col(duration) // 1_000_000
        return (millijoules.cast(pl.Int128) * share_ppm // PPM).cast(pl.Int64)

    # A run's part of a gap is a cumulative floor, so it may exceed this floor by one.
    gap = (pl.col("gap_mj").cast(pl.Int128) * share_ppm // PPM).cast(pl.Int64)
    return {
        "gap_low_mj": pl.min_horizontal(at("idle_mw", "gap_us"), gap),
        "gap_high_mj": pl.max_horizontal(at("limit_mw", "gap_us"), gap + (gap > 0)),
        "filled_mj": at("limit_mw", "unseen_us"),
        "filled_low_mj": at("idle_mw", "unseen_us"),
    }


def add_bounds(energy: pl.LazyFrame, counter_ppm: int, power_ppm: int) -> pl.LazyFrame:
    """Add energy_mj, energy_low_mj, energy_high_mj and measured_mj.

    Takes the frame of `attribute_energy`. Measured energy carries the sensor's tolerance
    (`counter_ppm`, `power_ppm`), rounded outwards; gaps and filled time their own bounds.
    """
    counter, power = pl.col("counter_mj"), pl.col("power_integral_mj")
    slack = counter * counter_ppm + power * power_ppm
    outward = (slack + PPM - 1) // PPM
    measured = counter + power
    return energy.with_columns(
        energy_mj=measured + pl.col("gap_mj") + pl.col("filled_mj"),
        energy_low_mj=measured - outward + pl.col("gap_low_mj") + pl.col("filled_low_mj"),
        energy_high_mj=measured + outward + pl.col("gap_high_mj") + pl.col("filled_mj"),
        measured_mj=measured,
    )


def check_conservation(slots: pl.LazyFrame, attributed: pl.LazyFrame) -> pl.LazyFrame:
    """Metered against attributed + idle + unallocated, by GPU; the difference is 0 or a defect.

    Takes `slots` and the result of `attribute_energy`. Gives gpu_key, metered_mj, attributed_mj, idle_mj,
    unallocated_mj, difference_mj.
    """
    total = pl.sum_horizontal(*METERED)
    metered = slots.group_by("gpu_key").agg(metered_mj=total.sum())

    def held_by(kind: str) -> pl.Expr:
        return total.filter(pl.col("kind") == kind).sum()

    held = attributed.group_by("gpu_key").agg(
        attributed_mj=held_by("run"),
        idle_mj=held_by("idle"),
        unallocated_mj=held_by("unallocated"),
    )
    sums = ["metered_mj", "attributed_mj", "idle_mj", "unallocated_mj"]
    return (
        metered.join(held, on="gpu_key", how="full", coalesce=True)
        .with_columns(pl.col(sums).fill_null(0))
        .with_columns(
            difference_mj=pl.col("metered_mj")
            - pl.col("attributed_mj")
            - pl.col("idle_mj")
            - pl.col("unallocated_mj")
        )
        .sort("gpu_key")
    )
