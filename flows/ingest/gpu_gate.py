"""The gate of GPU readings: the suite on staged profiles, and its faults as sentences with an example."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import duckdb

from expectations.checks import Result
from expectations.readings import ROWS_WHERE
from flows.errors import locate
from flows.ingest.gpu_profile import relation_of
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


def explain_failures(con: duckdb.DuckDBPyConnection, staged: Staged, failures: list[Result]) -> str:
    """Why a segment was refused: file, row, column, value and remedy."""
    sentences = []
    for failure in failures:
        profile = failure.rows[0]
        place = locate(staged.source)
        if failure.check.name in ROWS_WHERE:
            column, predicate = ROWS_WHERE[failure.check.name]
            example = _find_example(con, staged, profile, column, predicate)
            if example:
                place = locate(staged.source, example["row_no"], column, example["value"])
        check, gpu = failure.check, profile["gpu_uuid"]
        sentences.append(f"{place}: {check.statement}, but {gpu} breaks it. {check.remedy}")
    return "; ".join(sentences)


_EXAMPLE = """
    WITH staged AS (
        SELECT *,
            gpu_uuid = lag(gpu_uuid) OVER () AS same_gpu,
            epoch_us(ts) - lag(epoch_us(ts)) OVER () AS step_us,
            energy_mj - lag(energy_mj) OVER () AS rise_mj
        FROM {relation}
    )
    SELECT row_no, {column} AS value FROM staged
    WHERE gpu_uuid = $uuid AND {predicate} ORDER BY row_no LIMIT 1
"""
"""The first staged reading that breaks a check; each has the step from the row before it, in microseconds and millijoules."""


def _find_example(
    con: duckdb.DuckDBPyConnection,
    staged: Staged,
    profile: dict[str, Any],
    column: str,
    predicate: str,
) -> dict[str, Any] | None:
    uuid = profile["gpu_uuid"]
    if column == "ts" and uuid in staged.steps_back:
        return {"row_no": staged.steps_back[uuid][1], "value": None}
    query = _EXAMPLE.format(
        relation=relation_of(staged),
        column=column,
        predicate=predicate.format(limit_mw=profile.get("limit_mw", 0) or 0),
    )
    rows = query_rows(con, query, {"uuid": uuid})
    return rows[0] if rows else None
