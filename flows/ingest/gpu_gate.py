"""The gate of GPU readings: the suite on staged profiles, and its faults as sentences with an example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from expectations.checks import Result
from expectations.readings import OF_WHOLE_FILES, ROWS_WHERE
from flows.errors import locate
from flows.ingest.gpu_profile import leave_out, relation_of
from flows.ingest.suites import configure_readings_suite
from flows.settings import Settings
from flows.sources.gpu.staged import Staged
from flows.warehouse import registry
from flows.warehouse.frames import query_rows
from flows.warehouse.locks import transaction


@dataclass(frozen=True)
class Faults:
    """What the gate said of the segments of a batch."""

    failures: dict[str, list[Result]]
    """Segment -> checks that it fails, with its own rows."""
    warnings: dict[str, list[str]]
    """Segment -> warnings, as sentences."""


def check_profiles(con: duckdb.DuckDBPyConnection, settings: Settings) -> Faults:
    """Run the suite on all staged profiles, and record the verdict."""
    from expectations.gate import Gate

    verdict = Gate(con).run(configure_readings_suite(settings))
    with transaction(con):
        registry.record_verdict(con, verdict)
    failures: dict[str, list[Result]] = defaultdict(list)
    warnings: dict[str, list[str]] = defaultdict(list)
    for result in verdict.failures:
        for segment_id, rows in _group_rows(result).items():
            failures[segment_id].append(Result(result.check, False, len(rows), rows))
    for result in verdict.warnings:
        for segment_id, rows in _group_rows(result).items():
            more = f" and {len(rows) - 1} more GPUs" if len(rows) > 1 else ""
            warnings[segment_id].append(
                f"{result.check.statement}: not so for {rows[0]['gpu_uuid']}{more}"
            )
    return Faults(dict(failures), dict(warnings))


def _group_rows(result: Result) -> dict[str, list[dict[str, Any]]]:
    """The rows that break a check, by segment."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in result.rows:
        rows[row["segment_id"]].append(row)
    return rows


def explain_failures(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    staged: Staged,
    failures: list[Result],
) -> str:
    """Why a segment was refused: file, row, column, value and remedy."""
    sentences = []
    for failure in failures:
        profile = failure.rows[0]
        place = locate(staged.source)
        if failure.check.name in ROWS_WHERE:
            column = ROWS_WHERE[failure.check.name][0]
            for example in _find_faulty(con, settings, staged, failure, profile, 1):
                place = locate(staged.source, example["row_no"], column, example["value"])
        check, gpu = failure.check, profile["gpu_uuid"]
        sentences.append(f"{place}: {check.statement}, but {gpu} breaks it. {check.remedy}")
    return "; ".join(sentences)


_FAULTY = """
    WITH staged AS (
        SELECT *,
            gpu_uuid = lag(gpu_uuid) OVER () AS same_gpu,
            epoch_us(ts) - lag(epoch_us(ts)) OVER () AS step_us,
            energy_mj - lag(energy_mj) OVER () AS rise_mj,
            gpu_uuid = lead(gpu_uuid) OVER () AS next_same_gpu,
            lead(epoch_us(ts)) OVER () - epoch_us(ts) AS next_step_us
        FROM {relation}
    )
    SELECT row_no, {column}::VARCHAR AS value FROM staged
    WHERE gpu_uuid = $uuid AND ({predicate}) ORDER BY row_no LIMIT $most
"""
"""The staged readings that break a check; each has the steps from and to its neighbours, in microseconds and millijoules."""


def _find_faulty(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    staged: Staged,
    failure: Result,
    profile: dict[str, Any],
    most: int,
) -> list[dict[str, Any]]:
    """Rows of one GPU that break a check, up to `most` of them: row_no and value."""
    uuid = profile["gpu_uuid"]
    column, predicate = ROWS_WHERE[failure.check.name]
    if column == "ts" and failure.check.name in OF_WHOLE_FILES and uuid in staged.steps_back:
        return [{"row_no": staged.steps_back[uuid][1], "value": None}]
    query = _FAULTY.format(
        relation=relation_of(staged),
        column=column,
        predicate=predicate.format(
            limit_mw=profile.get("limit_mw", 0) or 0,
            future_s=settings.readings.future_tolerance_s,
        ),
    )
    return query_rows(con, query, {"uuid": uuid, "most": most})


def set_rows_aside(
    con: duckdb.DuckDBPyConnection, settings: Settings, staged: Staged, failures: Sequence[Result]
) -> bool:
    """Set aside the rows because of which a file fails, if each failure has such rows and they are few.

    Args:
        con: The warehouse.
        settings: The project.
        staged: The file; if True comes back, its path is a copy without those rows.
        failures: The checks that it fails.

    Returns:
        Whether the file can go through the gate again.
    """
    names = {failure.check.name for failure in failures}
    if not names <= set(ROWS_WHERE) - OF_WHOLE_FILES:
        return False
    allowed = staged.faults.count_allowed(staged.rows_read)
    found: dict[int, tuple[str, str, Any, str]] = {}
    for failure in failures:
        column = ROWS_WHERE[failure.check.name][0]
        reason = f"not so: {failure.check.statement}"
        for profile in failure.rows:
            rows = _find_faulty(con, settings, staged, failure, profile, allowed + 1)
            for row in rows:
                found.setdefault(
                    row["row_no"], (reason, column, row["value"], failure.check.remedy)
                )
    if not 0 < len(found) <= allowed - staged.faults.count:
        return False
    for row_no, (reason, column, value, remedy) in found.items():
        staged.faults.add(row_no, reason, column, value, remedy)
    leave_out(con, staged, list(found), settings.work / "staging")
    return True
