"""Which slots of which devices have to be computed again (docs/performance.md, "Incremental").

A *window* is a range of slots of a host group, both ends included. Groups are hosts that are computed
together: small enough that a late file touches little, large enough that a fleet has few.
"""

from __future__ import annotations

import polars as pl

from transforms.constants import SLOT_US

GROUP = 512
"""GPU keys to a host group."""

WINDOW = ["host_group", "first", "last"]


def assign_host_groups(devices: pl.LazyFrame) -> pl.LazyFrame:
    """Add host_group to devices (gpu_key, host): the smallest key of the host, by `GROUP`.

    Keys only ever grow, so a host never changes its group.
    """
    return devices.with_columns(host_group=pl.col("gpu_key").min().over("host") // GROUP)


def find_slot_ranges(spans: pl.LazyFrame) -> pl.LazyFrame:
    """Spans of time (from_us, to_us; the end excluded) as ranges of slots, first and last."""
    return spans.with_columns(
        first=pl.col("from_us") // SLOT_US, last=(pl.col("to_us") - 1) // SLOT_US
    )


def find_changed_spans(before: pl.LazyFrame, now: pl.LazyFrame) -> pl.LazyFrame:
    """The time in which allocations differ: gpu_key, from_us, to_us.

    Takes frames of `transforms.attribution.close_allocations`. One that only ends at another time (it goes on, say)
    differs between both ends; of all others the whole counts.
    """
    same = ["run_id", "gpu_key", "from_us", "share_ppm"]

    def ends(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
        # Allocations may stand twice.
        place = pl.int_range(pl.len()).over(same, order_by="to_us")
        return frame.with_columns(place=place).rename({"to_us": name})

    both = ends(before, "was_us").join(
        ends(now, "is_us"), on=[*same, "place"], how="full", coalesce=True
    )
    kept = pl.col("was_us").is_not_null() & pl.col("is_us").is_not_null()
    return both.filter(pl.col("was_us").ne_missing(pl.col("is_us"))).select(
        "gpu_key",
        from_us=pl.when(kept).then(pl.min_horizontal("was_us", "is_us")).otherwise("from_us"),
        to_us=pl.max_horizontal("was_us", "is_us"),
    )


def merge_windows(windows: pl.DataFrame, key: str = "host_group") -> pl.DataFrame:
    """Ranges of slots (key, first, last) that overlap or touch as one, in order."""
    reach = pl.col("last").cum_max().shift().over(key, order_by="first")
    apart = (pl.col("first") > reach + 1).fill_null(True)
    return (
        windows.select(key, "first", "last")
        .sort(key, "first", "last")
        .with_columns(block=apart.cum_sum())
        .group_by(key, "block")
        .agg(pl.col("first").min(), pl.col("last").max())
        .select(key, "first", "last")
        .sort(key, "first")
    )


def cut_into_parts(windows: pl.DataFrame, sizes: pl.DataFrame, most: int) -> list[pl.DataFrame]:
    """Cut merged windows into parts of about `most` cells (a device in a slot) each.

    Takes sizes (host_group, devices). Each part holds whole slots of whole groups, so parts can be computed in
    any order, anywhere.
    """
    length = pl.max_horizontal(1, most // pl.col("devices"))
    cut = (
        windows.join(sizes, on="host_group")
        .with_columns(end="last", first=pl.int_ranges("first", pl.col("last") + 1, length))
        .explode("first")
        .with_columns(last=pl.min_horizontal("end", pl.col("first") + length - 1))
        .sort("first", "host_group")
        .with_columns(cells=(pl.col("last") - pl.col("first") + 1) * pl.col("devices"))
        .with_columns(part=(pl.col("cells").cum_sum() - 1) // most)
    )
    return [part.select(WINDOW) for part in cut.partition_by("part", maintain_order=True)]
