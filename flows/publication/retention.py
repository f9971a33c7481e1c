"""Retention: old readings become their sums over slots, exactly, and their digests stay.

Only what was published is rolled up. Slots that a border of an allocation cuts keep their readings, so
every published figure still follows from what is left, to the millijoule (docs/verification.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from flows.accounting import stretches as pieces
from flows.accounting.energy import gap_rule
from flows.errors import UsageError
from flows.publication import evidence
from flows.settings import FILE_NAME, Settings
from flows.warehouse.frames import query_rows, quote_literal, register
from flows.warehouse.locks import FIGURES, tidy_warehouse, transaction
from flows.warehouse.store import open_exclusively, store_of
from transforms import energy
from transforms.constants import SLOT_US
from transforms.energy import GapRule

_AT_ONCE = 50_000_000
"""Readings that one transaction replaces."""


@dataclass(frozen=True)
class RolledUp:
    """What became of old readings."""

    segments: int
    readings: int
    readings_left: int
    pieces: int
    segments_waiting: int
    """Old enough, but not published yet, or overlapping others in time."""


def roll_up(
    settings: Settings,
    after_days: float | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> RolledUp:
    """Replace readings of segments that ended more than `after_days` ago; else as [retention] says.

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
    totals = [0, 0, 0, 0]
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        found = _due(con, settings, days)
        due = [row for row in found if row["ready"]]
        while due:
            batch: list[int] = []
            size = 0
            while due and (not batch or size + due[0]["readings"] <= _AT_ONCE):
                size += due[0]["readings"]
                batch.append(due.pop(0)["segment_key"])
            with transaction(con, FIGURES):
                counts = _replace(con, batch, days, gap_rule(settings), progress)
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
        tidy_warehouse(con)
    segments, readings, left, pieces = totals
    return RolledUp(segments, readings, left, pieces, sum(not row["ready"] for row in found))


def _due(con: duckdb.DuckDBPyConnection, settings: Settings, days: float) -> list[dict[str, Any]]:
    """Segments with readings that are old enough, and whether they may be rolled up."""
    published = settings.published / "published.duckdb"
    con.execute("CREATE OR REPLACE TEMP TABLE evident (segment_id VARCHAR)")
    if published.is_file():
        con.execute(f"ATTACH {quote_literal(published)} AS was (READ_ONLY)")
        con.execute(
            "INSERT INTO evident SELECT part FROM was.kept_input WHERE table_name = ?",
            [evidence.GPU_READINGS],
        )
        used = con.execute(
            "SELECT value_json FROM was.setting WHERE section = 'readings'"
        ).fetchall()
        con.execute("DETACH was")
        if used != [(settings.recorded()["readings"],)]:
            raise UsageError(
                "[readings] is not what it was when the figures were published",
                where=FILE_NAME,
                remedy="Publish first: sums are made by the same rules as the figures",
            )
    return query_rows(
        con,
        """
        SELECT s.segment_key, d.row_count AS readings,
            s.segment_id IN (FROM evident) AND NOT EXISTS (
                FROM segment_profile AS p JOIN segment_profile AS o ON o.gpu_uuid = p.gpu_uuid
                    AND o.segment_id <> p.segment_id
                    AND o.first_ts <= p.last_ts AND o.last_ts >= p.first_ts
                JOIN segment AS t ON t.segment_id = o.segment_id AND t.verdict = 'loaded'
                WHERE p.segment_id = s.segment_id
            ) AS ready
        FROM segment AS s JOIN segment_digest AS d USING (segment_key)
        WHERE d.table_name = $table AND s.verdict = 'loaded'
            AND s.last_ts < now() - to_seconds($days * 86400)
            AND s.segment_key NOT IN (SELECT segment_key FROM rolled_up)
        ORDER BY s.segment_key
        """,
        {"table": evidence.GPU_READINGS, "days": float(days)},
    )


def _replace(
    con: duckdb.DuckDBPyConnection,
    keys: list[int],
    days: float,
    rule: GapRule,
    progress: Callable[[int], None],
) -> tuple[int, int, int, int]:
    """Replace the readings of some segments: how many segments, readings, readings left, pieces."""
    chosen = f"segment_key IN ({', '.join(map(str, keys))})"
    before = pieces.by_segment(con, chosen, rule, progress)
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE cut AS
        SELECT DISTINCT gpu_key, epoch_us(border) // {SLOT_US} AS slot FROM (
            SELECT gpu_uuid, unnest([from_ts, to_ts]) AS border FROM run_allocation
        ) JOIN gpu USING (gpu_uuid) WHERE epoch_us(border) % {SLOT_US} <> 0
        """
    )
    with register(con, partials=before):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE fresh AS FROM partials ANTI JOIN cut USING (gpu_key, slot)"
        )
    con.execute("INSERT INTO gpu_piece BY NAME FROM fresh")
    con.execute(
        f"""
        DELETE FROM gpu_reading WHERE {chosen} AND NOT EXISTS (
            FROM cut WHERE cut.gpu_key = gpu_reading.gpu_key
                AND cut.slot = epoch_us(gpu_reading.ts) // {SLOT_US}
        )
        """
    )
    after = pl.concat(
        [pieces.by_segment(con, chosen, rule, lambda n: None), con.execute("FROM fresh").pl()]
    )
    if not _slots(before, rule).equals(_slots(after, rule)):
        raise RuntimeError(f"the sums of segments {keys} are not their readings")
    left = evidence.of_segments(con, evidence.GPU_READINGS, chosen)
    pieces.forget(con, chosen)
    sums = evidence.of_segments(con, evidence.GPU_PIECES, chosen)
    for key in keys:
        [(readings, digest)] = con.execute(
            "SELECT row_count, content_sha256 FROM segment_digest "
            "WHERE segment_key = ? AND table_name = ?",
            [key, evidence.GPU_READINGS],
        ).fetchall()
        con.execute(
            "DELETE FROM segment_digest WHERE segment_key = ? AND table_name = ?",
            [key, evidence.GPU_READINGS],
        )
        con.execute(
            "INSERT INTO rolled_up SELECT segment_key, segment_id, now(), ?, ?, ?, ?, ?, ? "
            "FROM segment WHERE segment_key = ?",
            [
                days,
                rule.max_gap_us,
                readings,
                digest,
                left[key].rows if key in left else 0,
                sums[key].rows if key in sums else 0,
                key,
            ],
        )
    evidence.write(con, evidence.GPU_READINGS, left)
    evidence.write(con, evidence.GPU_PIECES, sums)
    return (
        len(keys),
        int(before["readings"].sum()),
        sum(one.rows for one in left.values()),
        sum(one.rows for one in sums.values()),
    )


def _keyed(stretches: pl.DataFrame) -> pl.DataFrame:
    """Each GPU of a segment as a GPU of its own, so that nothing lies between segments."""
    key = pl.col("segment_key").cast(pl.Int64) * pieces.KEY + pl.col("gpu_key")
    return stretches.with_columns(gpu_key=key).drop("segment_key")


def _slots(stretches: pl.DataFrame, rule: GapRule) -> pl.DataFrame:
    return energy.compute_gpu_slots(_keyed(stretches).lazy(), rule).collect()
