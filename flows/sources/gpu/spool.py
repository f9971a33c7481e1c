"""Readings in a collector's folder: in finished segments and in the journal that is being written."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Collection
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import polars as pl

from flows.sources.gpu.segments import COLUMNS, HOST_COLUMNS
from flows.sources.gpu.staged import fill_columns
from wattledger.files import open_plain
from wattledger.readings import QUANTITIES
from wattledger.spool.spool import JOURNALS, Spool


def read_readings(
    spool: Spool, uuids: Collection[str], first: datetime, last: datetime
) -> pl.DataFrame:
    """Readings of some GPUs in a span of time, each once.

    Returns:
        The columns of a segment (`segments.COLUMNS`), in order of GPU and time.
    """
    span = pl.col("ts").is_between(first, last)
    parts = [pl.DataFrame(schema=COLUMNS)]
    # Journals first: one that is sealed meanwhile is found again as a segment.
    for journal in _list_journals(spool):
        recent = _read_journal(journal, uuids, first, last, spool.host)
        if recent is not None:
            parts.append(recent)
    for path in _list_segments(spool, first, last):
        if not path.name.endswith(".host.parquet"):
            readings = pl.scan_parquet(path, glob=False).filter(
                span, pl.col("gpu_uuid").is_in(list(uuids))
            )
            parts.append(fill_columns(readings.collect(), COLUMNS).cast(COLUMNS))  # type: ignore[arg-type]
    return pl.concat(parts).unique(["gpu_uuid", "ts"], keep="first").sort("gpu_uuid", "ts")


def read_host_readings(spool: Spool, first: datetime, last: datetime) -> pl.DataFrame:
    """Energy of CPU and memory in the intervals that touch a span of time.

    Returns:
        The columns of a host's segment (`segments.HOST_COLUMNS`), in order of component and time.
    """
    parts = [pl.DataFrame(schema=HOST_COLUMNS)]
    for journal in _list_journals(spool):
        rows = _query_journal(
            journal,
            "SELECT ?, ts_us, span_us, component, energy_mj, is_modelled, method "
            "FROM host WHERE ts_us > ? AND ts_us - span_us < ?",
            (spool.host, _to_us(first), _to_us(last)),
        )
        if rows:
            times = {**HOST_COLUMNS, "ts": pl.Int64(), "is_modelled": pl.Int64()}
            frame = pl.DataFrame(rows, schema=times, orient="row")
            parts.append(frame.cast(HOST_COLUMNS))  # type: ignore[arg-type]
    began = pl.col("ts") - pl.duration(microseconds=pl.col("span_us"))
    parts += [
        pl.scan_parquet(path, glob=False)
        .filter(pl.col("ts") > first, began < last)
        .select(list(HOST_COLUMNS))
        .collect()
        for path in _list_segments(spool, first, last)
        if path.name.endswith(".host.parquet")
    ]
    return pl.concat(parts).unique(["component", "ts"], keep="first").sort("component", "ts")


def _list_journals(spool: Spool) -> list[Path]:
    """Journals that this user may open; in place of another user's, the copy that its collector gives."""
    if os.access(spool.journals, os.R_OK | os.X_OK):
        return spool.list_journals()
    return [spool.recent]


def _to_us(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _list_segments(spool: Spool, first: datetime, last: datetime) -> list[Path]:
    """Finished segments that may hold the span: begun before its end, written after its start."""
    return [
        path
        for path in sorted(spool.folder.glob("*.parquet"))
        if stat.S_ISREG(path.lstat().st_mode)
        and path.stat().st_mtime >= first.timestamp()
        and _parse_start(path) <= last
    ]


def _parse_start(path: Path) -> datetime:
    stamp = path.name.removesuffix(".parquet").removesuffix(".host").rpartition("-")[2]
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


_MOST_BYTES, _MOST_ROWS, _MOST_STEPS = 2 << 30, 5_000_000, 500_000
"""Of a journal, which may be another user's: its size, the rows that are taken, and hundreds of SQLite's steps."""


def _query_journal(
    journal: Path, query: str, values: tuple[object, ...]
) -> list[tuple[object, ...]]:
    """Rows of a journal; none if it has just been sealed, or is no journal."""
    try:
        with open_plain(journal) as handle:
            if os.fstat(handle).st_size > _MOST_BYTES:
                return []
        # A copy never changes: it is replaced. A journal has a log beside it.
        mode = "immutable=1" if journal.parent.name != JOURNALS else "mode=ro"
        con = sqlite3.connect(f"{journal.absolute().as_uri()}?{mode}", uri=True, timeout=5)
    except (sqlite3.Error, OSError):
        return []
    steps = count()
    try:
        # Its schema is data, too: a view in place of a table must neither call functions nor go on for ever.
        con.execute("PRAGMA trusted_schema = OFF")
        con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        con.set_progress_handler(lambda: next(steps) > _MOST_STEPS, 100)
        return con.execute(query, values).fetchmany(_MOST_ROWS)
    except sqlite3.DatabaseError:
        return []
    finally:
        con.close()


def _read_journal(
    journal: Path, uuids: Collection[str], first: datetime, last: datetime, host: str
) -> pl.DataFrame | None:
    marks = ", ".join("?" * len(uuids))
    rows = _query_journal(
        journal,
        f"SELECT uuid, info, ts_us, {', '.join(QUANTITIES)} FROM reading JOIN gpu ON gpu.no = gpu "
        f"WHERE ts_us BETWEEN ? AND ? AND uuid IN ({marks})",
        (_to_us(first), _to_us(last), *uuids),
    )
    if not rows:
        return None
    schema = {"gpu_uuid": pl.String(), "info": pl.String(), "ts": pl.Int64()}
    quantities = {name: COLUMNS[name] for name in QUANTITIES}
    frame = pl.DataFrame(rows, schema={**schema, **quantities}, orient="row")
    try:
        infos = {text: json.loads(text) for text in frame["info"].unique()}
    except (ValueError, RecursionError):
        return None

    def take_info(name: str) -> pl.Expr:
        values = {text: info[name] for text, info in infos.items()}
        return pl.col("info").replace_strict(values, return_dtype=COLUMNS[_INFO_COLUMNS[name]])

    return frame.with_columns(
        pl.col("ts").cast(COLUMNS["ts"]),
        pl.lit(host).alias("host"),
        *(take_info(name).alias(column) for name, column in _INFO_COLUMNS.items()),
    ).select(list(COLUMNS))


_INFO_COLUMNS = {"index": "gpu_index", "model": "model", "power_source": "power_source"}
