"""Readings reduced to stretches (`transforms.energy.reduce_readings`), and the stretches kept of every segment.

Stretches follow from the readings of their segment alone, so they are computed once: the next computation
reads only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Protocol

import duckdb
import polars as pl

from flows.accounting.fingerprints import THIS_DUCKDB, fingerprint_of, refuse_kept
from flows.errors import SettingsError
from flows.settings import Settings
from flows.warehouse.frames import insert, load_query, register, stream_frames, temporary
from transforms import energy
from transforms.constants import POWER_SOURCES, SLOT_US
from transforms.gaps import GapRule
from transforms.schema import TABLES

_BATCH = 1 << 20
"""Readings held in memory at a time."""

_READINGS = 32_000_000
"""Readings that are reduced as one piece of work."""

KEYS_PER_SEGMENT = 1 << 31
"""While segments are reduced, a GPU in a segment is a GPU of its own: segment_key * 2^31 + gpu_key."""

Progress = Callable[[int], None]
"""Is told how many more readings were reduced."""


class SegmentReducer(Protocol):
    """Who reduces the readings of segments: this process, or many."""

    def reduce_segments(
        self,
        con: duckdb.DuckDBPyConnection,
        batches: Sequence[Sequence[int]],
        rule: GapRule,
        progress: Progress,
    ) -> Iterable[pl.DataFrame]:
        """Reduce batches of segments (keys), each to a frame in the columns of segment_piece."""


def read_gap_rule(settings: Settings) -> GapRule:
    """How long a step between readings may be, as [readings] says."""
    return GapRule(
        int(settings.readings.max_gap_s * 1_000_000),
        int(settings.readings.max_bridge_s * 1_000_000),
    )


def store_new_stretches(
    con: duckdb.DuckDBPyConnection, rule: GapRule, reducer: SegmentReducer, progress: Progress
) -> None:
    """Reduce the segments that have no stretches by this rule yet (inside the caller's transaction)."""
    # Another version of DuckDB adds up otherwise.
    other = f"max_gap_us <> {rule.max_gap_us} OR NOT starts_with(fingerprint, {THIS_DUCKDB})"
    con.execute(
        "DELETE FROM segment_piece WHERE segment_key IN "
        f"(SELECT segment_key FROM reduced_segment WHERE {other})"
    )
    con.execute(f"DELETE FROM reduced_segment WHERE {other}")
    check_stretches(con)
    segments = list_unreduced_segments(con)
    batches = [batch["segment_key"].to_list() for batch in segments.partition_by("batch")]
    for stretches in reducer.reduce_segments(con, batches, rule, progress):
        insert(con, "segment_piece", stretches)
    with register(con, reduced=segments.select("segment_key")):
        con.execute(
            "INSERT INTO reduced_segment BY NAME SELECT r.segment_key, $max_gap_us::BIGINT AS max_gap_us, "
            f"coalesce(k.pieces, 0) AS pieces, coalesce(k.fingerprint, {_NO_PIECES}) AS fingerprint "
            f"FROM reduced AS r LEFT JOIN ({_ADD_UP_PIECES}) AS k USING (segment_key)",
            {"max_gap_us": rule.max_gap_us},
        )


_ADD_UP_PIECES = (
    f"SELECT segment_key, count(*) AS pieces, {fingerprint_of('segment_piece')} AS fingerprint "
    "FROM segment_piece AS t GROUP BY segment_key"
)
_NO_PIECES = f"{THIS_DUCKDB} || '0'"


def check_stretches(con: duckdb.DuckDBPyConnection) -> None:
    """Check that the stretches kept of segments are those that were written.

    Raises:
        NotAsPublished: they are not.
    """
    for key in _find_changed_segments(con):
        raise refuse_kept("segment_piece", f"the stretches of segment_key {key}")


def _find_changed_segments(con: duckdb.DuckDBPyConnection) -> list[int]:
    """Keys of segments whose stretches do not add up to what was recorded of them."""
    changed = con.execute(
        f"SELECT coalesce(k.segment_key, r.segment_key) FROM ({_ADD_UP_PIECES}) AS k "
        "FULL JOIN reduced_segment AS r ON r.segment_key = k.segment_key "
        f"WHERE starts_with(coalesce(r.fingerprint, {THIS_DUCKDB}), {THIS_DUCKDB}) "
        "AND (r.pieces IS DISTINCT FROM coalesce(k.pieces, 0) "
        f"OR r.fingerprint IS DISTINCT FROM coalesce(k.fingerprint, {_NO_PIECES}))"
    ).fetchall()
    return [int(key) for (key,) in changed]


def find_wrong_stretches(con: duckdb.DuckDBPyConnection) -> list[int]:
    """Find segments whose kept stretches do not follow from their readings: reduces them all again.

    Args:
        con: The warehouse.

    Returns:
        Their keys.
    """
    segments = con.execute(
        "SELECT segment_key, max_gap_us, (sum(rows_loaded) OVER (ORDER BY segment_key) - 1) // $most AS batch "
        "FROM reduced_segment JOIN segment USING (segment_key)",
        {"most": _READINGS},
    ).pl()
    columns = TABLES["segment_piece"].columns
    doubled = con.execute(
        "SELECT segment_key FROM reduced_segment GROUP BY segment_key HAVING count(*) > 1"
    ).fetchall()
    found = [*_find_changed_segments(con), *(int(key) for (key,) in doubled)]
    for (max_gap_us, _), batch in segments.group_by("max_gap_us", "batch"):
        keys = batch["segment_key"].to_list()
        rule = GapRule(int(str(max_gap_us)))
        again = reduce_segments(con, keys, rule, lambda readings: None)
        listed = ", ".join(map(str, keys))
        kept = con.execute(
            f"SELECT {', '.join(columns)} FROM segment_piece WHERE segment_key IN ({listed})"
        ).pl()
        kept_slots, slots = (_describe_slots(stretches, rule) for stretches in (kept, again))
        different = pl.concat(
            [
                slots.join(kept_slots, on=slots.columns, how="anti", nulls_equal=True),
                kept_slots.join(slots, on=slots.columns, how="anti", nulls_equal=True),
            ]
        )
        found += (different["gpu_key"].unique() // KEYS_PER_SEGMENT).to_list()
    return sorted(set(found))


def _describe_slots(stretches: pl.DataFrame, rule: GapRule) -> pl.DataFrame:
    """What the stretches of segments hold in each slot: energy, and the readings at both ends.

    How they are cut does not count: readings come in batches, and a stretch ends where a batch does.
    """
    of_segments = stretches.cast({pl.selectors.integer(): pl.Int64}).with_columns(
        gpu_key=pl.col("segment_key") * KEYS_PER_SEGMENT + pl.col("gpu_key")
    )
    ends = (
        of_segments.sort("gpu_key", "first_t", "last_t")
        .group_by("gpu_key", "slot")
        .agg(pl.selectors.starts_with("first_").first(), pl.selectors.starts_with("last_").last())
    )
    slots = energy.compute_slot_energy(of_segments.lazy(), rule).collect()
    return slots.join(ends, on=["gpu_key", "slot"], how="left", validate="1:1")


def list_unreduced_segments(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Segments that have no stretches yet, in batches: segment_key, batch.

    On a lake there may be some again right after `store_new_stretches`, as others load meanwhile.
    """
    return con.execute(load_query("accounting/unreduced_segments"), {"most": _READINGS}).pl()


def reduce_segments(
    con: duckdb.DuckDBPyConnection, keys: Sequence[int], rule: GapRule, progress: Progress
) -> pl.DataFrame:
    """Reduce the stored readings of segments, each by itself.

    Args:
        con: The warehouse.
        keys: segment_key of each segment; there must be one.
        rule: How long a step between readings may be.
        progress: Is told how many readings were reduced.

    Returns:
        The columns of segment_piece.
    """
    # The bounds let whole blocks of other segments be passed over.
    listed = ", ".join(map(str, keys))
    query = _select_readings(
        f"r.segment_key::BIGINT * {KEYS_PER_SEGMENT} + r.gpu_key",
        f"WHERE r.segment_key BETWEEN {min(keys)} AND {max(keys)} AND r.segment_key IN ({listed})",
    )
    return (
        _reduce_query(con, query, rule, progress, pl.Int64)
        .with_columns(
            segment_key=(pl.col("gpu_key") // KEYS_PER_SEGMENT).cast(pl.Int32),
            gpu_key=(pl.col("gpu_key") % KEYS_PER_SEGMENT).cast(pl.Int32),
        )
        .select(TABLES["segment_piece"].columns)
    )


def forget_stretches(con: duckdb.DuckDBPyConnection) -> None:
    """Delete what is kept of all segments (inside the caller's transaction): readings are reduced again."""
    for table in ("segment_piece", "reduced_segment"):
        con.execute(f"DELETE FROM {table}")


def delete_stretches(con: duckdb.DuckDBPyConnection, keys: Sequence[int]) -> None:
    """Delete the stretches of segments whose readings change (inside the caller's transaction)."""
    listed = ", ".join(map(str, keys))
    for table in ("segment_piece", "reduced_segment"):
        con.execute(f"DELETE FROM {table} WHERE segment_key IN ({listed})")


def read_stretches(
    con: duckdb.DuckDBPyConnection, slots: pl.DataFrame, rule: GapRule
) -> pl.DataFrame:
    """Read stretches: those kept of segments, and those that were rolled up.

    Args:
        con: The warehouse.
        slots: Ranges of slots as `find_neighbours` gives them: gpu_key, first, last, before, after.
        rule: How long a step between readings may be.

    Returns:
        Stretches, as `transforms.energy.reduce_readings` gives them; none overlap.
    """
    with temporary(con, wanted=slots):
        chosen = (
            "SEMI JOIN wanted AS w ON w.gpu_key = p.gpu_key AND "
            "(p.slot BETWEEN w.first AND w.last OR p.slot = w.before OR p.slot = w.after)"
        )
        kept = _read_table(con, "segment_piece", chosen)
        rolled_up = _read_table(con, "gpu_piece", chosen)
    return _resolve_overlaps(con, kept, rolled_up, rule)


def reduce_all_readings(
    con: duckdb.DuckDBPyConnection, rule: GapRule, progress: Progress = lambda readings: None
) -> pl.DataFrame:
    """Reduce everything anew: stretches of all readings, and what was rolled up; none overlap."""
    reduced = _reduce_query(con, _select_readings(), rule, progress)
    return _resolve_overlaps(con, reduced, _read_table(con, "gpu_piece"), rule)


def read_rolled_up(con: duckdb.DuckDBPyConnection, cells: pl.DataFrame) -> pl.DataFrame:
    """Read the stretches of readings that are no longer there, in some slots (gpu_key, slot)."""
    with temporary(con, cell=cells):
        return _read_table(
            con, "gpu_piece", "SEMI JOIN cell ON cell.gpu_key = p.gpu_key AND cell.slot = p.slot"
        )


def select_cell_readings(order: str) -> str:
    """SQL for the readings of the GPUs and slots in the temporary table `cell` (gpu_key, slot)."""
    return _select_readings(
        rest=f"JOIN cell ON cell.gpu_key = r.gpu_key AND cell.slot = epoch_us(r.ts) // {SLOT_US} "
        f"ORDER BY {order}"
    )


def find_neighbours(con: duckdb.DuckDBPyConnection, ranges: pl.DataFrame) -> pl.DataFrame:
    """Find the slots nearest to ranges of slots in which their GPUs have readings, on either side.

    Args:
        con: The warehouse.
        ranges: gpu_key, first, last.

    Returns:
        The ranges with before and after, null where there are none.
    """
    near = _find_within(con, ranges, _REACH)
    [(lowest, highest)] = con.execute(
        "SELECT min(slot), max(slot) FROM (SELECT slot FROM segment_piece UNION ALL "
        "SELECT slot FROM gpu_piece)"
    ).fetchall()
    if lowest is None:
        return near
    # There is nothing to look for beyond the first and last readings of all.
    is_open = (pl.col("before").is_null() & (pl.col("first") - _REACH > lowest)) | (
        pl.col("after").is_null() & (pl.col("last") + _REACH < highest)
    )
    open_ranges = near.filter(is_open).select("gpu_key", "first", "last")
    if open_ranges.is_empty():
        return near
    return pl.concat([near.filter(~is_open), _find_within(con, open_ranges, _ANY)])


_REACH = 12
"""Slots on either side in which the next readings lie, mostly: an hour."""

_ANY = 1 << 40


def _find_within(con: duckdb.DuckDBPyConnection, ranges: pl.DataFrame, reach: int) -> pl.DataFrame:
    with register(con, ranges=ranges.unique()):
        return con.execute(load_query("accounting/neighbours"), {"reach": reach}).pl()


def _select_readings(key: str = "r.gpu_key", rest: str = "") -> str:
    """SQL for the columns of readings `r` that are reduced."""
    averaged = f"r.power_source_code = {POWER_SOURCES.index('average_1s')}"
    return (
        f"SELECT {key} AS gpu_key, r.ts, r.power_mw, r.energy_mj, {averaged} AS averaged "
        f"FROM gpu_reading AS r {rest}"
    )


def _reduce_query(
    con: duckdb.DuckDBPyConnection,
    query: str,
    rule: GapRule,
    progress: Progress,
    key: type[pl.DataType] = pl.Int32,
) -> pl.DataFrame:
    """Reduce the readings that a query gives; `key` is the type of its gpu_key."""
    batches = [_no_stretches(key)]
    for readings in stream_frames(con, query, rows=_BATCH):
        batches.append(energy.reduce_readings(readings, rule))
        progress(readings.height)
    return pl.concat(batches)


@cache
def _no_stretches(key: type[pl.DataType] = pl.Int32) -> pl.DataFrame:
    """An empty frame of stretches."""
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "gpu_key": key,
        "ts": pl.Datetime("us", "UTC"),
        "power_mw": pl.Int32,
        "energy_mj": pl.Int64,
        "averaged": pl.Boolean,
    }
    return energy.reduce_readings(pl.DataFrame(schema=schema), GapRule())


def _read_table(con: duckdb.DuckDBPyConnection, table: str, chosen: str = "") -> pl.DataFrame:
    """Read the stretches `p` of a table; `chosen` is SQL that chooses some of them."""
    columns = ", ".join(f"p.{name}" for name in _no_stretches().columns)
    return con.execute(f"SELECT {columns} FROM {table} AS p {chosen}").pl()


def _resolve_overlaps(
    con: duckdb.DuckDBPyConnection, kept: pl.DataFrame, rolled_up: pl.DataFrame, rule: GapRule
) -> pl.DataFrame:
    """Put stretches together, and reduce slots in which some overlap from their readings anew.

    Segments overlap where two recorders saw one GPU, or a log was loaded out of order.
    """
    _check_gap_rule(con, rule)
    overlaps = energy.find_overlaps(pl.concat([kept, rolled_up]))
    if overlaps.is_empty():
        return pl.concat([kept, rolled_up])
    with temporary(con, cell=overlaps):
        query = select_cell_readings("r.gpu_key, r.ts, r.power_mw, r.energy_mj")
        reduced = _reduce_query(con, query, rule, lambda readings: None)
    # What is rolled up overlaps nothing: it is the rest of these slots that does.
    others = kept.join(overlaps, on=["gpu_key", "slot"], how="anti")
    return pl.concat([others, rolled_up, reduced])


def _check_gap_rule(con: duckdb.DuckDBPyConnection, rule: GapRule) -> None:
    """Refuse a rule other than the one by which readings were rolled up."""
    other_rules = con.execute(
        "SELECT max_gap_us FROM rolled_up WHERE max_gap_us <> ? LIMIT 1", [rule.max_gap_us]
    ).fetchall()
    for (max_gap_us,) in other_rules:
        raise SettingsError(
            f"readings were rolled up with max_gap_s = {max_gap_us / 1e6:g}, and their gaps cannot be "
            f"judged by {rule.max_gap_us / 1e6:g} any more",
            where="wattledger.toml, setting readings.max_gap_s",
            remedy="Set it back",
        )
