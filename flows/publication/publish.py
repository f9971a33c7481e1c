"""Gate the candidate, and publish it: one folder per publication, put in force by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from expectations import footprint as footprint_suites
from expectations import readings as readings_suite
from expectations import restatement as restatement_suite
from expectations import runs as runs_suite
from expectations.checks import Result, Suite, Verdict
from flows import __version__
from flows.errors import GateFailed, SettingsError, UsageError
from flows.files import sha256
from flows.publication import evidence
from flows.publication import manifest as ledger
from flows.publication.restatement import restatement
from flows.reporting.report.data_docs import make_offline
from flows.settings import AT_THE_GATE, FILE_NAME, Override, Settings
from flows.warehouse import registry
from flows.warehouse.connection import connect
from flows.warehouse.digests import (
    digest_code,
    digest_factors,
    digest_inputs,
    digest_outputs,
    digest_settings,
    digest_text,
)
from flows.warehouse.frames import query_rows, register
from flows.warehouse.lake import NAME
from flows.warehouse.locks import FIGURES, tidy_warehouse, transaction
from flows.warehouse.schema import create_views, write_comments
from flows.warehouse.store import open_exclusively, store_of
from transforms import METHOD_VERSION
from transforms.schema import TABLES

_COPIED = {
    table.name: table.where_in_force if table.published == "in_force" else ""
    for table in TABLES.values()
    if table.kind == "table" and table.published in ("whole", "in_force")
}
"""Tables of the published file, and which of their rows; verdicts come on top."""
_VERDICTS = [table.name for table in TABLES.values() if table.published == "of_publication"]
_WAREHOUSE_ONLY = {
    table.name for table in TABLES.values() if table.kind == "view" and table.published == "no"
}


@dataclass(frozen=True)
class Published:
    """A publication in force."""

    publication_id: str
    folder: Path
    database: Path
    report: Path
    summary: Path
    data_docs: Path
    changed: bool
    """False where nothing had changed since the publication before, which then stands."""
    warnings: list[str]


def suites(settings: Settings) -> list[Suite]:
    """The suites that guard publication, in order.

    Raises:
        SettingsError: [gate] names a check that there is not.
    """
    gate = settings.gate
    found = [
        readings_suite.suite(
            schema="staging",
            future_tolerance_s=settings.readings.future_tolerance_s,
            max_gap_s=settings.readings.max_gap_s,
            counter_power_tolerance=gate.counter_power_tolerance,
        ),
        runs_suite.suite(schema="staging", max_days=gate.max_run_days),
        footprint_suites.signal_suite(max_g_per_kwh=gate.max_intensity_g_per_kwh),
        footprint_suites.suite(
            min_carbon_coverage=gate.min_carbon_coverage,
            max_filled_share=gate.max_filled_share,
            max_fallback_share=gate.max_fallback_share,
            second_meter_tolerance=gate.second_meter_tolerance,
            min_completeness=gate.min_completeness,
            meter_tolerance=gate.meter_tolerance,
            max_run_jump=gate.max_run_jump,
            max_year_jump=gate.max_year_jump,
        ),
        restatement_suite.suite(max_change=gate.max_restatement),
    ]
    names = {f"{one.name}.{check.name}" for one in found for check in one.checks}
    if unknown := sorted(set(gate.fail_on) - names):
        raise SettingsError(
            f"no check is called {unknown[0]!r}",
            where=f"{FILE_NAME}, setting gate.fail_on",
            remedy="`wattledger check` shows them; the name is SUITE.CHECK",
        )
    return [
        replace(
            one,
            checks=tuple(
                replace(check, severity="fail")
                if f"{one.name}.{check.name}" in gate.fail_on
                else check
                for check in one.checks
            ),
        )
        for one in found
    ]


def _views_for_gate(con: duckdb.DuckDBPyConnection) -> None:
    """What is in force, in the form that the entry suites check."""
    con.execute(
        f"CREATE OR REPLACE VIEW staging.segment_profile AS FROM {NAME}.segment_profile "
        f"WHERE segment_id IN (SELECT segment_id FROM {NAME}.segment WHERE verdict = 'loaded')"
    )
    con.execute(
        "CREATE OR REPLACE VIEW staging.run_allocation AS "
        f"SELECT *, 'stored' AS place FROM {NAME}.run_allocation "
        f"{TABLES['run_allocation'].where_in_force}"
    )


def check(con: duckdb.DuckDBPyConnection, settings: Settings, docs: Path) -> list[Verdict]:
    """Run every suite on what is in force and on the candidate; write verdicts and Data Docs.

    Raises:
        UsageError: there is no candidate, or it is older than the data.
    """
    from expectations.gate import Gate

    _check_fresh(con, settings)
    recorded = settings.recorded()
    with transaction(con, FIGURES):
        for section in AT_THE_GATE:
            con.execute(
                "UPDATE setting SET value_json = ? WHERE section = ?", [recorded[section], section]
            )
    restatement(con, _in_force(con, settings))
    gate = Gate(con, docs)
    _views_for_gate(con)
    verdicts = [gate.run(suite) for suite in suites(settings)]
    gate.build_docs()
    make_offline(docs, verdicts)
    return verdicts


def _in_force(con: duckdb.DuckDBPyConnection, settings: Settings) -> Path | None:
    """The published file of the last publication, if there is one."""
    last = query_rows(con, "SELECT publication_id FROM publication ORDER BY sequence DESC LIMIT 1")
    path = settings.publications / (last[0]["publication_id"] if last else "") / "published.duckdb"
    return path if path.is_file() else None


def _check_fresh(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    computed = query_rows(con, "FROM computation")
    if not computed:
        raise UsageError(
            "no figures have been computed", remedy="Run `wattledger footprint`, then publish"
        )
    if computed[0]["input_digest"] != digest_inputs(con):
        raise UsageError(
            "data was loaded after the figures were computed",
            remedy="Run `wattledger footprint`, then publish",
        )
    used = dict(con.execute("SELECT section, value_json FROM setting").fetchall())
    now = settings.recorded()
    if other := [s for s in now if s not in AT_THE_GATE and used.get(s) != now[s]]:
        raise UsageError(
            f"the settings were changed after the figures were computed: {', '.join(other)}",
            where=FILE_NAME,
            remedy="Run `wattledger footprint`, then publish",
        )


def check_only(settings: Settings) -> tuple[list[Verdict], Path]:
    """Run the checks and publish nothing; returns the verdicts and where the Data Docs are."""
    docs = settings.work / "data_docs"
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        shutil.rmtree(docs, ignore_errors=True)
        verdicts = check(con, settings, docs)
        with transaction(con, FIGURES):
            for verdict in verdicts:
                registry.record_verdict(con, verdict)
    return verdicts, docs


def publish(settings: Settings, overrides: Sequence[Override] = (), reason: str = "") -> Published:
    """Gate the candidate and put it in force.

    Writes publications/NNNN-digest/ with published.duckdb, report.html, summary.html, data_docs/ and
    manifest.json, and makes `published` point to it. Readers see the old folder or the new one, never
    something between. Where nothing changed since the last publication, that one stands. `overrides`
    add to those of the settings; `reason` is kept with the publication.

    Raises:
        GateFailed: a check of severity fail did not pass; what was published stands untouched.
        UsageError: nothing computed, or figures older than the data or the settings; an override
            names no check, or one that nobody can answer for.
        SettingsError: the signing key can't be used.
    """
    from expectations.gate import describe
    from flows.reporting.report.render import write_report

    overrides = _holding(settings, overrides)
    ledger.sign(settings, b"")  # A key that can't be used is said before the work.
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        reconcile(con, settings)
        folder = settings.publications / ".new"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        verdicts = check(con, settings, folder / "data_docs")
        evidence.record(con)
        with transaction(con, FIGURES):
            ids = [registry.record_verdict(con, verdict) for verdict in verdicts]
        answered, failed = _answered(verdicts, overrides)
        if failed:
            waiting = settings.work / "data_docs"
            shutil.rmtree(waiting, ignore_errors=True)
            shutil.move(folder / "data_docs", waiting)
            shutil.rmtree(folder)
            raise GateFailed(
                "the gate refused to publish: "
                + "; ".join(f"{suite}.{r.check.name}: {describe(r)}" for suite, r in failed),
                remedy=f"What was published stands. All checks: {waiting / 'index.html'}",
            )
        warnings = [
            f"{suite}.{r.check.name}, overridden by {one.by} ({one.reason}): {describe(r)}"
            for suite, r, one in answered
        ]
        # The rest (driver reloads, say) is in the report: there is nothing to do about it.
        warnings += [
            f"{v.suite.name}.{r.check.name}: {describe(r)}"
            for v in verdicts
            for r in v.warnings
            if r.check.remedy
        ]
        entry = _entry(con, verdicts, answered, reason)
        last = query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")
        if last and _same(con, last[0], entry):
            shutil.rmtree(folder)
            return _published(settings, last[0]["publication_id"], changed=False, warnings=warnings)
        added = {
            "gate_override": _override_rows(entry, answered),
            "restatement": _restatement_rows(con, entry),
        }
        database = folder / "published.duckdb"
        _write_database(con, database, {"publication": [entry], **added}, ids)
        write_report(database, folder, settings)
        entry["manifest_sha256"] = _seal(settings, folder, entry)
        final = settings.publications / entry["publication_id"]
        shutil.rmtree(final, ignore_errors=True)  # Left by a run that was killed before it counted.
        folder.rename(final)
        with transaction(con, FIGURES):
            _insert(con, {"publication": [entry], **added})
        reconcile(con, settings)
        tidy_warehouse(con)
    return _published(settings, entry["publication_id"], changed=True, warnings=warnings)


def _same(con: duckdb.DuckDBPyConnection, last: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a publication would say what the last one says, of the same evidence."""
    digests_same = all(
        last[name] == entry[name]
        for name in ("input_digest", "factor_digest", "settings_digest", "output_digest")
    )
    since = con.execute(
        "SELECT 1 FROM rolled_up WHERE rolled_up_at > ? LIMIT 1", [last["published_at"]]
    ).fetchall()
    return digests_same and not since


def _holding(settings: Settings, given: Sequence[Override]) -> list[Override]:
    """The overrides given, and those of the settings that hold today.

    Raises:
        UsageError: one names no check, or one that nobody can answer for.
    """
    known = {f"{suite.name}.{c.name}": c for suite in suites(settings) for c in suite.checks}
    for one in (*given, *settings.override):
        if one.check not in known:
            raise UsageError(
                f"no check is called {one.check!r}",
                where="override",
                remedy="`wattledger check` shows them; the name is SUITE.CHECK",
            )
        if not known[one.check].overridable:
            raise UsageError(
                f"{one.check} can't be overridden: figures that break it contradict themselves",
                where="override",
                remedy=known[one.check].remedy,
            )
    today = datetime.now(UTC).date()
    return [*given, *(one for one in settings.override if one.until >= today)]


_Answered = tuple[str, Result, Override]


def _answered(
    verdicts: Sequence[Verdict], overrides: Sequence[Override]
) -> tuple[list[_Answered], list[tuple[str, Result]]]:
    """Failed checks that somebody answers for, with who, and those that nobody does."""
    by_name = {one.check: one for one in reversed(overrides)}
    answered, failed = [], []
    for verdict in verdicts:
        suite = verdict.suite.name
        for result in verdict.failures:
            one = by_name.get(f"{suite}.{result.check.name}")
            if one is None:
                failed.append((suite, result))
            else:
                answered.append((suite, result, one))
    return answered, failed


def _entry(
    con: duckdb.DuckDBPyConnection,
    verdicts: Sequence[Verdict],
    answered: Sequence[_Answered],
    reason: str,
) -> dict[str, Any]:
    """The ledger row of this publication, in the columns of the table `publication`."""
    last = query_rows(
        con,
        "SELECT sequence, coalesce(manifest_sha256, digest) AS digest FROM publication "
        "ORDER BY sequence DESC LIMIT 1",
    )
    sequence = last[0]["sequence"] + 1 if last else 1
    [(sample,)] = con.execute("SELECT coalesce(bool_or(sample), false) FROM segment").fetchall()
    used = dict(con.execute("SELECT section, value_json FROM setting").fetchall())
    entry = {
        "sequence": sequence,
        "published_at": datetime.now(UTC),
        "sample": sample,
        "method_version": METHOD_VERSION,
        "code_version": __version__,
        "input_digest": digest_inputs(con),
        "factor_digest": digest_factors(con),
        "validation_digest": digest_text(
            *(
                f"{v.suite.name} {r.check.name} {r.success} {r.unexpected}"
                for v in verdicts
                for r in v.results
            ),
            *(f"{suite}.{r.check.name} {one.by} {one.reason}" for suite, r, one in answered),
        ),
        "output_digest": digest_outputs(con),
        "previous_digest": last[0]["digest"] if last else "",
        "settings_digest": digest_settings(used),
        "code_digest": digest_code(),
        "reason": reason or None,
        "manifest_sha256": None,
    }
    digest = ledger.entry_digest(entry)
    whole = {**entry, "publication_id": f"{sequence:04d}-{digest[:8]}", "digest": digest}
    return {name: whole[name] for name in TABLES["publication"].columns}


def _override_rows(entry: dict[str, Any], answered: Sequence[_Answered]) -> list[dict[str, Any]]:
    return [
        {
            "publication_id": entry["publication_id"],
            "suite": suite,
            "check_name": result.check.name,
            "overridden_by": one.by,
            "reason": one.reason,
            "unexpected_rows": result.unexpected,
            "recorded_at": entry["published_at"],
        }
        for suite, result, one in answered
    ]


def _restatement_rows(
    con: duckdb.DuckDBPyConnection, entry: dict[str, Any]
) -> list[dict[str, Any]]:
    found = query_rows(con, "FROM staging.restatement")
    return [{"publication_id": entry["publication_id"], **row} for row in found]


def _insert(con: duckdb.DuckDBPyConnection, added: dict[str, list[dict[str, Any]]]) -> None:
    """Add rows, in the columns of their tables."""
    for table, found in added.items():
        columns = TABLES[table].columns
        marks = ", ".join("?" for _ in columns)
        for row in found:
            con.execute(f"INSERT INTO {table} VALUES ({marks})", [row[name] for name in columns])


def _write_database(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    added: dict[str, list[dict[str, Any]]],
    validation_ids: list[str],
) -> None:
    """Copy what readers may see into a DuckDB file of its own, with views and comments."""
    target = connect(path)
    try:
        with transaction(target):
            for name, where in _COPIED.items():
                _copy(target, name, con.execute(f"FROM {name} {where}"))
            for name in _VERDICTS:
                chosen = f"FROM {name} WHERE list_contains(?, validation_id)"
                _copy(target, name, con.execute(chosen, [validation_ids]))
            _insert(target, added)
            create_views(target, leave_out=_WAREHOUSE_ONLY)
            for table in TABLES.values():
                if table.kind == "table" and table.published != "no":
                    write_comments(target, table)
        target.execute("CHECKPOINT")
    finally:
        target.close()


def _copy(target: duckdb.DuckDBPyConnection, name: str, found: duckdb.DuckDBPyConnection) -> None:
    """Write the rows of a query as a table; through Arrow, as DuckDB writes one database at a time."""
    with register(target, copied=found.to_arrow_table()):
        target.execute(f"CREATE TABLE {name} AS FROM copied")


def _seal(settings: Settings, folder: Path, entry: dict[str, Any]) -> str:
    """Write manifest and signature, and every byte to disk; returns the manifest's digest."""
    con = connect(folder / "published.duckdb", read_only=True)
    try:
        manifest = ledger.manifest(folder, entry, con)
    finally:
        con.close()
    (folder / ledger.MANIFEST).write_bytes(manifest)
    if (signature := ledger.sign(settings, manifest)) is not None:
        (folder / ledger.SIGNATURE).write_bytes(signature)
    _sync(folder)
    return sha256(folder / ledger.MANIFEST)


def _sync(folder: Path) -> None:
    """Make sure that every byte is on disk, and read-only, before the folder counts."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_file():
            path.chmod(0o444)  # Nothing that was published is ever edited.
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reconcile(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `published` point to the last publication of the ledger (also after a kill).

    A folder that was finished but never entered into the ledger is moved to .wattledger/unpublished.
    """
    known = query_rows(con, "SELECT publication_id FROM publication ORDER BY sequence")
    names = {row["publication_id"] for row in known}
    for folder in [p for p in settings.publications.glob("[0-9]*") if p.name not in names]:
        aside = settings.work / "unpublished" / folder.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
    if not known:
        return
    target = settings.publications / known[-1]["publication_id"]
    if settings.published.resolve() == target.resolve():
        return
    half = settings.root / ".published.new"
    half.unlink(missing_ok=True)
    half.symlink_to(target.relative_to(settings.root), target_is_directory=True)
    half.replace(settings.published)


def _published(
    settings: Settings, publication_id: str, *, changed: bool, warnings: list[str]
) -> Published:
    folder = settings.published
    return Published(
        publication_id,
        folder,
        folder / "published.duckdb",
        folder / "report.html",
        folder / "summary.html",
        folder / "data_docs" / "index.html",
        changed,
        warnings,
    )
