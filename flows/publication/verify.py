"""Verify a project's ledger: publications are what they were, and their figures follow from what is kept.

Nothing here trusts what it checks: digests are taken again from the bytes and rows that are there, and
figures are computed again. What cannot be checked any more is said, not passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from flows.publication.findings import Finding, Trust
from flows.publication.folders import find_publication, list_publications
from flows.publication.integrity import check_folder
from flows.publication.manifest import SIGNATURE, digest_to_chain
from flows.publication.reproduction import check_figures, check_warehouse
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of

Ledger = Mapping[str, Mapping[str, Any]]
"""Rows of the table `publication` by id, in order."""


def verify_ledger(
    settings: Settings,
    publication: str = "",
    trust: Trust | None = None,
    *,
    every: bool = False,
) -> Iterator[Finding]:
    """Verify a project's ledger: the chain and every file, and what the figures rest on.

    The chain, signatures, files, tables and views are checked of every publication; kept inputs are
    compared and figures computed again for one.

    Args:
        settings: The project.
        publication: The one whose figures are computed again; the last if none is named.
        trust: What is known from elsewhere.
        every: Compute the figures of every publication again.

    Raises:
        UsageError: nothing is published, or there is no such publication.
    """
    chosen = find_publication(settings, publication)
    trust = trust or Trust()
    if trust.public_key is None and settings.ledger.public_key:
        trust = Trust(settings.root / settings.ledger.public_key, trust.expected)
    ledger = _read_ledger(settings)
    yield from _check_completeness(settings, ledger)
    yield from _check_chain(settings, ledger, trust)
    for folder in list_publications(settings) if every else [chosen]:
        yield from check_warehouse(store_of(settings), folder)
        yield from check_figures(store_of(settings), folder)


def _read_ledger(settings: Settings) -> Ledger:
    with closing(store_of(settings).connect(read_only=True)) as con:
        entries = query_rows(con, "FROM publication ORDER BY sequence")
    return {entry["publication_id"]: entry for entry in entries}


def _check_completeness(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    """The ledger has every publication once and in order, and the link points to the last."""
    folders = {folder.name for folder in list_publications(settings)}
    for place, (name, entry) in enumerate(ledger.items(), 1):
        if entry["sequence"] != place:
            detail = f"number {entry['sequence']}, not {place}"
            yield Finding(name, "chain", "sequence", False, detail)
        if name not in folders:
            yield Finding(name, "chain", "folder", False, "its folder or its database is missing")
    for name in sorted(folders - set(ledger)):
        yield Finding(name, "chain", "ledger", False, "the ledger does not have it")
    last = list(ledger)[-1] if ledger else ""
    link = settings.published.resolve().name
    if link != last:
        yield Finding(last, "chain", "published", False, f"the link points to {link}")


def _check_chain(settings: Settings, ledger: Ledger, trust: Trust) -> Iterator[Finding]:
    """Every folder is what its manifest says, and each manifest names the one before."""
    folders = list_publications(settings)
    if trust.expected:
        manifests = {entry["manifest_sha256"] for entry in ledger.values()}
        detail = "no publication of this ledger has it"
        known = trust.expected in manifests
        yield Finding(folders[-1].name, "chain", "expected digest", known, detail)
    signed = [place for place, folder in enumerate(folders) if (folder / SIGNATURE).is_file()]
    previous: str | None = ""
    for place, folder in enumerate(folders):
        entry = ledger.get(folder.name, {})
        vouched = any(later > place for later in signed)
        yield from check_folder(folder, trust, previous, entry, vouched=vouched)
        previous = digest_to_chain(entry)
