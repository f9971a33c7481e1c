"""The gate: which checks guard a publication, what they say of the candidate, and what is decided."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from expectations import footprint, grain, restatement
from expectations.checks import Check, Result, Suite, Verdict
from expectations.gate import Gate, describe_result
from flows.errors import SettingsError, UsageError
from flows.ingest.suites import configure_readings_suite, configure_runs_suite
from flows.publication.folders import database_in
from flows.publication.restatement import stage_restatement
from flows.reporting.report.data_docs import make_offline
from flows.settings import FILE_NAME, GATE_TABLES, Override, Settings
from flows.warehouse import registry
from flows.warehouse.digests import digest_inputs
from flows.warehouse.frames import query_rows, register
from flows.warehouse.lake import NAME
from flows.warehouse.locks import FIGURES, transaction
from flows.warehouse.store import open_exclusively, store_of
from transforms.schema import TABLES


@dataclass(frozen=True)
class Overridden:
    """A failed check that a person answers for."""

    suite: str
    result: Result
    override: Override

    @property
    def name(self) -> str:
        return f"{self.suite}.{self.result.check.name}"


@dataclass(frozen=True)
class Decision:
    """What the gate decided about a candidate."""

    verdicts: list[Verdict]
    overridden: list[Overridden]
    refused: list[tuple[str, Result]]
    """Failed checks that nobody answers for, with their suites; with any of these nothing is published."""

    def explain_refusal(self) -> str:
        """Which failed checks refuse the candidate, and by which rows."""
        failures = (
            f"{suite}.{result.check.name}: {describe_result(result)}"
            for suite, result in self.refused
        )
        return f"the gate refused to publish: {'; '.join(failures)}"

    def list_warnings(self) -> list[str]:
        """What a person should read, in sentences."""
        overridden = [
            f"{failure.name}, overridden by {failure.override.by} ({failure.override.reason}): "
            f"{describe_result(failure.result)}"
            for failure in self.overridden
        ]
        # The rest (driver reloads, say) is in the report: there is nothing to do about it.
        warned = [
            f"{verdict.suite.name}.{result.check.name}: {describe_result(result)}"
            for verdict in self.verdicts
            for result in verdict.warnings
            if result.check.remedy
        ]
        return overridden + warned


def check_candidate(settings: Settings) -> tuple[list[Verdict], Path]:
    """Run the checks and publish nothing; returns the verdicts and where the Data Docs are."""
    docs = settings.work / "data_docs"
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        shutil.rmtree(docs, ignore_errors=True)
        verdicts = run_suites(con, settings, docs)
        record_verdicts(con, verdicts)
    return verdicts, docs


def run_suites(con: duckdb.DuckDBPyConnection, settings: Settings, docs: Path) -> list[Verdict]:
    """Run every suite on what is in force and on the candidate; write the Data Docs.

    Raises:
        UsageError: there is no candidate, or it is older than the data.
    """
    _check_candidate_is_current(con, settings)
    _record_settings_of_gate(con, settings)
    stage_restatement(con, _find_database_in_force(con, settings))
    _stage_inputs(con)
    _stage_grains(con)
    gate = Gate(con, docs)
    verdicts = [gate.run(suite) for suite in build_suites(settings)]
    gate.build_docs()
    make_offline(docs, verdicts)
    return verdicts


def record_verdicts(con: duckdb.DuckDBPyConnection, verdicts: Sequence[Verdict]) -> list[str]:
    """Write verdicts into the warehouse; returns their ids."""
    with transaction(con, FIGURES):
        return [registry.record_verdict(con, verdict) for verdict in verdicts]


def build_suites(settings: Settings) -> list[Suite]:
    """The suites that guard publication, in order.

    Raises:
        SettingsError: [gate] names a check that there is not.
    """
    gate = settings.gate
    suites = [
        configure_readings_suite(settings),
        configure_runs_suite(settings),
        footprint.build_signal_suite(max_g_per_kwh=gate.max_intensity_g_per_kwh),
        footprint.build_footprint_suite(gate),
        restatement.build_restatement_suite(max_change=gate.max_restatement),
        grain.build_grain_suite(),
    ]
    names = {name for name, _ in _name_checks(suites)}
    if unknown := sorted(set(gate.fail_on) - names):
        raise SettingsError(
            f"no check is called {unknown[0]!r}",
            where=f"{FILE_NAME}, setting gate.fail_on",
            remedy="`wattledger check` shows them; the name is SUITE.CHECK",
        )
    return [_fail_on(suite, gate.fail_on) for suite in suites]


def _fail_on(suite: Suite, names: Sequence[str]) -> Suite:
    """A suite in which the named checks (SUITE.CHECK) refuse, not only warn."""
    checks = (
        replace(check, severity="fail") if f"{suite.name}.{check.name}" in names else check
        for check in suite.checks
    )
    return replace(suite, checks=tuple(checks))


def _name_checks(suites: Sequence[Suite]) -> Iterator[tuple[str, Check]]:
    for suite in suites:
        for check in suite.checks:
            yield f"{suite.name}.{check.name}", check


def _check_candidate_is_current(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    remedy = "Run `wattledger footprint`, then publish"
    computations = query_rows(con, "FROM computation")
    if not computations:
        raise UsageError("no figures have been computed", remedy=remedy)
    if computations[0]["input_digest"] != digest_inputs(con):
        raise UsageError("data was loaded after the figures were computed", remedy=remedy)
    used = dict(con.execute("SELECT section, value_json FROM setting").fetchall())
    current = settings.to_record()
    changed = [
        section
        for section in current
        if section not in GATE_TABLES and used.get(section) != current[section]
    ]
    if changed:
        raise UsageError(
            f"the settings were changed after the figures were computed: {', '.join(changed)}",
            where=FILE_NAME,
            remedy=remedy,
        )


def _record_settings_of_gate(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    recorded = settings.to_record()
    with transaction(con, FIGURES):
        for section in GATE_TABLES:
            con.execute(
                "UPDATE setting SET value_json = ? WHERE section = ?", [recorded[section], section]
            )


def _find_database_in_force(con: duckdb.DuckDBPyConnection, settings: Settings) -> Path | None:
    """The published file of the last publication, if there is one."""
    last = query_rows(con, "SELECT publication_id FROM publication ORDER BY sequence DESC LIMIT 1")
    if not last:
        return None
    path = database_in(settings.publications / last[0]["publication_id"])
    return path if path.is_file() else None


def _stage_inputs(con: duckdb.DuckDBPyConnection) -> None:
    """Views of what is in force, in the form that the suites of loading check."""
    con.execute(
        f"CREATE OR REPLACE VIEW staging.segment_profile AS FROM {NAME}.segment_profile "
        f"WHERE segment_id IN (SELECT segment_id FROM {NAME}.segment WHERE verdict = 'loaded')"
    )
    con.execute(
        "CREATE OR REPLACE VIEW staging.run_allocation AS "
        f"SELECT *, 'stored' AS place FROM {NAME}.run_allocation "
        f"{TABLES['run_allocation'].where_in_force}"
    )


_UNCOUNTED = ("readings", "cache", "lock")
"""Roles of tables whose rows are too many to count by key; loading keeps each reading once."""


def _stage_grains(con: duckdb.DuckDBPyConnection) -> None:
    """Count the rows and the keys of every table and view whose rows in force have a key."""
    counts = [
        {
            "table_name": table.name,
            "key_columns": ", ".join(table.key),
            **query_rows(con, _COUNT_KEYS.format(table=table, key=", ".join(table.key)))[0],
        }
        for table in TABLES.values()
        if table.key and table.role not in _UNCOUNTED and table.name != "gpu_readings"
    ]
    con.execute("DROP TABLE IF EXISTS staging.table_grain")
    with register(con, grains=pl.DataFrame(counts)):
        con.execute("CREATE TABLE staging.table_grain AS FROM grains")


_COUNT_KEYS = f"""
    WITH counted AS (SELECT {{key}} FROM {NAME}.{{table.name}} {{table.where_in_force}})
    SELECT (SELECT count(*) FROM counted) AS row_count,
        (SELECT count(*) FROM (SELECT DISTINCT * FROM counted)) AS key_count
"""


def collect_overrides(settings: Settings, overrides: Sequence[Override]) -> list[Override]:
    """The overrides given, and those of the settings that are valid today.

    Raises:
        UsageError: one names no check, or one that nobody can answer for.
    """
    checks = dict(_name_checks(build_suites(settings)))
    for override in (*overrides, *settings.override):
        if override.check not in checks:
            raise UsageError(
                f"no check is called {override.check!r}",
                where="override",
                remedy="`wattledger check` shows them; the name is SUITE.CHECK",
            )
        check = checks[override.check]
        if not check.overridable:
            raise UsageError(
                f"{override.check} cannot be overridden: figures that break it contradict themselves",
                where="override",
                remedy=check.remedy,
            )
    today = datetime.now(UTC).date()
    valid = (override for override in settings.override if override.until >= today)
    return [*overrides, *valid]


def decide(verdicts: list[Verdict], overrides: Sequence[Override]) -> Decision:
    """Decide about a candidate: which failed checks are overridden, and which refuse it.

    Args:
        verdicts: What the suites said.
        overrides: Who answers for which check; of several of one check, the first counts.
    """
    by_check = {override.check: override for override in reversed(overrides)}
    overridden, refused = [], []
    for verdict in verdicts:
        suite = verdict.suite.name
        for result in verdict.failures:
            override = by_check.get(f"{suite}.{result.check.name}")
            if override is None:
                refused.append((suite, result))
            else:
                overridden.append(Overridden(suite, result, override))
    return Decision(verdicts, overridden, refused)
