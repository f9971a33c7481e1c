"""Energy of CPU and memory, from the collector's host segments: each exactly once, or in quarantine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from expectations.checks import Verdict
from flows.ingest.suites import configure_host_suite
from flows.settings import Settings
from flows.sources.gpu.segments import HOST_COLUMNS
from flows.warehouse import registry
from flows.warehouse.frames import (
    escape_glob,
    load_query,
    query_rows,
    register,
    stage,
    temporary,
)
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome

FORMAT = "host-segment"
_BATCH = 200
"""Files that go through the gate together: each check names at most one row of each, and Great Expectations at most
so many rows of a check."""
_TYPES = ("VARCHAR", "TIMESTAMPTZ", "BIGINT", "VARCHAR", "BIGINT", "BOOLEAN", "VARCHAR")
_COLUMNS = ", ".join(
    f"{name}::{kind} AS {name}" for name, kind in zip(HOST_COLUMNS, _TYPES, strict=True)
)
_REASONS = 3
"""Intervals that are named where a segment is refused, at most."""


def load_host_segments(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> dict[Path, Outcome]:
    """Load host segments; intervals that are stored already are left out and counted.

    Args:
        con: The warehouse, open for writing.
        settings: The project.
        files: Digest -> segment.

    Returns:
        What became of each segment.
    """
    segments = list(files.items())
    outcomes: dict[Path, Outcome] = {}
    for start in range(0, len(segments), _BATCH):
        outcomes |= _load_batch(con, settings, dict(segments[start : start + _BATCH]))
    return outcomes


def _load_batch(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> dict[Path, Outcome]:
    from expectations.gate import Gate

    empty = "SELECT ''::VARCHAR AS segment_id, * EXCLUDE (segment_key) FROM host_reading LIMIT 0"
    with stage(con, host_reading=empty):
        outcomes = _stage_files(con, settings, files)
        verdict = Gate(con).run(configure_host_suite(settings))
        with transaction(con):
            registry.record_verdict(con, verdict)
        for digest, reason in _explain_failures(verdict, files).items():
            outcomes[files[digest]] = registry.quarantine_file(
                con, settings, files[digest], digest, "host_readings", reason, FORMAT
            )
        good = {digest: path for digest, path in files.items() if path not in outcomes}
        return outcomes | _store(con, good)


def _stage_files(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> dict[Path, Outcome]:
    """Copy segments into staging.host_reading; what became of those that cannot be read."""
    refused: dict[Path, Outcome] = {}
    for digest, path in files.items():
        try:
            con.execute(
                f"INSERT INTO staging.host_reading BY NAME SELECT $digest AS segment_id, {_COLUMNS} "
                "FROM read_parquet($path)",
                {"digest": digest, "path": escape_glob(path)},
            )
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException | duckdb.FatalException):
                raise
            reason = f"{path}: {str(error).splitlines()[0]}. Copy the file again"
            refused[path] = registry.quarantine_file(con, settings, path, digest, "reader", reason)
    return refused


def _explain_failures(verdict: Verdict, files: Mapping[str, Path]) -> dict[str, str]:
    """Why segments are refused, by digest: the first intervals that break a check, and what to do."""
    sentences: dict[str, list[str]] = defaultdict(list)
    for result in verdict.failures:
        for row in result.rows:
            place = f"{files[row['segment_id']]}, {row['component']} at {row['ts']}"
            sentences[row["segment_id"]].append(
                f"{place}: {result.check.statement}. {result.check.remedy}".strip()
            )
    return {digest: "; ".join(reasons[:_REASONS]) for digest, reasons in sentences.items()}


def _store(con: duckdb.DuckDBPyConnection, files: Mapping[str, Path]) -> dict[Path, Outcome]:
    """Store intervals and registry rows of segments in one transaction; an interval that two have counts for the first."""
    with transaction(con):
        loaded = registry.find_loaded(con, list(files))
        outcomes = {
            files[digest]: Outcome(str(files[digest]), digest, "known") for digest in loaded
        }
        new = {digest: path for digest, path in files.items() if digest not in loaded}
        if not new:
            return outcomes
        order = pa.table({"place": range(len(new)), "segment_id": list(new)})
        with (
            register(con, new_file=order),
            temporary(con, host_interval=load_query("ingest/host_intervals")),
        ):
            totals = {
                row.pop("segment_id"): row
                for row in query_rows(
                    con,
                    "SELECT segment_id, count(*) AS rows_read, count_if(NOT is_stored) AS rows_loaded, "
                    "count_if(is_stored) AS rows_duplicate, min(ts) AS first_ts, max(ts) AS last_ts "
                    "FROM host_interval GROUP BY ALL",
                )
            }
            records = [
                registry.File(digest, str(path), FORMAT, "loaded", **totals.get(digest, {}))
                for digest, path in new.items()
            ]
            keys = registry.record_files(con, records)
            con.execute(
                "INSERT INTO host_reading BY NAME "
                "SELECT * EXCLUDE (segment_id, place, is_stored), place + $first_key AS segment_key "
                "FROM host_interval WHERE NOT is_stored",
                {"first_key": keys[0]},
            )
    return outcomes | {
        path: record.as_outcome() for path, record in zip(new.values(), records, strict=True)
    }
