"""Readings reduced to stretches (`transforms.energy.partial_slots`), and those kept of every segment.

Stretches follow from the readings of their segment alone, so they are computed once: the next computation
reads only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import duckdb
import polars as pl

from flows.errors import SettingsError
from transforms import energy
from transforms.energy import GapRule
from transforms.schemas import POWER_SOURCES, SLOT_US, TABLES

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
    con.register("given", cells.select("gpu_key", "slot").unique().to_arrow())
    con.execute("CREATE OR REPLACE TEMP TABLE cell AS FROM given")
    con.unregister("given")
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
        parts.append(energy.partial_slots(batch, rule))
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
    return energy.partial_slots(pl.DataFrame(schema=schema), GapRule())


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


def keep(con: duckdb.DuckDBPyConnection, rule: GapRule, progress: Progress) -> int:
    """Reduce the segments that have no stretches yet by this rule (inside the caller's transaction).

    Returns how many there were.
    """
    con.execute(
        "DELETE FROM segment_piece WHERE segment_key IN "
        "(SELECT segment_key FROM reduced_segment WHERE max_gap_us <> $gap)",
        {"gap": rule.max_gap_us},
    )
    con.execute("DELETE FROM reduced_segment WHERE max_gap_us <> $gap", {"gap": rule.max_gap_us})
    new = con.execute(
        "SELECT segment_key FROM segment WHERE verdict = 'loaded' AND segment_id IN "
        "(SELECT segment_id FROM segment_profile) AND segment_key NOT IN "
        "(SELECT segment_key FROM reduced_segment) ORDER BY 1"
    ).fetchall()
    if not new:
        return 0
    con.execute("CREATE OR REPLACE TEMP TABLE fresh (segment_key INTEGER)")
    con.executemany("INSERT INTO fresh VALUES (?)", new)
    # The bounds let whole blocks of other segments be passed over.
    among = f"r.segment_key BETWEEN {new[0][0]} AND {new[-1][0]} AND r.segment_key IN (FROM fresh)"
    con.register("stretches", by_segment(con, among, rule, progress).to_arrow())
    con.execute("INSERT INTO segment_piece BY NAME FROM stretches")
    con.unregister("stretches")
    con.execute("INSERT INTO reduced_segment SELECT segment_key, ? FROM fresh", [rule.max_gap_us])
    con.execute("DROP TABLE fresh")
    return len(new)


def forget(con: duckdb.DuckDBPyConnection, where: str) -> None:
    """Drop the stretches of segments whose readings change (inside the caller's transaction)."""
    for table in ("segment_piece", "reduced_segment"):
        con.execute(f"DELETE FROM {table} WHERE {where}")


def partials(con: duckdb.DuckDBPyConnection, rule: GapRule) -> pl.DataFrame:
    """Stretches of everything, from what `keep` keeps and what was rolled up; none overlap."""
    kept = con.execute("SELECT * EXCLUDE (segment_key) FROM segment_piece").pl()
    return _together(con, kept.select(_none().columns), rule)


def partials_of_readings(
    con: duckdb.DuckDBPyConnection, rule: GapRule, progress: Progress
) -> pl.DataFrame:
    """The same from the readings themselves."""
    return _together(con, reduced(con, query(), rule, progress), rule)


def _together(con: duckdb.DuckDBPyConnection, found: pl.DataFrame, rule: GapRule) -> pl.DataFrame:
    """Stretches with those that were rolled up, and slots in which some overlap reduced anew.

    Segments overlap where two recorders saw one GPU, or a log was loaded out of order.
    """
    _check_rolled_up(con, rule)
    old = rolled_up(con)
    mixed = energy.overlapping(pl.concat([found, old]))
    if mixed.is_empty():
        return pl.concat([found, old])
    sql = of_cells(con, mixed, "r.gpu_key, r.ts, r.power_mw, r.energy_mj")
    again = reduced(con, sql, rule, lambda rows: None)
    # What is rolled up overlaps nothing: it is the rest of these slots that does.
    others = found.join(mixed, on=["gpu_key", "slot"], how="anti")
    return pl.concat([others, old, again])


def rolled_up(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Stretches of readings that are no longer there."""
    return con.execute("SELECT * EXCLUDE (segment_key) FROM gpu_piece").pl().select(_none().columns)


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
