"""Verify a project's ledger: publications are what they were, and their figures follow from what is kept.

Nothing here trusts what it checks: digests are taken again from the bytes and rows that are there, and
figures are computed again. What cannot be checked any more is said, not passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flows.files import name_for_people
from flows.publication.caches import check_caches
from flows.publication.findings import Finding, Trust
from flows.publication.folders import find_publication, list_publications
from flows.publication.integrity import check_folder
from flows.publication.manifest import digest_to_chain
from flows.publication.reproduction import check_figures, check_schema, check_warehouse
from flows.settings import Settings
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of

Entry = Mapping[str, Any]
"""A row of the table `publication`."""

_NO_FOLDER = "its folder or its database is missing"


def verify_ledger(
    settings: Settings,
    publication: str = "",
    trust: Trust | None = None,
    *,
    every: bool = False,
) -> Iterator[Finding]:
    """Verify a project's ledger: the chain and every file, and what the figures rest on.

    The chain, signatures, files, tables and views are checked of every publication; kept inputs are
    compared and figures computed again for one. What the warehouse says of publications is compared with
    their folders, and weakens no check of these.

    Args:
        settings: The project.
        publication: The one whose figures are computed again; the last if none is named.
        trust: What is known from elsewhere.
        every: Compute the figures of every publication again.

    Raises:
        UsageError: nothing is published, or there is no such publication.
    """
    folders = list_publications(settings)
    if store_of(settings).exists():
        strange = list(check_schema(store_of(settings), folders[-1].name if folders else ""))
        yield from strange
        if strange:  # Nothing more can be read, nor said.
            return
    entries = _read_ledger(settings) if store_of(settings).exists() else []
    if not folders and entries:
        for entry in entries:
            yield Finding(entry["publication_id"], "chain", "folder", False, _NO_FOLDER)
        return
    chosen = find_publication(settings, publication)
    trust = add_known_key(settings, trust or Trust())
    yield from _check_completeness(settings, entries)
    yield from _check_expected(settings, chosen, trust)
    yield from _check_chain(settings, entries, trust)
    yield from check_caches(store_of(settings), folders[-1].name)
    for folder in folders if every else [chosen]:
        yield from check_warehouse(store_of(settings), folder)
        yield from check_figures(store_of(settings), folder)


def add_known_key(settings: Settings, trust: Trust) -> Trust:
    """What is known from elsewhere, with the public key of the project where no other was given."""
    if trust.public_key is None and settings.ledger.public_key:
        return Trust(settings.root / settings.ledger.public_key, trust.expected)
    return trust


def _read_ledger(settings: Settings) -> Sequence[Entry]:
    """Rows of the table `publication`, in order."""
    with closing(store_of(settings).connect(read_only=True)) as con:
        return query_rows(con, "FROM publication ORDER BY sequence")


def _check_completeness(settings: Settings, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The ledger has every publication once and in order, and the link points to the last."""
    folders = [folder.name for folder in list_publications(settings)]
    for place, entry in enumerate(entries, 1):
        name = entry["publication_id"]
        if entry["sequence"] != place:
            detail = f"number {entry['sequence']}, not {place}"
            yield Finding(name, "chain", "sequence", False, detail)
        if name not in folders:
            yield Finding(name, "chain", "folder", False, _NO_FOLDER)
    methods = [_read_method(entry) for entry in entries]
    for before, after, entry in zip(methods, methods[1:], entries[1:], strict=False):
        if after < before:
            detail = f"method {after} after method {before}: methods never go back"
            yield Finding(entry["publication_id"], "chain", "method_version", False, detail)
    known = {entry["publication_id"] for entry in entries}
    for name in sorted(set(folders) - known):
        yield Finding(name, "chain", "ledger", False, "the ledger does not have it")
    # A publication that was not finished is called `.new`.
    for path in sorted(settings.publications.iterdir()):
        if path.name not in (*known, *folders, ".new"):
            detail = "it is no publication of this ledger"
            yield Finding(folders[-1], "chain", name_for_people(path.name), False, detail)
    last = entries[-1]["publication_id"] if entries else folders[-1]
    link = settings.published
    in_force = link.is_symlink() and link.resolve() == (settings.publications / last).resolve()
    detail = f"it should be a link to publications/{last}, and is " + (
        f"one to {name_for_people(link.readlink())}" if link.is_symlink() else "none"
    )
    yield Finding(last, "chain", "published", in_force, detail)


def _read_method(entry: Entry) -> int:
    """The number of the method; 0 where it is none, which comes before every other."""
    method = str(entry["method_version"])
    return int(method) if method.isdecimal() and len(method) < 10 else 0


def _check_expected(settings: Settings, chosen: Path, trust: Trust) -> Iterator[Finding]:
    """The publication that is verified has the manifest that was expected: the last, if none was named."""
    if not trust.expected:
        return
    digests = {folder.name: digest_to_chain(folder) for folder in list_publications(settings)}
    same = digests[chosen.name] == trust.expected
    known = [name for name, digest in digests.items() if digest == trust.expected]
    detail = (
        f"it is that of publication {known[0]}, and {chosen.name} was verified: publications were added "
        "or removed since"
        if known
        else "no publication of this ledger has it"
    )
    yield Finding(chosen.name, "chain", "expected digest", same, detail)


def _check_chain(settings: Settings, entries: Sequence[Entry], trust: Trust) -> Iterator[Finding]:
    """Every folder is what its manifest says, and each manifest names the one before."""
    by_name = {entry["publication_id"]: entry for entry in entries}
    previous: str | None = ""
    for folder in list_publications(settings):
        yield from check_folder(folder, trust, previous, by_name.get(folder.name, {}))
        previous = digest_to_chain(folder)
