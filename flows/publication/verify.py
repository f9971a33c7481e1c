"""Verification: that publications are what they were, and that their figures follow from what is kept.

Nothing here trusts what it checks: digests are taken again from the bytes and rows that are there, and
figures are computed again. What can't be checked any more is said, not passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import UsageError, WarehouseError
from flows.files import hash_file
from flows.publication import evidence
from flows.publication import manifest as ledger
from flows.publication.revisions import computed_again, folder_of, publications
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.digests import Content, digest_code
from flows.warehouse.frames import query_rows, quote_literal, register
from flows.warehouse.lake import NAME
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of
from transforms.schema import TABLES, that_change

DATABASE = "published.duckdb"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `ok` is None where it can't be checked here; `detail` says why."""

    publication_id: str
    what: str
    place: str
    ok: bool | None
    detail: str = ""

    def __post_init__(self) -> None:
        if self.ok:  # There is nothing to say about what is as it should be.
            object.__setattr__(self, "detail", "")


@dataclass(frozen=True)
class Trust:
    """What the verifier knows from elsewhere: a public key, the digest of a manifest."""

    public_key: Path | None = None
    expected: str = ""


def verify(
    settings: Settings,
    publication: str = "",
    trust: Trust | None = None,
    *,
    every: bool = False,
) -> Iterator[Finding]:
    """Verify a project's ledger: the chain and every file, and what the figures rest on.

    The chain, signatures, files, tables and views are checked of every publication; kept inputs are
    compared and figures computed again for one publication (the last if none is named), or `every`.

    Raises:
        UsageError: nothing is published, or there is no such publication.
    """
    chosen = folder_of(settings, publication)
    folders = publications(settings)
    trust = trust or Trust()
    if trust.public_key is None and settings.ledger.public_key:
        trust = Trust(settings.root / settings.ledger.public_key, trust.expected)
    recorded = _ledger(settings)
    yield from _complete(settings, recorded, {folder.name for folder in folders})
    if trust.expected:
        digests_of = {row["manifest_sha256"] for row in recorded.values()}
        yield Finding(
            folders[-1].name,
            "chain",
            "expected digest",
            trust.expected in digests_of,
            "no publication of this ledger has it",
        )
    before: str | None = ""
    signed = [place for place, one in enumerate(folders) if (one / ledger.SIGNATURE).is_file()]
    for place, folder in enumerate(folders):
        row = recorded.get(folder.name, {})
        vouched = any(later > place for later in signed)
        yield from check_folder(folder, trust, before, row, vouched=vouched)
        before = row.get("manifest_sha256") or row.get("digest")
    for folder in folders if every else [chosen]:
        yield from _rests_on(store_of(settings), folder)
        yield from check_figures(store_of(settings), folder)


def _ledger(settings: Settings) -> dict[str, dict[str, Any]]:
    con = store_of(settings).connect(read_only=True)
    try:
        found = query_rows(con, "FROM publication ORDER BY sequence")
    finally:
        con.close()
    return {row["publication_id"]: row for row in found}


def _complete(
    settings: Settings, recorded: Mapping[str, Mapping[str, Any]], folders: set[str]
) -> Iterator[Finding]:
    """The ledger has every publication once and in order, and the link points to the last."""
    for place, (name, row) in enumerate(recorded.items(), 1):
        if row["sequence"] != place:
            yield Finding(
                name, "chain", "sequence", False, f"number {row['sequence']}, not {place}"
            )
        if name not in folders:
            yield Finding(name, "chain", "folder", False, "its folder or its database is missing")
    for name in sorted(folders - set(recorded)):
        yield Finding(name, "chain", "ledger", False, "the ledger does not have it")
    last = list(recorded)[-1] if recorded else ""
    link = settings.published.resolve().name
    if link != last:
        yield Finding(last, "chain", "published", False, f"the link points to {link}")


def check_folder(
    folder: Path,
    trust: Trust,
    before: str | None,
    recorded: Mapping[str, Any],
    *,
    vouched: bool = False,
) -> Iterator[Finding]:
    """A publication's folder against its manifest, and that against the chain.

    `before` is the digest of the manifest before (None: not known), `recorded` the ledger's row,
    `vouched` says that a later publication, which names this one by digest, is signed.
    """
    name = folder.name
    path = folder / ledger.MANIFEST
    if not path.is_file():
        # Nor has a warehouse that no later version has opened yet the column for it.
        old = bool(recorded) and recorded.get("manifest_sha256") is None
        said = "published before there were manifests" if old else "it is missing"
        yield Finding(name, "manifest", ledger.MANIFEST, None if old else False, said)
        return
    digest = hash_file(path)
    if recorded:
        same = digest == recorded["manifest_sha256"]
        yield Finding(name, "manifest", ledger.MANIFEST, same, "not the one of the ledger")
    yield _signature(folder, trust, vouched)
    try:
        manifest = json.loads(path.read_bytes())
        said = manifest["publication"]
        parts: list[dict[str, Any]] = [manifest[part] for part in ("files", "tables", "views")]
        previous, own = said["previous_digest"], said["digest"]
        counted = ledger.entry_digest(said)
    except (ValueError, KeyError, TypeError) as error:
        yield Finding(name, "manifest", ledger.MANIFEST, False, f"it can't be read: {error!r}")
        return
    agrees = counted == own and said["publication_id"] == name
    yield Finding(name, "entry", "digest", agrees, "it does not follow from the entry")
    if before is not None:
        detail = "it names another publication before it than there is"
        yield Finding(name, "chain", "previous_digest", previous == before, detail)
    for column, value in recorded.items():
        if column != "manifest_sha256" and str(value) != str(said.get(column)):
            detail = f"the ledger says {value}, the manifest {said.get(column)}"
            yield Finding(name, "chain", f"publication.{column}", False, detail)
    yield from _files(folder, parts[0])
    yield from _contents(folder, *parts[1:])


def _signature(folder: Path, trust: Trust, vouched: bool) -> Finding:
    path = folder / ledger.SIGNATURE
    if trust.public_key is None:
        said = "signed, but no public key was given" if path.is_file() else "not signed"
        return Finding(folder.name, "signature", ledger.SIGNATURE, None, said)
    if not path.is_file():
        ok, said = (
            (None, "not signed, but one after it is") if vouched else (False, "it is missing")
        )
        return Finding(folder.name, "signature", ledger.SIGNATURE, ok, said)
    signed = (folder / ledger.MANIFEST).read_bytes()
    ok = ledger.is_signed_by(trust.public_key, path.read_bytes(), signed)
    return Finding(folder.name, "signature", ledger.SIGNATURE, ok, "it is not by this key")


def _files(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    there = ledger.files(folder)
    for name in sorted({*there, *expected}):
        detail = (
            "it is missing"
            if name not in there
            else "the manifest does not know it"
            if name not in expected
            else "its bytes were changed"
        )
        yield Finding(folder.name, "file", name, there.get(name) == expected.get(name), detail)


def _contents(
    folder: Path, tables: Mapping[str, Any], views: Mapping[str, Any]
) -> Iterator[Finding]:
    try:
        con = connect(folder / DATABASE, read_only=True)
    except WarehouseError as error:
        yield Finding(folder.name, "table", DATABASE, False, str(error))
        return
    try:
        for what, expected, there in (
            ("table", tables, ledger.tables(con)),
            ("view", views, ledger.views(con)),
        ):
            for name in sorted({*expected, *there}):
                same = expected.get(name) == there.get(name)
                yield Finding(folder.name, what, name, same, "it is not what was published")
    except duckdb.Error as error:
        yield Finding(folder.name, "table", DATABASE, False, f"damaged: {error}")
    finally:
        con.close()


def _rests_on(store: Store, folder: Path) -> Iterator[Finding]:
    """The warehouse still holds what a publication rests on, and what it says itself."""
    try:
        with closing(attach_read_only(store=store, was=FileStore(folder / DATABASE))) as con:
            if "kept_input" not in ledger.tables_of(con, "was"):
                detail = "published before digests of readings were kept"
                yield Finding(folder.name, "kept", "readings", None, detail)
                return
            yield from check_kept(con, folder.name)
            yield from _as_published(con, folder.name)
    except duckdb.Error as error:
        yield Finding(folder.name, "kept", NAME, False, f"damaged: {error}")


def check_kept(
    con: duckdb.DuckDBPyConnection, name: str, only: frozenset[str] | None = None
) -> Iterator[Finding]:
    """Readings and grid data of `store` against the digests that `was` holds.

    `only`: the segments that the store should hold; readings of others are left out.
    """
    [(then,)] = con.execute("SELECT computed_at FROM was.computation").fetchall()
    expected = {
        (row["table_name"], row["part"]): Content(row["row_count"], row["content_sha256"])
        for row in query_rows(con, "FROM was.kept_input")
    }
    there = evidence.of_revised(con, then, "store")
    segments = dict(
        con.execute(
            "SELECT segment_key, segment_id FROM store.segment WHERE loaded_at <= ?", [then]
        ).fetchall()
    )
    for table in evidence.BY_SEGMENT:
        for key, content in evidence.of_segments(con, table, schema="store").items():
            if key in segments:
                there[table, segments[key]] = content
    rolled_up = {
        row["segment_id"]: row
        for row in query_rows(con, "FROM store.rolled_up ORDER BY rolled_up_at DESC")
    }
    own = {
        (row["table_name"], row["segment_id"]): Content(row["row_count"], row["content_sha256"])
        for row in (
            query_rows(con, "FROM store.segment_digest JOIN store.segment USING (segment_key)")
            if "segment_digest" in ledger.tables_of(con, "store")
            else []
        )
    }
    sources = dict(con.execute("SELECT segment_id, source_name FROM was.segment").fetchall())
    for table, part in sorted({*expected, *there}):
        if only is not None and table in evidence.BY_SEGMENT and part not in only:
            continue
        was, now = expected.get((table, part)), there.get((table, part))
        since = rolled_up.get(part)
        if was != now and since and (evidence.GPU_PIECES, part) not in expected:
            # Rolled up after this publication: what it named is gone. What is left has digests of its
            # own, which the next publication names.
            if table == evidence.GPU_READINGS:
                yield _rolled_up(name, sources.get(part, part), was, since)
            if table in (evidence.GPU_READINGS, evidence.GPU_PIECES):
                if not own:
                    continue
                was = own.get((table, part))
        place = f"{table} {sources.get(part, part)}".strip()
        detail = (
            f"{was.rows if was else 0} rows were published, {now.rows if now else 0} are there"
            if was is None or now is None or was.rows != now.rows
            else "its rows were changed"
        )
        yield Finding(name, "kept", place, was == now, detail)


def _rolled_up(name: str, source: str, was: Content | None, since: Mapping[str, Any]) -> Finding:
    """Readings that are no longer there: the digest kept of them is the one that was published."""
    place = f"{evidence.GPU_READINGS} {source}"
    if was is None or was.sha256 != since["readings_sha256"]:
        return Finding(name, "kept", place, False, "they were rolled up, but were others")
    detail = (
        f"rolled up {since['rolled_up_at']:%Y-%m-%d} after {since['after_days']:g} days: of "
        f"{since['readings']:,} readings {since['readings_left']:,} are left and "
        f"{since['pieces']:,} sums; figures follow from these"
    )
    return Finding(name, "kept", place, None, detail)


_GIVEN_LATER = {"publication": "manifest_sha256"}
"""Table that grows -> the column that is null in the published file, and in the warehouse is not."""


def _as_published(con: duckdb.DuckDBPyConnection, name: str) -> Iterator[Finding]:
    """The warehouse's other tables hold what was published of them."""
    shared = ledger.tables_of(con, "was") & ledger.tables_of(con, "store")
    for table in sorted(shared & set(that_change("by_growth"))):
        # A file that was refused may be loaded later; its row is then another one.
        where = TABLES[table].where_in_force
        columns = f"* EXCLUDE ({_GIVEN_LATER[table]})" if table in _GIVEN_LATER else "*"
        gone = query_rows(
            con,
            f"SELECT {columns} FROM was.{table} {where} "
            f"EXCEPT ALL SELECT {columns} FROM store.{table}",
        )
        detail = f"{len(gone)} published rows are not there: {_row(gone[0])}" if gone else ""
        yield Finding(name, "warehouse", table, not gone, detail)
    same = con.execute("FROM was.computation INTERSECT FROM store.computation").fetchall()
    if not same:
        return  # The candidate is another one by now.
    # Runs, which are revised, are compared by their digests (`check_kept`).
    for table in sorted(shared - set(that_change("by_growth", "by_revision", "at_any_time"))):
        yield _compared(con, name, "warehouse", table, f"store.{table}", "true")


def check_figures(store: Store, folder: Path, run_id: str | None = None) -> Iterator[Finding]:
    """Every figure computed again from the store, and compared to the last digit.

    With `run_id`, those of one run.
    """
    name = folder.name
    try:
        con, tables = computed_again(store, folder / DATABASE, run_id)
    except UsageError as error:
        yield Finding(name, "figures", "all", None, str(error))
        return
    except Exception as error:  # Inputs that were tampered with may break anything on the way.
        yield Finding(name, "figures", "all", False, f"they can't be computed again: {error}")
        return
    try:
        [(code,)] = con.execute(
            "SELECT max_by(code_digest, sequence) FROM was.publication"
        ).fetchall()
        if code != digest_code():
            detail = "other code computed it; figures are compared with what this code computes"
            yield Finding(name, "figures", "code", None, detail)
        for table, frame in sorted(tables.items()):
            if run_id is not None and "run_id" not in frame.columns:
                continue
            with register(con, again=frame.select(TABLES[table].columns)):
                where = "true" if run_id is None else f"run_id = {quote_literal(run_id)}"
                yield _compared(con, name, "figures", table, "again", where)
    finally:
        con.close()


def _compared(
    con: duckdb.DuckDBPyConnection, name: str, what: str, table: str, other: str, where: str
) -> Finding:
    """A published table against another of the same columns, as multisets of rows."""
    columns = ", ".join(TABLES[table].columns)
    was, now = (f"SELECT {columns} FROM {one} WHERE {where}" for one in (f"was.{table}", other))
    different = query_rows(
        con,
        f"SELECT *, count(*) OVER () AS rows FROM ({was} EXCEPT ALL {now}) LIMIT 1",
    ) or query_rows(
        con, f"SELECT *, count(*) OVER () AS rows FROM ({now} EXCEPT ALL {was}) LIMIT 1"
    )
    if not different:
        return Finding(name, what, table, True)
    count = different[0].pop("rows")
    changed = [
        column
        for column in TABLES[table].columns
        if con.execute(
            f"(SELECT {column} FROM was.{table} WHERE {where} EXCEPT ALL "
            f"SELECT {column} FROM {other} WHERE {where}) LIMIT 1"
        ).fetchall()
    ]
    example = {
        key: different[0][key]
        for key in TABLES[table].columns
        if key in TABLES[table].key or key in changed
    }
    detail = f"{count} rows differ, in {', '.join(changed) or 'their number'}: {_row(example)}"
    return Finding(name, what, table, False, detail)


def _row(row: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
    return said[:200]
