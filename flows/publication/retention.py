"""Retention: old readings become their sums over slots, exactly, and their digests stay.

Only what was published is rolled up. Slots that a border of an allocation cuts keep their readings, so
every published figure still follows from what is left, to the millijoule (docs/verification.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from flows.accounting.stretches import (
    KEYS_PER_SEGMENT,
    delete_stretches,
    read_gap_rule,
    reduce_segments,
)
from flows.errors import UsageError
from flows.publication.evidence import (
    GPU_PIECES,
    GPU_READINGS,
    digest_segments,
    record_segments,
)
from flows.publication.folders import database_in
from flows.publication.in_force import find_in_force
from flows.settings import FILE_NAME, Settings
from flows.warehouse.digests import Content
from flows.warehouse.frames import insert, load_query, query_rows, quote_literal, temporary
from flows.warehouse.locks import FIGURES, MOMENT, tidy_warehouse, transaction
from flows.warehouse.store import open_exclusively, store_of
from transforms import energy
from transforms.constants import SLOT_US
from transforms.gaps import GapRule

_AT_ONCE = 50_000_000
"""Readings that one transaction replaces."""


@dataclass(frozen=True)
class RolledUp:
    """What became of old readings."""

    segments: int
    readings: int
    readings_left: int
    pieces: int
    """Sums that took the place of readings."""
    segments_waiting: int = 0
    """Old enough, but not published yet, or overlapping others in time."""


def roll_up_old_readings(
    settings: Settings,
    after_days: float | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> RolledUp:
    """Replace the readings of old segments by their sums over slots.

    Args:
        settings: The project.
        after_days: Days since a segment ended; as [retention] says, if None.
        progress: Called with the number of readings that were read.

    Raises:
        UsageError: no age is given anywhere, or readings are judged otherwise than when published.
        WarehouseError: the disk or the warehouse failed; each transaction is done wholly or not at all.
    """
    days = settings.retention.roll_up_after_days if after_days is None else after_days
    if days is None:
        raise UsageError(
            "no age is given",
            where="roll-up",
            remedy="Pass --older-than DAYS, or set retention.roll_up_after_days",
        )
    batches = []
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        segments = _find_old_segments(con, settings, days)
        ready = [segment for segment in segments if segment["ready"]]
        for keys in _batch_segments(ready):
            with transaction(con, FIGURES):
                batches.append(
                    _roll_up_segments(con, keys, days, read_gap_rule(settings), progress)
                )
        tidy_warehouse(con)
    return RolledUp(
        segments=sum(batch.segments for batch in batches),
        readings=sum(batch.readings for batch in batches),
        readings_left=sum(batch.readings_left for batch in batches),
        pieces=sum(batch.pieces for batch in batches),
        segments_waiting=len(segments) - len(ready),
    )


def _find_old_segments(
    con: duckdb.DuckDBPyConnection, settings: Settings, days: float
) -> list[dict[str, Any]]:
    """Segments that are old enough: segment_key, readings, and whether they are `ready` to be rolled up."""
    parameters = {
        "published": _list_published_segments(con, settings),
        "table": GPU_READINGS,
        "days": float(days),
    }
    return query_rows(con, load_query("publication/segments_due"), parameters)


def _list_published_segments(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    """Segments of which the publication in force names the digest."""
    if not os.path.lexists(settings.published):
        return []
    database = database_in(find_in_force(settings))
    con.execute(f"ATTACH {quote_literal(database)} AS published (READ_ONLY)")
    segments = con.execute(
        "SELECT part FROM published.kept_input WHERE table_name = ?", [GPU_READINGS]
    ).fetchall()
    used = con.execute(
        "SELECT value_json FROM published.setting WHERE section = 'readings'"
    ).fetchall()
    con.execute("DETACH published")
    if used != [(settings.to_record()["readings"],)]:
        raise UsageError(
            "[readings] is not what it was when the figures were published",
            where=FILE_NAME,
            remedy="Publish first: sums are made by the same rules as the figures",
        )
    return [segment_id for (segment_id,) in segments]


def _batch_segments(segments: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Keys of segments that one transaction replaces."""
    keys: list[int] = []
    readings = 0
    for segment in segments:
        if keys and readings + segment["readings"] > _AT_ONCE:
            yield keys
            keys, readings = [], 0
        keys.append(segment["segment_key"])
        readings += segment["readings"]
    if keys:
        yield keys


def _roll_up_segments(
    con: duckdb.DuckDBPyConnection,
    keys: Sequence[int],
    days: float,
    rule: GapRule,
    progress: Callable[[int], None],
) -> RolledUp:
    """Replace the readings of some segments, and their digests (inside the caller's transaction)."""
    chosen = f"segment_key IN ({', '.join(map(str, keys))})"
    readings = _replace_readings(con, keys, rule, progress)
    delete_stretches(con, keys)
    left = digest_segments(con, GPU_READINGS, chosen)
    sums = digest_segments(con, GPU_PIECES, chosen)
    _record_policy(con, chosen, days, rule, left, sums)
    con.execute(f"DELETE FROM segment_digest WHERE {chosen} AND table_name = ?", [GPU_READINGS])
    record_segments(con, GPU_READINGS, left)
    record_segments(con, GPU_PIECES, sums)
    return RolledUp(
        segments=len(keys),
        readings=readings,
        readings_left=sum(content.rows for content in left.values()),
        pieces=sum(content.rows for content in sums.values()),
    )


def _replace_readings(
    con: duckdb.DuckDBPyConnection,
    keys: Sequence[int],
    rule: GapRule,
    progress: Callable[[int], None],
) -> int:
    """Write sums in the place of readings, but in slots that an allocation cuts.

    Args:
        con: The warehouse.
        keys: segment_key of each segment.
        rule: How long a step between readings may be.
        progress: Called with the number of readings that were read.

    Returns:
        How many readings there were.

    Raises:
        RuntimeError: the sums are not the readings (a defect); nothing may be committed.
    """
    before = reduce_segments(con, keys, rule, progress)
    cut = con.execute(load_query("publication/cut_slots"), {"slot_us": SLOT_US}).pl()
    sums = before.join(cut, on=["gpu_key", "slot"], how="anti")
    insert(con, "gpu_piece", sums)
    with temporary(con, cut_slot=cut):
        con.execute(
            f"DELETE FROM gpu_reading WHERE segment_key IN ({', '.join(map(str, keys))}) "
            "AND NOT EXISTS (FROM cut_slot "
            "WHERE cut_slot.gpu_key = gpu_reading.gpu_key "
            f"AND cut_slot.slot = epoch_us(gpu_reading.ts) // {SLOT_US})"
        )
    left = reduce_segments(con, keys, rule, lambda rows: None)
    if not _sum_slots(before, rule).equals(_sum_slots(pl.concat([left, sums]), rule)):
        raise RuntimeError(f"the sums are not the readings of segments {list(keys)}")
    return int(before["readings"].sum())


def _sum_slots(pieces: pl.DataFrame, rule: GapRule) -> pl.DataFrame:
    """Energy by slot, with each GPU of a segment as a GPU of its own: nothing lies between segments."""
    key = pl.col("segment_key").cast(pl.Int64) * KEYS_PER_SEGMENT + pl.col("gpu_key")
    apart = pieces.with_columns(gpu_key=key).drop("segment_key")
    return energy.compute_gpu_slots(apart.lazy(), rule).collect()


def _record_policy(
    con: duckdb.DuckDBPyConnection,
    chosen: str,
    days: float,
    rule: GapRule,
    left: dict[int, Content],
    sums: dict[int, Content],
) -> None:
    """Write which readings are gone, under which policy, with the digest that they were published with."""
    segments = query_rows(
        con,
        "SELECT segment_key, segment_id, row_count AS readings, content_sha256 AS readings_sha256 "
        f"FROM segment JOIN segment_digest USING (segment_key) WHERE {chosen} AND table_name = ? "
        "ORDER BY segment_key",
        [GPU_READINGS],
    )
    rows = [
        {
            **segment,
            "after_days": days,
            "max_gap_us": rule.max_gap_us,
            "readings_left": _count_rows(left, segment["segment_key"]),
            "pieces": _count_rows(sums, segment["segment_key"]),
        }
        for segment in segments
    ]
    insert(con, "rolled_up", rows, rolled_up_at=MOMENT)


def _count_rows(contents: dict[int, Content], key: int) -> int:
    return contents[key].rows if key in contents else 0
