"""Integrity: a publication's folder against its manifest, and the manifest against chain and signature."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import WarehouseError
from flows.files import hash_file
from flows.publication.findings import Finding, Trust
from flows.publication.folders import database_in
from flows.publication.manifest import (
    MANIFEST,
    SIGNATURE,
    digest_entry,
    digest_files,
    digest_tables,
    digest_views,
    is_signed_by,
)
from flows.warehouse.connection import connect


def check_folder(
    folder: Path,
    trust: Trust,
    previous: str | None,
    entry: Mapping[str, Any],
    *,
    vouched: bool = False,
) -> Iterator[Finding]:
    """Check a publication's folder against its manifest, and the manifest against the chain.

    Args:
        folder: The publication.
        trust: What is known from elsewhere.
        previous: Digest of the manifest before; None if it is not known.
        entry: The ledger's row; empty where there is no ledger.
        vouched: A later publication, which names this one by digest, is signed.
    """
    name = folder.name
    path = folder / MANIFEST
    if not path.is_file():
        # Nor has a warehouse that no later version has opened yet the column for it.
        is_older = bool(entry) and entry.get("manifest_sha256") is None
        detail = "published before there were manifests" if is_older else "it is missing"
        yield Finding(name, "manifest", MANIFEST, None if is_older else False, detail)
        return
    if entry:
        same = hash_file(path) == entry["manifest_sha256"]
        yield Finding(name, "manifest", MANIFEST, same, "not the one of the ledger")
    yield _check_signature(folder, trust, vouched)
    try:
        manifest = json.loads(path.read_bytes())
        files, tables, views = (dict(manifest[part]) for part in ("files", "tables", "views"))
        checks = list(_check_entry(name, dict(manifest["publication"]), previous, entry))
    except (ValueError, KeyError, TypeError) as error:
        yield Finding(name, "manifest", MANIFEST, False, f"it cannot be read: {error!r}")
        return
    yield from checks
    yield from _check_files(folder, files)
    yield from _check_database(folder, tables, views)


def _check_signature(folder: Path, trust: Trust, vouched: bool) -> Finding:
    path = folder / SIGNATURE
    if trust.public_key is None:
        detail = "signed, but no public key was given" if path.is_file() else "not signed"
        return Finding(folder.name, "signature", SIGNATURE, None, detail)
    if not path.is_file():
        ok, detail = (
            (None, "not signed, but one after it is") if vouched else (False, "it is missing")
        )
        return Finding(folder.name, "signature", SIGNATURE, ok, detail)
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
        detail = (
            "it is missing"
            if name not in actual
            else "the manifest does not know it"
            if name not in expected
            else "its bytes were changed"
        )
        same = actual.get(name) == expected.get(name)
        yield Finding(folder.name, "file", name, same, detail)


def _check_database(
    folder: Path, tables: Mapping[str, Any], views: Mapping[str, Any]
) -> Iterator[Finding]:
    path = database_in(folder)
    try:
        con = connect(path, read_only=True)
    except WarehouseError as error:
        yield Finding(folder.name, "table", path.name, False, str(error))
        return
    try:
        with closing(con):
            actual_tables, actual_views = digest_tables(con), digest_views(con)
    except duckdb.Error as error:
        yield Finding(folder.name, "table", path.name, False, f"damaged: {error}")
        return
    yield from _compare_contents(folder.name, "table", tables, actual_tables)
    yield from _compare_contents(folder.name, "view", views, actual_views)


def _compare_contents(
    publication_id: str, what: str, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> Iterator[Finding]:
    for name in sorted({*expected, *actual}):
        same = expected.get(name) == actual.get(name)
        yield Finding(publication_id, what, name, same, "it is not what was published")
