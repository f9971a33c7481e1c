"""Energy of CPU and memory, from the collector's host segments: each exactly once, or to quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from expectations import host as host_suite
from flows import catalogue
from flows.catalogue import Outcome
from flows.settings import Settings
from flows.sources.segments import HOST_COLUMNS
from flows.warehouse import one_file, rows, transaction

FORMAT = "host-segment"
_BATCH = 100
"""Files that go through the gate together; each check names at most one row of each."""
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
                {"digest": digest, "path": one_file(path)},
            )
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException | duckdb.FatalException):
                raise
            reason = f"{path}: {str(error).splitlines()[0]}. Copy the file again"
            outcomes[path] = catalogue.quarantine(con, settings, path, digest, "reader", reason)
            del waiting[digest]
    verdict = Gate(con).run(
        host_suite.suite(future_tolerance_s=settings.readings.future_tolerance_s)
    )
    with transaction(con):
        catalogue.record_verdict(con, verdict)
    faults: dict[str, list[str]] = {}
    for result in verdict.failures:
        for row in result.rows:
            said = faults.setdefault(row["segment_id"], [])
            place = f"{files[row['segment_id']]}, {row['component']} at {row['ts']}"
            text = f"{place}: {result.check.statement}. {result.check.remedy}".strip()
            if len(said) < 3:
                said.append(text)
    for digest, path in waiting.items():
        if digest in faults:
            reason = "; ".join(faults[digest])
            outcomes[path] = catalogue.quarantine(
                con, settings, path, digest, "host_readings", reason, FORMAT
            )
        else:
            outcomes[path] = _promote(con, digest, path)
    con.execute("DROP TABLE staging.host_reading")
    return outcomes


def _promote(con: duckdb.DuckDBPyConnection, digest: str, path: Path) -> Outcome:
    mine = "staging.host_reading WHERE segment_id = $digest"
    [facts] = rows(
        con,
        f"SELECT count(*) AS n, min(ts) AS first, max(ts) AS last FROM {mine}",
        {"digest": digest},
    )
    with transaction(con):
        if digest in catalogue.known(con):
            return Outcome(str(path), digest, "known")
        [(stored,)] = con.execute(
            "SELECT count(*) FROM staging.host_reading AS s SEMI JOIN host_reading AS r "
            "USING (host, component, ts) WHERE s.segment_id = $digest",
            {"digest": digest},
        ).fetchall()
        key = catalogue.record_file(
            con,
            segment_id=digest,
            source_name=str(path),
            source_format=FORMAT,
            verdict="loaded",
            rows_read=facts["n"],
            rows_loaded=facts["n"] - stored,
            rows_duplicate=stored,
            first_ts=facts["first"],
            last_ts=facts["last"],
        )
        con.execute(
            f"INSERT INTO host_reading SELECT {_COLUMNS}, {key} FROM staging.host_reading AS s "
            "ANTI JOIN host_reading AS r USING (host, component, ts) "
            "WHERE s.segment_id = $digest",
            {"digest": digest},
        )
    return Outcome(str(path), digest, "loaded", facts["n"], facts["n"] - stored, stored)
