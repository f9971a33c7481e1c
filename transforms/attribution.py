"""Who holds the energy: runs, nobody (idle), or the unheld share of a shared GPU.

docs/method.md, "Attribution". A *cell* is a part of one slot on one GPU during which nothing
changes hands: a whole slot, mostly; slots that an allocation border cuts have several.
"""

from __future__ import annotations

import polars as pl

from transforms.constants import PPM, SLOT_US
from transforms.energy import explode_slots

METERED = ("counter_mj", "power_integral_mj", "gap_mj")
"""The parts of metered energy; each is conserved by itself."""
FILLED = ("filled_us", "filled_mj", "filled_low_mj", "filled_high_mj")
"""Time that a run held and nobody read, and what stands in for its energy, with bounds."""

_CELL = ["gpu_key", "slot", "cell_start", "cell_end"]
_ROW = ["kind", "run_id", "gpu_key", "slot"]


def close_allocations(allocations: pl.LazyFrame, as_of_us: int) -> pl.LazyFrame:
    """Turn allocations into spans of time; those without an end last until `as_of_us`.

    Args:
        allocations: run_id, gpu_key, from_ts, to_ts (null where the run goes on), share_ppm.
        as_of_us: A time in microseconds since the epoch.

    Returns:
        Spans: run_id, gpu_key, from_us, to_us, share_ppm; none is empty.
    """
    return allocations.select(
        "run_id",
        "gpu_key",
        from_us=pl.col("from_ts").to_physical(),
        to_us=pl.col("to_ts").to_physical().fill_null(as_of_us),
        share_ppm=pl.col("share_ppm").cast(pl.Int64),
    ).filter(pl.col("to_us") > pl.col("from_us"))


def cut_slots(spans: pl.LazyFrame) -> pl.LazyFrame:
    """Cut slots into cells where allocations begin or end. Borders on the slot grid cut nothing.

    Args:
        spans: As `close_allocations` gives them.

    Returns:
        The cells of every slot that is cut: gpu_key, slot, cell_start, cell_end (us since the epoch).
    """
    borders = (
        pl.concat(
            [
                spans.select("gpu_key", at="from_us"),
                spans.select("gpu_key", at="to_us"),
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


def list_held_cells(spans: pl.LazyFrame, cut_cells: pl.LazyFrame) -> pl.LazyFrame:
    """List every cell that a run holds.

    Args:
        spans: As `close_allocations` gives them.
        cut_cells: As `cut_slots` gives them; slots that are not among them are one cell each.

    Returns:
        run_id, gpu_key, slot, cell_start, cell_end, share_ppm; one row per run and cell.
    """
    slots = explode_slots(spans, "from_us", "to_us")
    cells = slots.join(cut_cells, on=["gpu_key", "slot"], how="left").with_columns(
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


def add_share_sums(cells: pl.LazyFrame) -> pl.LazyFrame:
    """Add the sum of the shares of a cell up to each run, upto_ppm, and that of all of them, total_ppm."""
    return cells.with_columns(
        upto_ppm=pl.col("share_ppm").cum_sum().over(_CELL, order_by="run_id"),
        total_ppm=pl.col("share_ppm").sum().over(_CELL),
    )


def find_unallocated_shares(shared: pl.LazyFrame) -> pl.LazyFrame:
    """The share of each cell that its runs leave, as a row for `share_energy`.

    The last run of a cell is the one at which upto_ppm is total_ppm: there is just one, as shares are above zero.

    Args:
        shared: Cells by run, as `add_share_sums` gives them.

    Returns:
        One row per cell whose runs hold less than all of it, with upto_ppm and share_ppm of the rest.
    """
    total = pl.col("total_ppm")
    return shared.filter((pl.col("upto_ppm") == total) & (total < PPM)).with_columns(
        upto_ppm=pl.lit(PPM, pl.Int64), share_ppm=PPM - total
    )


def attribute_energy(
    slots: pl.LazyFrame,
    cut_energy: pl.LazyFrame,
    held_cells: pl.LazyFrame,
    limits: pl.LazyFrame,
) -> pl.LazyFrame:
    """Attribute metered energy to runs, idle and unallocated (docs/method.md, "Attribution").

    Args:
        slots: gpu_key, slot, `METERED` (mJ), covered_us, gap_us.
        cut_energy: The same by cell, as `transforms.energy.compute_cell_energy` gives it.
        held_cells: As `list_held_cells` gives them.
        limits: gpu_key, idle_mw, limit_mw.

    Returns:
        kind, run_id, gpu_key, slot, `METERED`, gap_low_mj, gap_high_mj, `FILLED`, held_us. The
        `METERED` columns of a GPU and slot add up to those of `slots`.
    """
    energy = _list_cell_energy(slots, cut_energy)
    shared = (
        # One row of energy per cell: `slots` and `cut_energy` have one each, and share no slot.
        add_share_sums(
            held_cells.join(energy, on=_CELL, how="left").with_columns(
                pl.col(_METERED_TIME).fill_null(0)
            )
        )
        .with_columns(length_us=pl.col("cell_end") - pl.col("cell_start"))
        .join(limits, on="gpu_key", how="left", validate="m:1")
    )
    idle = energy.join(held_cells, on=_CELL, how="anti").join(
        limits, on="gpu_key", how="left", validate="m:1"
    )
    return (
        pl.concat([_attribute_to_runs(shared), _leave_unallocated(shared), _leave_idle(idle)])
        .group_by("kind", "run_id", "gpu_key", "slot")
        .agg(pl.col(*METERED, "gap_low_mj", "gap_high_mj", *FILLED, "held_us").sum())
        .sort("kind", "run_id", "gpu_key", "slot")
    )


_METERED_TIME = [*METERED, "covered_us", "gap_us"]


def _list_cell_energy(slots: pl.LazyFrame, cut_energy: pl.LazyFrame) -> pl.LazyFrame:
    """Energy by cell: slots that nothing cuts are one cell each."""
    whole = slots.join(cut_energy, on=["gpu_key", "slot"], how="anti").with_columns(
        cell_start=pl.col("slot") * SLOT_US, cell_end=(pl.col("slot") + 1) * SLOT_US
    )
    return pl.concat([cells.select(*_CELL, *_METERED_TIME) for cells in (whole, cut_energy)])


def _attribute_to_runs(shared: pl.LazyFrame) -> pl.LazyFrame:
    unseen_us = pl.col("length_us") - pl.col("covered_us") - pl.col("gap_us")
    return shared.with_columns(kind=pl.lit("run"), unseen_us=unseen_us).select(
        *_ROW,
        *(share_energy(name) for name in METERED),
        **_bounds(pl.col("share_ppm")),
        held_us=pl.col("length_us") * pl.col("share_ppm") // PPM,
    )


def _leave_unallocated(shared: pl.LazyFrame) -> pl.LazyFrame:
    return (
        find_unallocated_shares(shared)
        .with_columns(_nobody("unallocated"), unseen_us=pl.lit(0, pl.Int64))
        .select(
            *_ROW,
            *(share_energy(name) for name in METERED),
            **_bounds(pl.col("share_ppm")),
            held_us=(pl.col("covered_us") + pl.col("gap_us")) * pl.col("share_ppm") // PPM,
        )
    )


def _leave_idle(energy: pl.LazyFrame) -> pl.LazyFrame:
    return energy.with_columns(
        _nobody("idle"), share_ppm=pl.lit(PPM, pl.Int64), unseen_us=pl.lit(0, pl.Int64)
    ).select(
        *_ROW,
        *METERED,
        **_bounds(pl.col("share_ppm")),
        held_us=pl.col("covered_us") + pl.col("gap_us"),
    )


def _nobody(kind: str) -> list[pl.Expr]:
    """The columns that say who holds energy, where no run does."""
    return [pl.lit(kind).alias("kind"), pl.lit(None, pl.String).alias("run_id")]


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
        "filled_us": pl.col("unseen_us") * share_ppm // PPM,
        "filled_mj": at("limit_mw", "unseen_us"),
        "filled_low_mj": at("idle_mw", "unseen_us"),
        "filled_high_mj": at("limit_mw", "unseen_us"),
    }


SEEN_US = 60_000_000
"""Time with readings that a run needs on a GPU before its mean there says what it usually draws: a minute."""


def find_usual_powers(energy: pl.LazyFrame, devices: pl.LazyFrame) -> pl.LazyFrame:
    """Find what runs usually drew on the GPUs of which they held some time without readings.

    It is the mean of what was read on that GPU while the run held it; where there is none, that of its other
    GPUs of the same limit (docs/method.md, "Time without reading").

    Args:
        energy: kind, run_id, gpu_key, `METERED`, filled_us, held_us: `attribute_energy`, or its sums.
        devices: gpu_key, limit_mw.

    Returns:
        run_id, gpu_key and usual_mw, one row for each that is known and wanted.
    """
    read = (
        energy.filter(pl.col("kind") == "run")
        .group_by("run_id", "gpu_key")
        .agg(
            pl.sum_horizontal(*METERED).sum().alias("read_mj"),
            (pl.col("held_us") - pl.col("filled_us")).sum().alias("read_us"),
            pl.col("filled_us").sum(),
        )
        .join(devices.select("gpu_key", "limit_mw"), on="gpu_key", how="left", validate="m:1")
    )
    alike = ["run_id", "limit_mw"]
    own = pl.col("read_us") >= SEEN_US
    others_mj = pl.col("read_mj").filter(own).sum().over(alike)
    others_us = pl.col("read_us").filter(own).sum().over(alike)
    return (
        read.with_columns(
            mj=pl.when(own).then("read_mj").otherwise(others_mj),
            us=pl.when(own).then("read_us").otherwise(others_us),
        )
        .filter((pl.col("filled_us") > 0) & (pl.col("us") > 0))
        .select(
            "run_id",
            "gpu_key",
            usual_mw=(pl.col("mj").cast(pl.Int128) * 1_000_000 // pl.col("us")).cast(pl.Int64),
        )
    )


def fill_unread_time(energy: pl.LazyFrame, powers: pl.LazyFrame) -> pl.LazyFrame:
    """Fill the time that runs held and nobody read with what they usually drew.

    Where that is not known it stays at the board limit. The bounds stay idle power and limit, or the usual
    power itself where it lies beyond them.

    Args:
        energy: As `attribute_energy` gives it.
        powers: As `find_usual_powers` gives them.

    Returns:
        The same with other filled_mj.
    """
    usual = (pl.col("usual_mw").cast(pl.Int128) * pl.col("filled_us") // 1_000_000).cast(pl.Int64)
    return (
        energy.join(
            powers, on=["run_id", "gpu_key"], how="left", maintain_order="left", validate="m:1"
        )
        .with_columns(filled_mj=pl.coalesce(usual, "filled_mj"))
        .with_columns(
            filled_low_mj=pl.min_horizontal("filled_low_mj", "filled_mj"),
            filled_high_mj=pl.max_horizontal("filled_high_mj", "filled_mj"),
        )
        .drop("usual_mw")
    )


def add_bounds(energy: pl.LazyFrame, counter_ppm: int, power_ppm: int) -> pl.LazyFrame:
    """Add the energy of runs with its bounds.

    Measured energy carries the sensor's tolerance, rounded outwards; gaps and filled time have bounds of their own.

    Args:
        energy: As `attribute_energy` gives it.
        counter_ppm: Tolerance of energy counters.
        power_ppm: Tolerance of power readings.

    Returns:
        The same with energy_mj, energy_low_mj, energy_high_mj and measured_mj.
    """
    counter, power = pl.col("counter_mj"), pl.col("power_integral_mj")
    slack = counter * counter_ppm + power * power_ppm
    outward = (slack + PPM - 1) // PPM
    measured = counter + power
    return energy.with_columns(
        energy_mj=measured + pl.col("gap_mj") + pl.col("filled_mj"),
        energy_low_mj=measured - outward + pl.col("gap_low_mj") + pl.col("filled_low_mj"),
        energy_high_mj=measured + outward + pl.col("gap_high_mj") + pl.col("filled_high_mj"),
        measured_mj=measured,
    )


def check_conservation(slots: pl.LazyFrame, attributed: pl.LazyFrame) -> pl.LazyFrame:
    """Hold metered energy against attributed + idle + unallocated: a difference other than 0 is a defect.

    Args:
        slots: Metered energy: gpu_key and `METERED` (mJ).
        attributed: As `attribute_energy` gives it, or its sums.

    Returns:
        One row per GPU: gpu_key, metered_mj, attributed_mj, idle_mj, unallocated_mj, difference_mj.
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
        metered.join(held, on="gpu_key", how="full", coalesce=True, validate="1:1")
        .with_columns(pl.col(sums).fill_null(0))
        .with_columns(
            difference_mj=pl.col("metered_mj")
            - pl.col("attributed_mj")
            - pl.col("idle_mj")
            - pl.col("unallocated_mj")
        )
        .sort("gpu_key")
    )
