"""Energy of CPU and memory, from the collector's host segments: each exactly once, or in quarantine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from expectations.checks import Verdict
from expectations.host import COMPONENTS, MAX_POWER_W
from expectations.readings import EARLIEST
from flows.errors import BadInput
from flows.files import hash_file, name_for_people
from flows.ingest.suites import configure_host_suite
from flows.rows import RowFaults
from flows.settings import Settings
from flows.sources.gpu.segments import HOST_COLUMNS
from flows.sources.verdict import judge_file
from flows.times import describe_span
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
        outcomes, faults = _stage_files(con, settings, files)
        verdict = Gate(con).run(configure_host_suite(settings))
        with transaction(con):
            registry.record_verdict(con, verdict)
        for digest, reason in _explain_failures(verdict, files).items():
            outcomes[files[digest]] = registry.quarantine_file(
                con, settings, files[digest], digest, "host_readings", reason, FORMAT
            )
        good = {digest: path for digest, path in files.items() if path not in outcomes}
        return outcomes | _store(con, good, faults)


def _stage_files(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> tuple[dict[Path, Outcome], dict[str, RowFaults]]:
    """Copy good intervals of segments into staging.host_reading; what became of those that cannot be read.

    Returns:
        Outcomes of refused segments, and the intervals that were set aside of the others, by digest.
    """
    refused: dict[Path, Outcome] = {}
    faults: dict[str, RowFaults] = {}
    for digest, path in files.items():
        faults[digest] = RowFaults(path, settings.ingest.max_bad_rows_share)
        try:
            with judge_file(path):
                good = _read_intervals(con, path, faults[digest], settings)
                _refuse_changed(path, digest)
        except BadInput as error:
            refused[path] = registry.quarantine_file(
                con, settings, path, digest, "reader", str(error), FORMAT
            )
            continue
        with register(con, host_good=good.drop("row_no")):
            con.execute(
                "INSERT INTO staging.host_reading BY NAME SELECT $digest AS segment_id, * FROM host_good",
                {"digest": digest},
            )
    return refused, faults


def _refuse_changed(path: Path, digest: str) -> None:
    """Refuse a segment that is another by now than the one whose digest was taken."""
    if hash_file(path) != digest:
        raise BadInput(
            "it was changed while it was read", where=name_for_people(path), remedy="Load it again"
        )


def _read_intervals(
    con: duckdb.DuckDBPyConnection, path: Path, faults: RowFaults, settings: Settings
) -> pl.DataFrame:
    """The intervals of a segment that can be believed by themselves: row_no and HOST_COLUMNS.

    Raises:
        BadInput: the segment is damaged, or too many of its intervals are bad.
    """
    try:
        frame = con.execute(
            f"SELECT file_row_number + 1 AS row_no, {_COLUMNS} "
            "FROM read_parquet($path, file_row_number = true)",
            {"path": escape_glob(path)},
        ).pl()
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException | duckdb.FatalException):
            raise
        reason = str(error).splitlines()[0]
        raise BadInput(reason, where=str(path), remedy="Copy the file again") from None
    total = frame.height
    for name in HOST_COLUMNS:
        if name != "method":
            frame = faults.drop(
                frame, pl.col(name).is_null(), f"Every interval has a value for {name}", field=name
            )
    energy, span = pl.col("energy_mj"), pl.col("span_us")
    future = datetime.now(UTC) + timedelta(seconds=settings.readings.future_tolerance_s)
    for bad, statement, field, remedy in (
        (energy < 0, "No energy is below zero", "energy_mj", "Check the meter"),
        (span < 1, "Every interval has a length", "span_us", "Check the clock of the node"),
        (
            ~pl.col("component").is_in(COMPONENTS),
            f"Components are {' and '.join(COMPONENTS)}",
            "component",
            "",
        ),
        (
            energy.cast(pl.Float64) * 1000 > MAX_POWER_W * span.cast(pl.Float64),
            f"No part of a host draws more than {MAX_POWER_W:g} W",
            "energy_mj",
            "Check the meter; energies are millijoules",
        ),
        (
            (energy == 0) & ~pl.col("is_modelled") & (span >= _SECOND_US),
            "No part of a host that is on draws nothing: the meter had no value",
            "energy_mj",
            "Check that the node may read its meter",
        ),
        (
            pl.col("ts") > future,
            "No interval lies in the future",
            "ts",
            "Set the clock of the node",
        ),
        (pl.col("ts") < EARLIEST, "No interval is from before 2007", "ts", "Set the clock"),
    ):
        frame = faults.drop(frame, bad, statement, field=field, value=field, remedy=remedy)
    faults.check(total)
    return frame


_SECOND_US = 1_000_000


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


def _store(
    con: duckdb.DuckDBPyConnection, files: Mapping[str, Path], faults: Mapping[str, RowFaults]
) -> dict[Path, Outcome]:
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
            for digest in new:
                bad = faults[digest].count
                if bad and digest in totals:
                    totals[digest]["rows_read"] += bad
                registry.quarantine_rows(con, digest, faults[digest].rows)
            records = [
                registry.File(digest, str(path), FORMAT, "loaded", **totals.get(digest, {}))
                for digest, path in new.items()
            ]
            keys = registry.record_files(con, records)
            described = {row["segment_id"]: _say(row) for row in query_rows(con, _DESCRIBE)}
            con.execute(
                "INSERT INTO host_reading BY NAME "
                "SELECT * EXCLUDE (segment_id, place, is_stored), place + $first_key AS segment_key "
                "FROM host_interval WHERE NOT is_stored",
                {"first_key": keys[0]},
            )
    return outcomes | {
        path: registry.add_row_faults(_describe(record, described), faults[record.segment_id])
        for path, record in zip(new.values(), records, strict=True)
    }


def _describe(record: registry.File, described: Mapping[str, str]) -> Outcome:
    """What became of a segment, with what it was understood to hold."""
    outcome = record.as_outcome()
    outcome.understood = [described[record.segment_id]] if record.segment_id in described else []
    return outcome


_DESCRIBE = """
    SELECT segment_id, string_agg(DISTINCT host, ', ' ORDER BY host) AS hosts,
        string_agg(DISTINCT component, ', ' ORDER BY component) AS components, min(ts) AS first_ts, max(ts) AS last_ts,
        sum(energy_mj) / 3.6e9 AS kwh, avg(is_modelled::INTEGER) AS modelled
    FROM host_interval GROUP BY ALL
"""


def _say(row: Mapping[str, Any]) -> str:
    """What a segment holds, as a sentence."""
    return (
        f"host {row['hosts']}: {row['components']}, {describe_span(row['first_ts'], row['last_ts'])}; "
        f"{row['kwh']:.4g} kWh, {row['modelled']:.0%} of the intervals modelled"
    )
