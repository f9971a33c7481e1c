"""What a host draws beside its GPUs: CPU and memory, measured or modelled (docs/method.md, "Host").

A host's energy is shared out over its GPUs in equal parts, and with them over whoever holds them. A
host without GPUs has one *host device* in their place, which draws nothing itself.
"""

from __future__ import annotations

import polars as pl

from transforms.energy import over_slots
from transforms.schemas import PPM, SLOT_US

METERED = ("host_mj", "host_modelled_mj", "metered_us")
"""What `host_slots` gives for each host and slot."""


def host_slots(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Energy of hosts by slot, from intervals of their parts.

    Takes host, component, ts (end), span_us, energy_mj, is_modelled; intervals of one component do
    not overlap. An interval that crosses a slot border is shared out in proportion to time by
    cumulative floor, so its pieces add up to it. Gives host, slot, host_mj (all parts),
    host_modelled_mj (of it by a model), metered_us (time for which any part is known).
    """
    end = pl.col("ts").to_physical()
    spans = readings.filter(pl.col("span_us") > 0).select(
        "host",
        "component",
        "span_us",
        "energy_mj",
        "is_modelled",
        t0=end - pl.col("span_us"),
        t1=end,
    )
    cut = over_slots(spans, "t0", "t1").with_columns(
        a=pl.max_horizontal("t0", pl.col("slot") * SLOT_US),
        b=pl.min_horizontal("t1", (pl.col("slot") + 1) * SLOT_US),
    )

    def up_to(at: str) -> pl.Expr:
        wide = pl.col("energy_mj").cast(pl.Int128) * (pl.col(at) - pl.col("t0")).cast(pl.Int128)
        return (wide // pl.col("span_us").cast(pl.Int128)).cast(pl.Int64)

    piece = up_to("b") - up_to("a")
    parts = cut.select(
        "host",
        "component",
        "slot",
        host_mj=piece,
        host_modelled_mj=pl.when("is_modelled").then(piece).otherwise(pl.lit(0, pl.Int64)),
        metered_us=pl.col("b") - pl.col("a"),
    )
    return (
        parts.group_by("host", "slot", "component")
        .agg(pl.col(METERED).sum())
        .group_by("host", "slot")
        .agg(
            pl.col("host_mj", "host_modelled_mj").sum(),
            pl.col("metered_us").max().clip(upper_bound=SLOT_US),
        )
        .sort("host", "slot")
    )


def share_out(
    energy: pl.LazyFrame,
    devices: pl.LazyFrame,
    slots: pl.LazyFrame,
    *,
    measured_ppm: int,
    modelled_low_ppm: int,
    modelled_high_ppm: int,
) -> pl.LazyFrame:
    """Give each holder of a GPU its part of the host's energy.

    Takes the result of `transforms.attribution.with_bounds`; devices (gpu_key, site, host, is_gpu,
    carriers: GPUs among which the host's energy is divided, null where this device gets none);
    slots from `host_slots`. `measured_ppm` is the tolerance of measured energy, the other two the
    range of modelled energy around its value.

    Adds site, is_gpu, host_mj, host_measured_mj, host_low_mj, host_high_mj, and metered_us: the
    part of held_us for which the host was metered.
    """
    joined = energy.join(devices, on="gpu_key", how="left").join(
        slots, on=["host", "slot"], how="left"
    )
    # Within a slot, energy is spread evenly over the GPU time that was held or seen, or that the
    # meter saw, whichever is more; so no more is given away than the host drew.
    seen = pl.col("carriers") * pl.col("metered_us")
    held = (
        pl.when(pl.col("carriers").is_not_null())
        .then("held_us")
        .otherwise(pl.lit(0, pl.Int64))
        .sum()
        .over("host", "slot")
    )
    # At most 10 kW in a slot times the slot: 9e17, within 64 bits.
    whole = pl.max_horizontal(seen, held)

    def part(of: pl.Expr) -> pl.Expr:
        known = seen.is_not_null() & (whole > 0)
        return pl.when(known).then(of * pl.col("held_us") // whole).otherwise(0).cast(pl.Int64)

    shared = joined.with_columns(
        host_mj=part(pl.col("host_mj")),
        host_modelled_mj=part(pl.col("host_modelled_mj")),
        metered_us=part(seen),
    )
    modelled = pl.col("host_modelled_mj")
    measured = (pl.col("host_mj") - modelled).clip(0)
    slack = (measured * measured_ppm + PPM - 1) // PPM
    return shared.with_columns(
        host_measured_mj=measured,
        host_low_mj=measured - slack + modelled * modelled_low_ppm // PPM,
        host_high_mj=measured + slack + (modelled * modelled_high_ppm + PPM - 1) // PPM,
    ).drop("host", "carriers", "host_modelled_mj")
