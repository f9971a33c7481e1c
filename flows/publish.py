"""Gate the candidate, and publish it: one folder per publication, put in force by one rename."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from expectations import footprint as footprint_suites
from expectations import readings as readings_suite
from expectations import runs as runs_suite
from expectations.checks import Suite, Verdict
from flows import __version__, catalogue, digests
from flows.errors import GateFailed, UsageError
from flows.report.data_docs import make_offline
from flows.settings import Settings
from flows.warehouse import (
    comment,
    connect,
    create_views,
    disk_errors,
    rows,
    transaction,
    writing,
)
from transforms.schemas import TABLES

_CURRENT = "WHERE superseded_at IS NULL"
_COPIED = {
    "gpu": "",
    "segment": "",
    "segment_profile": "",
    "training_run": _CURRENT,
    "run_allocation": _CURRENT,
    "site": "",
    "host": "",
    "zone": "",
    "contract": "",
    "contract_delivery": "",
    "tariff": "",
    "gpu_embodied": "",
    "factor": "",
    "factor_use": "",
    "grid_fetch": "",
    "quarantine": "",
    "collector_event": "",
    "gpu_instance": "",
    "run_record": "",
    "second_meter": "",
    "gpu_slot": "",
    "host_slot": "",
    "energy_slot": "",
    "slot_signal": "",
    "slot_source": "",
    "contract_slot": "",
    "footprint_slot": "",
    "run_footprint": "",
    "run_alternative": "",
    "run_sensitivity": "",
    "conservation": "",
    "computation": "",
    "publication": "",
}
"""Tables of the published file, and which of their rows; verdicts come on top."""
_WAREHOUSE_ONLY = {"gpu_readings"}


@dataclass(frozen=True)
class Published:
    """A publication in force."""

    publication_id: str
    folder: Path
    database: Path
    report: Path
    data_docs: Path
    changed: bool
    """False where nothing had changed since the publication before, which then stands."""
    warnings: list[str]


def suites(settings: Settings) -> list[Suite]:
    """The suites that guard publication, in order."""
    return [
        readings_suite.suite(
            schema="staging",
            future_tolerance_s=settings.readings.future_tolerance_s,
            max_gap_s=settings.readings.max_gap_s,
        ),
        runs_suite.suite(schema="staging", max_days=settings.gate.max_run_days),
        footprint_suites.signal_suite(max_g_per_kwh=settings.gate.max_intensity_g_per_kwh),
        footprint_suites.suite(
            min_carbon_coverage=settings.gate.min_carbon_coverage,
            max_filled_share=settings.gate.max_filled_share,
            max_fallback_share=settings.gate.max_fallback_share,
            second_meter_tolerance=settings.gate.second_meter_tolerance,
        ),
    ]


def _views_for_gate(con: duckdb.DuckDBPyConnection) -> None:
    """What is in force, in the form that the entry suites check."""
    con.execute(
        "CREATE OR REPLACE VIEW staging.segment_profile AS FROM main.segment_profile "
        "WHERE segment_id IN (SELECT segment_id FROM main.segment WHERE verdict = 'loaded')"
    )
    con.execute(
        "CREATE OR REPLACE VIEW staging.run_allocation AS "
        f"SELECT *, 'stored' AS place FROM main.run_allocation {_CURRENT}"
    )


def check(con: duckdb.DuckDBPyConnection, settings: Settings, docs: Path) -> list[Verdict]:
    """Run every suite on what is in force and on the candidate; write verdicts and Data Docs.

    Raises:
        UsageError: there is no candidate, or it is older than the data.
    """
    from expectations.gate import Gate

    _check_fresh(con)
    gate = Gate(con, docs)
    _views_for_gate(con)
    verdicts = [gate.run(suite) for suite in suites(settings)]
    gate.build_docs()
    make_offline(docs, verdicts)
    return verdicts


def _check_fresh(con: duckdb.DuckDBPyConnection) -> None:
    computed = rows(con, "FROM computation")
    if not computed:
        raise UsageError(
            "no figures have been computed", remedy="Run `wattledger footprint`, then publish"
        )
    if computed[0]["input_digest"] != digests.inputs(con):
        raise UsageError(
            "data was loaded after the figures were computed",
            remedy="Run `wattledger footprint`, then publish",
        )


def check_only(settings: Settings) -> tuple[list[Verdict], Path]:
    """Run the checks and publish nothing; returns the verdicts and where the Data Docs are."""
    docs = settings.work / "data_docs"
    with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
        shutil.rmtree(docs, ignore_errors=True)
        verdicts = check(con, settings, docs)
        with transaction(con):
            for verdict in verdicts:
                catalogue.record_verdict(con, verdict)
    return verdicts, docs


def publish(settings: Settings) -> Published:
    """Gate the candidate and put it in force.

    Writes publications/NNNN-digest/ with published.duckdb, report.html and data_docs/, and makes
    `published` point to it. Readers see the old folder or the new one, never something between.
    Where nothing changed since the last publication, that one stands.

    Raises:
        GateFailed: a check of severity fail did not pass; what was published stands untouched.
        UsageError: nothing computed, or figures older than the data.
    """
    from expectations.gate import describe
    from flows.report.render import render

    with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
        reconcile(con, settings)
        folder = settings.publications / ".new"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        verdicts = check(con, settings, folder / "data_docs")
        with transaction(con):
            ids = [catalogue.record_verdict(con, verdict) for verdict in verdicts]
        failed = [(v.suite.name, r) for v in verdicts for r in v.failures]
        if failed:
            kept = settings.work / "data_docs"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.move(folder / "data_docs", kept)
            shutil.rmtree(folder)
            raise GateFailed(
                "the gate refused to publish: "
                + "; ".join(f"{suite}.{r.check.name}: {describe(r)}" for suite, r in failed),
                remedy=f"What was published stands. All checks: {kept / 'index.html'}",
            )
        # The rest (driver reloads, say) is in the report: there is nothing to do about it.
        warnings = [
            f"{v.suite.name}.{r.check.name}: {describe(r)}"
            for v in verdicts
            for r in v.warnings
            if r.check.remedy
        ]
        entry = _entry(con, verdicts)
        last = rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")
        if last and all(
            last[0][name] == entry[name]
            for name in ("input_digest", "factor_digest", "output_digest")
        ):
            shutil.rmtree(folder)
            return _published(settings, last[0]["publication_id"], changed=False, warnings=warnings)
        _write_database(con, folder / "published.duckdb", entry, ids)
        render(folder / "published.duckdb", folder / "report.html", settings)
        _sync(folder)
        final = settings.publications / entry["publication_id"]
        shutil.rmtree(final, ignore_errors=True)  # Left by a run that was killed before it counted.
        folder.rename(final)
        with transaction(con):
            marks = ", ".join("?" for _ in entry)
            con.execute(f"INSERT INTO publication VALUES ({marks})", list(entry.values()))
        reconcile(con, settings)
    return _published(settings, entry["publication_id"], changed=True, warnings=warnings)


def _entry(con: duckdb.DuckDBPyConnection, verdicts: list[Verdict]) -> dict[str, Any]:
    """The ledger row of this publication, in the columns of the table `publication`."""
    last = rows(con, "SELECT sequence, digest FROM publication ORDER BY sequence DESC LIMIT 1")
    sequence = last[0]["sequence"] + 1 if last else 1
    previous = last[0]["digest"] if last else ""
    [(sample,)] = con.execute("SELECT coalesce(bool_or(sample), false) FROM segment").fetchall()
    digest_of = {
        "input_digest": digests.inputs(con),
        "factor_digest": digests.factors(con),
        "validation_digest": digests.text(
            *(
                f"{v.suite.name} {r.check.name} {r.success} {r.unexpected}"
                for v in verdicts
                for r in v.results
            )
        ),
        "output_digest": digests.outputs(con),
        "previous_digest": previous,
    }
    digest = digests.text(digests.METHOD_VERSION, __version__, *digest_of.values())
    return {
        "publication_id": f"{sequence:04d}-{digest[:8]}",
        "sequence": sequence,
        "published_at": datetime.now(UTC),
        "sample": sample,
        "method_version": digests.METHOD_VERSION,
        "code_version": __version__,
        **digest_of,
        "digest": digest,
    }


def _write_database(
    con: duckdb.DuckDBPyConnection, path: Path, entry: dict[str, Any], validation_ids: list[str]
) -> None:
    """Copy what readers may see into a DuckDB file of its own, with views and comments."""
    target = connect(path)
    try:
        for name, where in _COPIED.items():
            # Through Arrow, as DuckDB writes one database per transaction.
            target.register("copied", con.execute(f"FROM {name} {where}").to_arrow_table())
            target.execute(f"CREATE TABLE {name} AS FROM copied")
            target.unregister("copied")
        for name in ("validation_run", "validation_result"):
            chosen = con.execute(
                f"FROM {name} WHERE list_contains(?, validation_id)", [validation_ids]
            ).to_arrow_table()
            target.register("copied", chosen)
            target.execute(f"CREATE TABLE {name} AS FROM copied")
            target.unregister("copied")
        marks = ", ".join("?" for _ in entry)
        target.execute(f"INSERT INTO publication VALUES ({marks})", list(entry.values()))
        create_views(target, leave_out=_WAREHOUSE_ONLY)
        for table in TABLES.values():
            if table.name in _COPIED or table.name.startswith("validation_"):
                comment(target, table)
        target.execute("CHECKPOINT")
    finally:
        target.close()


def _sync(folder: Path) -> None:
    """Make sure that every byte is on disk before the folder counts."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reconcile(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `published` point to the last publication of the ledger (also after a kill)."""
    last = rows(con, "SELECT publication_id FROM publication ORDER BY sequence DESC LIMIT 1")
    if not last:
        return
    target = settings.publications / last[0]["publication_id"]
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
        folder / "data_docs" / "index.html",
        changed,
        warnings,
    )
