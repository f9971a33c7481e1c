"""Readings reduced to stretches (`transforms.energy.reduce_readings`), and those kept of every segment.

Stretches follow from the readings of their segment alone, so they are computed once: the next computation
reads only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import duckdb
import polars as pl

from flows.errors import SettingsError
from flows.warehouse.frames import register
from transforms import energy
from transforms.constants import POWER_SOURCES, SLOT_US
from transforms.energy import GapRule
from transforms.schema import TABLES

_BATCH = 1 << 20
"""Readings held in memory at a time."""

KEY = 1 << 31
"""A GPU in a segment is a GPU of its own while they are reduced: segment_key * 2^31 + gpu_key."""

Progress = Callable[[int], None]


def query(key: str = "r.gpu_key", rest: str = "") -> str:
    """SQL for the columns of readings `r` that are reduced."""
    averaged = f"r.power_source_code = {POWER_SOURCES.index('average_1s')}"
    return (
        f"SELECT {key} AS gpu_key, r.ts, r.power_mw, r.energy_mj, {averaged} AS averaged "
        f"FROM gpu_reading AS r {rest}"
    )


def of_cells(con: duckdb.DuckDBPyConnection, cells: pl.DataFrame, order: str) -> str:
    """SQL for the readings of some GPUs in some slots (gpu_key, slot); drop the table `cell` after it."""
    with register(con, given=cells.select("gpu_key", "slot").unique()):
        con.execute("CREATE OR REPLACE TEMP TABLE cell AS FROM given")
    among = f"JOIN cell ON cell.gpu_key = r.gpu_key AND cell.slot = epoch_us(r.ts) // {SLOT_US}"
    return query(rest=f"{among} ORDER BY {order}")


def batches(con: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pl.DataFrame]:
    """The rows of a query, some at a time."""
    for batch in con.execute(sql).to_arrow_reader(_BATCH):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame


def reduced(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    rule: GapRule,
    progress: Progress,
    key: type[pl.DataType] = pl.Int32,
) -> pl.DataFrame:
    """Stretches of the readings that a query gives; `key` is the type of its gpu_key."""
    parts = [_none(key)]
    for batch in batches(con, sql):
        parts.append(energy.reduce_readings(batch, rule))
        progress(batch.height)
    return pl.concat(parts)


@cache
def _none(key: type[pl.DataType] = pl.Int32) -> pl.DataFrame:
    """No stretches, with the types of some."""
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "gpu_key": key,
        "ts": pl.Datetime("us", "UTC"),
        "power_mw": pl.Int32,
        "energy_mj": pl.Int64,
        "averaged": pl.Boolean,
    }
    return energy.reduce_readings(pl.DataFrame(schema=schema), GapRule())


def by_segment(
    con: duckdb.DuckDBPyConnection, where: str, rule: GapRule, progress: Progress
) -> pl.DataFrame:
    """Stretches of stored readings, apart for each segment: the columns of segment_piece."""
    sql = query(f"r.segment_key::BIGINT * {KEY} + r.gpu_key", f"WHERE {where}")
    return (
        reduced(con, sql, rule, progress, pl.Int64)
        .with_columns(
            segment_key=(pl.col("gpu_key") // KEY).cast(pl.Int32),
            gpu_key=(pl.col("gpu_key") % KEY).cast(pl.Int32),
        )
        .select(TABLES["segment_piece"].columns)
    )


def among(keys: Sequence[int]) -> str:
    """SQL: readings `r` of some segments. The bounds let whole blocks of others be passed over."""
    listed = ", ".join(map(str, keys))
    return f"r.segment_key BETWEEN {min(keys)} AND {max(keys)} AND r.segment_key IN ({listed})"


Reduce = Callable[
    [duckdb.DuckDBPyConnection, Sequence[Sequence[int]], GapRule, Progress], Iterable[pl.DataFrame]
]
"""Reduces batches of segments (keys): yields the columns of segment_piece of each."""

_READINGS = 32_000_000
"""Readings that are reduced as one piece of work."""


def waiting(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Segments that have no stretches yet, in batches: segment_key, batch.

    On a lake there may be some again right after `keep`, as others load meanwhile.
    """
    return con.execute(
        "SELECT segment_key, (sum(rows_loaded) OVER (ORDER BY segment_key) - 1) // $most AS batch "
        "FROM segment WHERE verdict = 'loaded' AND segment_id IN "
        "(SELECT segment_id FROM segment_profile) AND segment_key NOT IN "
        "(SELECT segment_key FROM reduced_segment) ORDER BY 1",
        {"most": _READINGS},
    ).pl()


def keep(con: duckdb.DuckDBPyConnection, rule: GapRule, progress: Progress, reduce: Reduce) -> None:
    """Reduce the segments that have no stretches yet by this rule (inside the caller's transaction)."""
    con.execute(
        "DELETE FROM segment_piece WHERE segment_key IN "
        "(SELECT segment_key FROM reduced_segment WHERE max_gap_us <> $gap)",
        {"gap": rule.max_gap_us},
    )
    con.execute("DELETE FROM reduced_segment WHERE max_gap_us <> $gap", {"gap": rule.max_gap_us})
    new = waiting(con)
    batches = [part["segment_key"].to_list() for part in new.partition_by("batch")]
    for found in reduce(con, batches, rule, progress):
        with register(con, stretches=found):
            con.execute("INSERT INTO segment_piece BY NAME FROM stretches")
    with register(con, new_segments=new):
        con.execute(
            "INSERT INTO reduced_segment SELECT segment_key, ? FROM new_segments", [rule.max_gap_us]
        )


def forget(con: duckdb.DuckDBPyConnection, where: str) -> None:
    """Drop the stretches of segments whose readings change (inside the caller's transaction)."""
    for table in ("segment_piece", "reduced_segment"):
        con.execute(f"DELETE FROM {table} WHERE {where}")


def partials(con: duckdb.DuckDBPyConnection, rule: GapRule, among: str = "") -> pl.DataFrame:
    """Stretches from what `keep` keeps and what was rolled up; none overlap.

    `among`: SQL that chooses some of them (`p`); all of each slot.
    """
    kept = _stretches(con, "segment_piece", among)
    return _together(con, kept, rolled_up(con, among), rule)


def partials_of_readings(
    con: duckdb.DuckDBPyConnection, rule: GapRule, progress: Progress
) -> pl.DataFrame:
    """Stretches of everything, from the readings themselves and what was rolled up."""
    return _together(con, reduced(con, query(), rule, progress), rolled_up(con), rule)


def _together(
    con: duckdb.DuckDBPyConnection, found: pl.DataFrame, old: pl.DataFrame, rule: GapRule
) -> pl.DataFrame:
    """Stretches with those that were rolled up, and slots in which some overlap reduced anew.

    Segments overlap where two recorders saw one GPU, or a log was loaded out of order.
    """
    _check_rolled_up(con, rule)
    mixed = energy.find_overlaps(pl.concat([found, old]))
    if mixed.is_empty():
        return pl.concat([found, old])
    sql = of_cells(con, mixed, "r.gpu_key, r.ts, r.power_mw, r.energy_mj")
    again = reduced(con, sql, rule, lambda rows: None)
    # What is rolled up overlaps nothing: it is the rest of these slots that does.
    others = found.join(mixed, on=["gpu_key", "slot"], how="anti")
    return pl.concat([others, old, again])


def rolled_up(con: duckdb.DuckDBPyConnection, among: str = "") -> pl.DataFrame:
    """Stretches of readings that are no longer there."""
    return _stretches(con, "gpu_piece", among)


def _stretches(con: duckdb.DuckDBPyConnection, table: str, among: str) -> pl.DataFrame:
    columns = ", ".join(f"p.{name}" for name in _none().columns)
    return con.execute(f"SELECT {columns} FROM {table} AS p {among}").pl()


_REACH = 3_600_000_000 // SLOT_US
"""Slots on either side in which the next readings lie, mostly: an hour."""


def around(con: duckdb.DuckDBPyConnection, ranges: pl.DataFrame) -> pl.DataFrame:
    """The slots nearest to some ranges of slots in which their GPUs have readings, on either side.

    Takes gpu_key, first, last; adds before and after, null where there are none.
    """
    found = _around(con, ranges, _REACH)
    [(lowest, highest)] = con.execute(
        "SELECT min(slot), max(slot) FROM (SELECT slot FROM segment_piece UNION ALL "
        "SELECT slot FROM gpu_piece)"
    ).fetchall()
    if lowest is None:
        return found
    # There is nothing to look for beyond the first and last readings of all.
    unknown = (pl.col("before").is_null() & (pl.col("first") - _REACH > lowest)) | (
        pl.col("after").is_null() & (pl.col("last") + _REACH < highest)
    )
    far = found.filter(unknown)
    if far.is_empty():
        return found
    return pl.concat(
        [found.filter(~unknown), _around(con, far.select("gpu_key", "first", "last"), _ANY)]
    )


_ANY = 1 << 40


def _around(con: duckdb.DuckDBPyConnection, ranges: pl.DataFrame, reach: int) -> pl.DataFrame:
    with register(con, ranges=ranges.unique()):
        return con.execute(
            """
            WITH near AS (
                SELECT gpu_key, slot FROM segment_piece UNION ALL SELECT gpu_key, slot FROM gpu_piece
            )
            SELECT g.gpu_key, g.first, g.last, max(p.slot) FILTER (p.slot < g.first) AS before,
                min(p.slot) FILTER (p.slot > g.last) AS after
            FROM ranges AS g LEFT JOIN (
                FROM near WHERE slot BETWEEN (SELECT min(first) FROM ranges) - $reach
                    AND (SELECT max(last) FROM ranges) + $reach
            ) AS p ON p.gpu_key = g.gpu_key AND (p.slot BETWEEN g.first - $reach AND g.first - 1
                OR p.slot BETWEEN g.last + 1 AND g.last + $reach)
            GROUP BY ALL
            """,
            {"reach": reach},
        ).pl()


def _check_rolled_up(con: duckdb.DuckDBPyConnection, rule: GapRule) -> None:
    other = con.execute(
        "SELECT max_gap_us FROM rolled_up WHERE max_gap_us <> ? LIMIT 1", [rule.max_gap_us]
    ).fetchall()
    for (used,) in other:
        raise SettingsError(
            f"readings were rolled up with max_gap_s = {used / 1e6:g}, and their gaps can't be "
            f"judged by {rule.max_gap_us / 1e6:g} any more",
            where="wattledger.toml, setting readings.max_gap_s",
            remedy="Set it back",
        )
