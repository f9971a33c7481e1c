"""Energy of CPU and memory, from the collector's host segments: each exactly once, or to quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from expectations import host as host_suite
from flows.settings import Settings
from flows.sources.gpu.segments import HOST_COLUMNS
from flows.warehouse import registry
from flows.warehouse.frames import escape_glob, query_rows, register
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome

FORMAT = "host-segment"
_BATCH = 200
"""Files that go through the gate together: each check names at most one row of each, and Great Expectations at most
so many rows of a check."""
_COLUMNS = "host, component, ts, span_us, energy_mj, is_modelled, method"


def load(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> dict[Path, Outcome]:
    """Load host segments (digest -> path); what became of each.

    Intervals that are stored already are left out and counted.
    """
    listed = list(files.items())
    outcomes: dict[Path, Outcome] = {}
    for start in range(0, len(listed), _BATCH):
        outcomes |= _load(con, settings, dict(listed[start : start + _BATCH]))
    return outcomes


def _load(
    con: duckdb.DuckDBPyConnection, settings: Settings, files: Mapping[str, Path]
) -> dict[Path, Outcome]:
    from expectations.gate import Gate

    types = ["VARCHAR", "TIMESTAMPTZ", "BIGINT", "VARCHAR", "BIGINT", "BOOLEAN", "VARCHAR"]
    listed = ", ".join(f"{n}::{t} AS {n}" for n, t in zip(HOST_COLUMNS, types, strict=True))
    con.execute(
        "CREATE OR REPLACE TABLE staging.host_reading AS "
        f"SELECT ''::VARCHAR AS segment_id, {_COLUMNS} FROM host_reading LIMIT 0"
    )
    outcomes: dict[Path, Outcome] = {}
    waiting = dict(files)
    for digest, path in files.items():
        try:
            con.execute(
                f"INSERT INTO staging.host_reading BY NAME SELECT $digest AS segment_id, {listed} "
                "FROM read_parquet($path)",
                {"digest": digest, "path": escape_glob(path)},
            )
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException | duckdb.FatalException):
                raise
            reason = f"{path}: {str(error).splitlines()[0]}. Copy the file again"
            outcomes[path] = registry.quarantine_file(con, settings, path, digest, "reader", reason)
            del waiting[digest]
    verdict = Gate(con).run(
        host_suite.suite(future_tolerance_s=settings.readings.future_tolerance_s)
    )
    with transaction(con):
        registry.record_verdict(con, verdict)
    faults: dict[str, list[str]] = {}
    for result in verdict.failures:
        for row in result.rows:
            said = faults.setdefault(row["segment_id"], [])
            place = f"{files[row['segment_id']]}, {row['component']} at {row['ts']}"
            text = f"{place}: {result.check.statement}. {result.check.remedy}".strip()
            if len(said) < 3:
                said.append(text)
    for digest in faults:
        path = waiting.pop(digest)
        reason = "; ".join(faults[digest])
        outcomes[path] = registry.quarantine_file(
            con, settings, path, digest, "host_readings", reason, FORMAT
        )
    outcomes |= _promote(con, waiting)
    con.execute("DROP TABLE staging.host_reading")
    return outcomes


def _promote(con: duckdb.DuckDBPyConnection, files: Mapping[str, Path]) -> dict[Path, Outcome]:
    """Intervals and catalogue of some segments, in one transaction; what two of them have counts for the first."""
    with transaction(con):
        known = registry.find_loaded(con, list(files))
        outcomes = {
            path: Outcome(str(path), digest, "known")
            for digest, path in files.items()
            if digest in known
        }
        fresh = {digest: path for digest, path in files.items() if digest not in known}
        if not fresh:
            return outcomes
        order = pa.table({"place": range(len(fresh)), "segment_id": list(fresh)})
        with register(con, given=order):
            con.execute(
                f"""
                CREATE OR REPLACE TEMP TABLE found AS
                SELECT {_COLUMNS}, segment_id, place, (host, component, ts) IN (
                    SELECT (host, component, ts) FROM host_reading WHERE ts BETWEEN
                        (SELECT min(ts) FROM staging.host_reading)
                        AND (SELECT max(ts) FROM staging.host_reading)
                ) OR row_number() OVER (PARTITION BY host, component, ts ORDER BY place) > 1 AS stored
                FROM staging.host_reading JOIN given USING (segment_id)
                """
            )
        totals = {
            row.pop("segment_id"): row
            for row in query_rows(
                con,
                "SELECT segment_id, count(*) AS rows_read, count_if(NOT stored) AS rows_loaded, "
                "count_if(stored) AS rows_duplicate, min(ts) AS first_ts, max(ts) AS last_ts "
                "FROM found GROUP BY ALL",
            )
        }
        recorded = [
            registry.File(digest, str(path), FORMAT, "loaded", **totals.get(digest, {}))
            for digest, path in fresh.items()
        ]
        keys = registry.record_files(con, recorded)
        con.execute(
            f"INSERT INTO host_reading SELECT {_COLUMNS}, place + {keys[0]} "
            "FROM found WHERE NOT stored"
        )
        con.execute("DROP TABLE found")
    return outcomes | {
        path: file.as_outcome() for path, file in zip(fresh.values(), recorded, strict=True)
    }
