"""Publish the candidate: one folder per publication, put in force by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows.accounting.fingerprints import find_changed_tables
from flows.errors import GateFailed, NotAsPublished
from flows.files import hash_file
from flows.publication.database import Rows, insert_rows, write_database
from flows.publication.entry import (
    Entry,
    build_entry,
    is_unchanged,
    list_overrides,
    list_restatements,
    read_last_entry,
)
from flows.publication.evidence import record_kept_inputs
from flows.publication.folders import database_in
from flows.publication.gate import (
    Decision,
    collect_overrides,
    decide,
    record_verdicts,
    run_suites,
)
from flows.publication.in_force import check_publication
from flows.publication.keys import check_keys, sign_manifest
from flows.publication.manifest import MANIFEST, SIGNATURE, build_manifest, digest_to_chain
from flows.settings import Override, Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.locks import FIGURES, tidy_warehouse, transaction, warn_of_clock
from flows.warehouse.store import open_exclusively, store_of


@dataclass(frozen=True)
class Published:
    """A publication in force."""

    publication_id: str
    folder: Path
    database: Path
    report: Path
    summary: Path
    data_docs: Path
    manifest_sha256: str
    """Digest of its manifest, to be kept elsewhere: `verify --expect`."""
    changed: bool
    """False where nothing had changed since the publication before, which then stands."""
    warnings: list[str]


def publish_candidate(
    settings: Settings, overrides: Sequence[Override] = (), reason: str = ""
) -> Published:
    """Gate the candidate and put it in force.

    Writes publications/NNNN-digest/ with published.duckdb, report.html, summary.html, data_docs/ and
    manifest.json, and makes `published` point to it. Readers see the old folder or the new one, never
    something between. Where nothing changed since the last publication, that one stands.

    Args:
        settings: The project.
        overrides: Who answers for which check, in addition to those of the settings.
        reason: Why it is published, kept with the publication.

    Raises:
        GateFailed: a check of severity fail did not pass; what was published stands untouched.
        UsageError: nothing computed, or figures older than the data or the settings; an override
            names no check, or one that nobody can answer for.
        SettingsError: the signing key cannot be used.
    """
    from flows.reporting.report.render import write_report

    overrides = collect_overrides(settings, overrides)
    check_keys(settings)  # A key that cannot be used is reported before the work.
    with open_exclusively(store_of(settings), FIGURES, wait_s=0) as con:
        put_last_in_force(con, settings)
        folder = _create_draft_folder(settings)
        verdicts = run_suites(con, settings, folder / "data_docs")
        record_kept_inputs(con)
        validation_ids = record_verdicts(con, verdicts)
        decision = decide(verdicts, overrides)
        if decision.refused:
            raise _refuse(settings, folder, decision, list(find_changed_tables(con)))
        last = read_last_entry(con)
        # What is published is one state of the warehouse: what is loaded meanwhile has later moments.
        with transaction(con, FIGURES):
            entry = build_entry(con, last, decision, reason)
            changed = _find_what_changed(settings, last)
            unchanged = last is not None and not changed and is_unchanged(con, last, entry)
            rows = _list_rows(con, entry, decision)
            if not unchanged:
                write_database(con, database_in(folder), rows, validation_ids)
        if last and unchanged:
            shutil.rmtree(folder)
            return _describe(settings, last, decision, warnings=warn_of_clock(con), changed=False)
        write_report(database_in(folder), folder, settings)
        # The row in the file itself has none: the manifest names that file by digest.
        entry["manifest_sha256"] = _seal_folder(settings, folder, entry)
        _name_folder(settings, folder, entry)
        _enter_into_ledger(con, rows)
        put_last_in_force(con, settings)
        tidy_warehouse(con)
        warnings = [*changed, *warn_of_clock(con)]
        return _describe(settings, entry, decision, warnings=warnings, changed=True)


def _find_what_changed(settings: Settings, last: Entry | None) -> list[str]:
    """Why the last publication, though nothing else is new, does not stand: somebody changed it."""
    if last is None or not last["manifest_sha256"]:
        return []
    folder = settings.publications / last["publication_id"]
    try:
        check_publication(settings, folder)
    except NotAsPublished as error:
        return [f"{error.where}: {error.what}; figures were published anew"]
    if digest_to_chain(folder) == last["manifest_sha256"]:
        return []
    return [
        f"{folder.name}: its {MANIFEST} is not the one of the ledger; figures were published anew"
    ]


def _create_draft_folder(settings: Settings) -> Path:
    folder = settings.publications / ".new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _refuse(
    settings: Settings, folder: Path, decision: Decision, changed: Sequence[str]
) -> GateFailed:
    """Discard the draft of a refused candidate, keep its Data Docs, and say why it is refused."""
    docs = settings.work / "data_docs"
    shutil.rmtree(docs, ignore_errors=True)
    shutil.move(folder / "data_docs", docs)
    shutil.rmtree(folder)
    remedy = f"What was published stands. All checks: {docs / 'index.html'}"
    if changed:
        # Else it would look like a defect of the arithmetic.
        remedy = (
            f"The tables {', '.join(changed)} are not what the computation left: somebody changed them. Run "
            f"`wattledger rebuild`, which computes everything again from the readings. {remedy}"
        )
    return GateFailed(decision.explain_refusal(), remedy=remedy)


def _list_rows(con: duckdb.DuckDBPyConnection, entry: Entry, decision: Decision) -> Rows:
    """What a publication adds to the ledger, by table."""
    return {
        "publication": [entry],
        "gate_override": list_overrides(entry, decision),
        "restatement": list_restatements(con, entry),
    }


def _seal_folder(settings: Settings, folder: Path, entry: Entry) -> str:
    """Write manifest and signature, and every byte to disk; returns the manifest's digest."""
    with closing(connect(database_in(folder), read_only=True)) as con:
        manifest = build_manifest(folder, entry, con)
    (folder / MANIFEST).write_bytes(manifest)
    if (signature := sign_manifest(settings, manifest)) is not None:
        (folder / SIGNATURE).write_bytes(signature)
    _sync_folder(folder)
    return hash_file(folder / MANIFEST)


def _sync_folder(folder: Path) -> None:
    """Make sure that every byte is on disk, and read-only, before the folder counts."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_file():
            path.chmod(0o444)  # Nothing that was published is ever edited.
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _name_folder(settings: Settings, folder: Path, entry: Entry) -> None:
    """Give the finished folder its name."""
    target = settings.publications / entry["publication_id"]
    shutil.rmtree(target, ignore_errors=True)  # Left by a run that was killed before it counted.
    folder.rename(target)


def _enter_into_ledger(con: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    """From here on the publication counts."""
    with transaction(con, FIGURES):
        insert_rows(con, rows)


def put_last_in_force(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `published` point to the last publication of the ledger, also after a kill.

    A folder that was finished but never entered into the ledger is moved to .wattledger/unpublished.
    """
    entries = query_rows(con, "SELECT publication_id FROM publication ORDER BY sequence")
    names = [entry["publication_id"] for entry in entries]
    _set_aside_unknown_folders(settings, names)
    if not names:
        return
    target = settings.publications / names[-1]
    if settings.published.resolve() == target.resolve():
        return
    link = settings.root / ".published.new"
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(settings.root), target_is_directory=True)
    link.replace(settings.published)


def _set_aside_unknown_folders(settings: Settings, names: Sequence[str]) -> None:
    for folder in list(settings.publications.glob("[0-9]*")):
        if folder.name not in names:
            aside = settings.work / "unpublished" / folder.name
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)


def _describe(
    settings: Settings,
    entry: Entry,
    decision: Decision,
    *,
    warnings: Sequence[str],
    changed: bool,
) -> Published:
    folder = settings.published
    return Published(
        publication_id=entry["publication_id"],
        folder=folder,
        database=database_in(folder),
        report=folder / "report.html",
        summary=folder / "summary.html",
        data_docs=folder / "data_docs" / "index.html",
        manifest_sha256=entry["manifest_sha256"] or "",
        changed=changed,
        warnings=[*decision.list_warnings(), *warnings],
    )
