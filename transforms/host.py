"""What a host draws beside its GPUs: CPU and memory, measured or modelled (docs/method.md, "Host").

A host's energy is divided among its GPUs in equal parts, and on each it follows the GPU: to the runs
that hold it, to idle or to the unallocated rest. A host without GPUs has one *host device* in their
place, which draws nothing itself.
"""

from __future__ import annotations

import polars as pl

from transforms.attribution import share_energy
from transforms.constants import PPM, SLOT_US
from transforms.energy import explode_slots, floor_share

ENERGY = ("host_measured_mj", "host_modelled_mj")
"""The parts of a host's energy; each is conserved by itself."""

_CELL = ["gpu_key", "slot", "cell_start", "cell_end"]
_ROW = ["kind", "run_id", "gpu_key", "slot"]


def _between(energy: str, a: str, b: str) -> pl.Expr:
    """The energy of t0..t1 that falls into a..b, in proportion to time."""
    length = pl.col("t1") - pl.col("t0")
    before, after = (floor_share(energy, pl.col(at) - pl.col("t0"), length) for at in (a, b))
    return (after - before).alias(energy)


def _pieces(readings: pl.LazyFrame) -> pl.LazyFrame:
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
        *(_between(name, "a", "b") for name in ENERGY),
        t0="a",
        t1="b",
    )


def _summed(pieces: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Energy of all parts, and metered_us: time for which any part is known."""
    return (
        pieces.group_by(*keys, "component")
        .agg(pl.col(ENERGY).sum(), metered_us=(pl.col("t1") - pl.col("t0")).sum())
        .group_by(keys)
        .agg(pl.col(ENERGY).sum(), pl.col("metered_us").max())
    )


def sum_host_slots(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Energy of hosts by slot, from intervals of their parts.

    Takes host, component, ts (end), span_us, energy_mj, is_modelled; intervals of one component do
    not overlap. Gives host, slot, host_mj (all parts), host_modelled_mj, metered_us.
    """
    return (
        _summed(_pieces(readings), ["host", "slot"])
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
    readings: pl.LazyFrame, carriers: pl.LazyFrame, cut: pl.LazyFrame
) -> pl.LazyFrame:
    """The part of its host's energy that each GPU carries, by cell.

    Takes readings as `sum_host_slots`; carriers (gpu_key, host, place: 0, 1, ... among the `count` GPUs
    of the host); cut from `transforms.attribution.cut_slots`. Gives the columns of a cell, `ENERGY`
    and metered_us; over the GPUs of a host they add up to the host's energy.
    """
    pieces = _pieces(readings)
    # Where no border cuts a slot on any GPU of the host, its total is all that is needed.
    fine = cut.join(carriers, on="gpu_key").select("host", "slot").unique()
    slot = pl.col("slot")
    whole = (
        _summed(pieces.join(fine, on=["host", "slot"], how="anti"), ["host", "slot"])
        .join(carriers, on="host")
        .with_columns(*_of_gpu(), cell_start=slot * SLOT_US, cell_end=(slot + 1) * SLOT_US)
    )
    by_gpu = (
        pieces.join(fine, on=["host", "slot"], how="semi")
        .join(carriers, on="host")
        .with_columns(_of_gpu())
        .join(cut, on=["gpu_key", "slot"], how="left")
        .with_columns(
            pl.col("cell_start").fill_null(slot * SLOT_US),
            pl.col("cell_end").fill_null((slot + 1) * SLOT_US),
        )
        .with_columns(
            a=pl.max_horizontal("t0", "cell_start"), b=pl.min_horizontal("t1", "cell_end")
        )
        .filter(pl.col("b") > pl.col("a"))
        .select("component", *_CELL, *(_between(name, "a", "b") for name in ENERGY), t0="a", t1="b")
    )
    columns = [*_CELL, *ENERGY, "metered_us"]
    return pl.concat([whole.select(columns), _summed(by_gpu, _CELL).select(columns)])


def _of_gpu() -> list[pl.Expr]:
    """One GPU's part of the host's energy: cumulative floor over the GPUs in order of place."""
    return [
        (
            floor_share(name, pl.col("place") + 1, pl.col("count"))
            - floor_share(name, pl.col("place"), pl.col("count"))
        ).alias(name)
        for name in ENERGY
    ]


def attribute_host_energy(energy: pl.LazyFrame, held: pl.LazyFrame) -> pl.LazyFrame:
    """Who holds the hosts' energy: runs by their share of the GPU that carries it, idle, the rest.

    Takes the result of `divide_among_gpus` and `transforms.attribution.list_held_cells`. Gives kind, run_id, gpu_key,
    slot, `ENERGY` and metered_us (weighted by share); over all of them they add up to `divide_among_gpus`.
    """
    shared = (
        held.join(energy, on=_CELL, how="inner")
        .with_columns(
            upto_ppm=pl.col("share_ppm").cum_sum().over(_CELL, order_by="run_id"),
            total_ppm=pl.col("share_ppm").sum().over(_CELL),
        )
        .with_columns(kind=pl.lit("run"))
    )
    # The last run of each cell: upto = total marks it, once, as shares are above zero.
    rest = shared.filter(
        (pl.col("upto_ppm") == pl.col("total_ppm")) & (pl.col("total_ppm") < PPM)
    ).with_columns(
        kind=pl.lit("unallocated"),
        run_id=pl.lit(None, pl.String),
        upto_ppm=pl.lit(PPM, pl.Int64),
        share_ppm=PPM - pl.col("total_ppm"),
    )
    parts = pl.concat([shared, rest]).select(
        *_ROW,
        *(share_energy(name) for name in ENERGY),
        metered_us=pl.col("metered_us") * pl.col("share_ppm") // PPM,
    )
    idle = energy.join(held.select(_CELL).unique(), on=_CELL, how="anti").select(
        pl.lit("idle").alias("kind"),
        pl.lit(None, pl.String).alias("run_id"),
        "gpu_key",
        "slot",
        *ENERGY,
        "metered_us",
    )
    return pl.concat([parts, idle]).group_by(_ROW).agg(pl.col(*ENERGY, "metered_us").sum())


def add_host_energy(
    energy: pl.LazyFrame,
    hosts: pl.LazyFrame,
    *,
    measured_ppm: int,
    modelled_low_ppm: int,
    modelled_high_ppm: int,
) -> pl.LazyFrame:
    """GPU energy and the hosts' energy side by side, with bounds.

    Takes the result of `transforms.attribution.add_bounds` and of `attribute_host_energy`. `measured_ppm` is
    the tolerance of measured energy, the other two the range of modelled energy around its value.
    Adds host_mj, host_measured_mj, host_low_mj, host_high_mj, and metered_us: the part of held_us
    for which the host was metered.
    """
    numbers = [name for name, dtype in energy.collect_schema().items() if dtype.is_integer()]
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
