"""Integrity: a publication's folder against its manifest, and the manifest against chain and signature."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import WarehouseError
from flows.files import hash_file, name_for_people
from flows.publication.findings import Finding, Trust
from flows.publication.folders import database_in, is_regular
from flows.publication.keys import is_signed_by
from flows.publication.manifest import (
    MANIFEST,
    SIGNATURE,
    digest_entry,
    digest_files,
    digest_tables,
    digest_views,
    read_manifest,
)
from flows.publication.meters import check_signatures
from flows.publication.shapes import check_published_shape, explain_damage
from flows.warehouse.bounds import bound_time
from flows.warehouse.failures import first_line
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, attach_read_only


def check_folder(
    folder: Path, trust: Trust, previous: str | None, entry: Mapping[str, Any]
) -> Iterator[Finding]:
    """Check a publication's folder against its manifest, and the manifest against the chain.

    Args:
        folder: The publication.
        trust: What is known from elsewhere.
        previous: Digest of the manifest before; None if it is not known.
        entry: The ledger's row; empty where there is no ledger.
    """
    name = folder.name
    path = folder / MANIFEST
    if not is_regular(path):
        detail = (
            "it is missing: nobody can vouch for this publication, also if it is from before there were "
            "manifests"
        )
        yield Finding(name, "manifest", MANIFEST, False, detail)
        return
    if entry:
        same = hash_file(path) == entry.get("manifest_sha256")
        yield Finding(name, "manifest", MANIFEST, same, "not the one of the ledger")
    yield _check_signature(folder, trust)
    try:
        manifest = read_manifest(path)
    except (ValueError, OSError) as error:
        yield Finding(name, "manifest", MANIFEST, False, f"it cannot be read: {first_line(error)}")
        return
    yield from _check_entry(name, manifest["publication"], previous, entry)
    yield from _check_files(folder, manifest["files"])
    yield from _check_database(folder, manifest)


def _check_signature(folder: Path, trust: Trust) -> Finding:
    path = folder / SIGNATURE
    is_signed = is_regular(path)
    if os.path.lexists(path) and not is_signed:
        return Finding(folder.name, "signature", SIGNATURE, False, "it is no file")
    if trust.public_key is None:
        detail = "signed, but no public key was given" if is_signed else "not signed"
        return Finding(folder.name, "signature", SIGNATURE, None, detail)
    if not is_signed:
        detail = "it is missing. `wattledger sign` signs publications from before there was a key"
        return Finding(folder.name, "signature", SIGNATURE, False, detail)
    manifest = (folder / MANIFEST).read_bytes()
    signed = is_signed_by(trust.public_key, path.read_bytes(), manifest)
    return Finding(folder.name, "signature", SIGNATURE, signed, "it is not by this key")


def _check_entry(
    name: str, stated: Mapping[str, Any], previous: str | None, entry: Mapping[str, Any]
) -> Iterator[Finding]:
    """What the manifest states of the publication follows from itself, and is what the ledger has.

    Raises:
        KeyError: the manifest lacks a part of it.
    """
    follows = digest_entry(stated) == stated["digest"] and stated["publication_id"] == name
    yield Finding(name, "entry", "digest", follows, "it does not follow from the entry")
    if previous is not None:
        detail = "it names another publication before it than there is"
        same = stated["previous_digest"] == previous
        yield Finding(name, "chain", "previous_digest", same, detail)
    for column, value in entry.items():
        if column != "manifest_sha256" and str(value) != str(stated.get(column)):
            detail = f"the ledger says {value}, the manifest {stated.get(column)}"
            yield Finding(name, "chain", f"publication.{column}", False, detail)


def _check_files(folder: Path, expected: Mapping[str, Any]) -> Iterator[Finding]:
    actual = digest_files(folder)
    for name in sorted({*actual, *expected}):
        found = actual.get(name, {})
        detail = (
            "it is missing"
            if not found
            else f"it is {found['kind']}"
            if "kind" in found
            else "the manifest does not know it"
            if name not in expected
            else "its bytes were changed"
        )
        same = "sha256" in found and found == expected.get(name)
        yield Finding(folder.name, "file", name_for_people(name), same, detail)


def _check_database(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    path = database_in(folder)
    if not is_regular(path):
        yield Finding(folder.name, "table", path.name, False, "it is no file")
        return
    try:
        with closing(attach_read_only(published=FileStore(path))) as con, bound_time(con):
            strange = list(
                check_published_shape(con, folder.name, "published", path.stat().st_size)
            )
            yield from strange
            if strange:
                return
            tables, views = digest_tables(con, "published"), digest_views(con, "published")
            computed_by = query_rows(con, "SELECT method_version FROM published.computation")
            signatures = list(check_signatures(con, folder.name))
    except (WarehouseError, duckdb.Error) as error:
        yield explain_damage(error, folder.name, "table", path.name)
        return
    yield from _compare_contents(folder.name, "table", manifest["tables"], tables)
    yield from _compare_contents(folder.name, "view", manifest["views"], views)
    yield from signatures
    method = str(manifest["publication"]["method_version"])
    found = [str(row["method_version"]) for row in computed_by]
    detail = f"the manifest says {method}, the figures {', '.join(found) or 'nothing'}"
    yield Finding(folder.name, "entry", "method_version", found == [method], detail)


def _compare_contents(
    publication_id: str, what: str, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> Iterator[Finding]:
    for name in sorted({*expected, *actual}):
        same = expected.get(name) == actual.get(name)
        yield Finding(publication_id, what, name, same, "it is not what was published")
