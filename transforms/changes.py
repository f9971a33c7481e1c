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
"""Columns of a window: the group, and the numbers of its first and last slot."""


def assign_host_groups(devices: pl.LazyFrame) -> pl.LazyFrame:
    """Add the host group of each device: the smallest key of its host, by `GROUP`.

    Keys only ever grow, so a host never changes its group.

    Args:
        devices: gpu_key and host.

    Returns:
        The devices with host_group.
    """
    return devices.with_columns(host_group=pl.col("gpu_key").min().over("host") // GROUP)


def find_slot_ranges(spans: pl.LazyFrame) -> pl.LazyFrame:
    """Turn spans of time into ranges of slots.

    Args:
        spans: from_us and to_us (us since the epoch; the end is excluded).

    Returns:
        The spans with first and last, the numbers of the slots that they touch.
    """
    return spans.with_columns(
        first=pl.col("from_us") // SLOT_US, last=(pl.col("to_us") - 1) // SLOT_US
    )


def find_changed_spans(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.LazyFrame:
    """Find the time in which allocations differ.

    An allocation of which only the end moved (it goes on, say) differs between both ends; of all others the whole counts.

    Args:
        before: Spans, as `transforms.attribution.close_allocations` gives them.
        after: The same, as they are now.

    Returns:
        gpu_key, from_us, to_us.
    """
    same = ["run_id", "gpu_key", "from_us", "share_ppm"]

    def number_ends(spans: pl.LazyFrame, name: str) -> pl.LazyFrame:
        # The same allocation may be listed twice.
        place = pl.int_range(pl.len()).over(same, order_by="to_us")
        return spans.with_columns(place=place).rename({"to_us": name})

    both = number_ends(before, "was_us").join(
        number_ends(after, "is_us"), on=[*same, "place"], how="full", coalesce=True, validate="1:1"
    )
    moved = pl.col("was_us").is_not_null() & pl.col("is_us").is_not_null()
    return both.filter(pl.col("was_us").ne_missing(pl.col("is_us"))).select(
        "gpu_key",
        from_us=pl.when(moved).then(pl.min_horizontal("was_us", "is_us")).otherwise("from_us"),
        to_us=pl.max_horizontal("was_us", "is_us"),
    )


def merge_windows(windows: pl.DataFrame, key: str = "host_group") -> pl.DataFrame:
    """Merge ranges of slots that overlap or touch.

    Args:
        windows: The key, first and last.
        key: Column whose ranges are merged with each other.

    Returns:
        The key, first and last, in order.
    """
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
    """Cut windows into parts that are computed one at a time.

    Each part holds whole slots of whole groups, so parts can be computed in any order, anywhere.

    Args:
        windows: `WINDOW` columns, merged.
        sizes: host_group and devices (how many it has), one row per group.
        most: About how many cells (a device in a slot) a part may have.

    Returns:
        Parts in `WINDOW` columns.
    """
    length = pl.max_horizontal(1, most // pl.col("devices"))
    cut = (
        windows.join(sizes, on="host_group", validate="m:1")
        .with_columns(end="last", first=pl.int_ranges("first", pl.col("last") + 1, length))
        .explode("first")
        .with_columns(last=pl.min_horizontal("end", pl.col("first") + length - 1))
        .sort("first", "host_group")
        .with_columns(cells=(pl.col("last") - pl.col("first") + 1) * pl.col("devices"))
        .with_columns(part=(pl.col("cells").cum_sum() - 1) // most)
    )
    return [part.select(WINDOW) for part in cut.partition_by("part", maintain_order=True)]
