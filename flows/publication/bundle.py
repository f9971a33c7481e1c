"""A bundle: one archive with everything that an outsider needs to verify the figures of a run.

It holds the whole publication, the manifests of all before it, and of the readings and grid data what
the run's figures rest on, in whole segments, so that their published digests can be taken again.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows import __version__
from flows.errors import UsageError, WarehouseError
from flows.files import hash_file, name_for_people
from flows.publication.archive import explain_archive, unpack_archive
from flows.publication.evidence import BY_SEGMENT, TABLES_KEPT, select_as_known
from flows.publication.findings import Finding, Trust
from flows.publication.folders import database_in, find_publication, list_publications
from flows.publication.integrity import check_folder
from flows.publication.keys import is_signed_by
from flows.publication.manifest import MANIFEST, SIGNATURE, read_manifest
from flows.publication.reproduction import check_figures, check_kept_inputs
from flows.publication.shapes import (
    check_kept_shape,
    check_published_shape,
    check_views,
    explain_damage,
)
from flows.settings import PUBLISHED_DATABASE, Settings
from flows.warehouse.bounds import bound_time
from flows.warehouse.connection import connect
from flows.warehouse.failures import first_line
from flows.warehouse.frames import load_query, quote_literal
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of
from transforms.constants import SLOT_US
from transforms.schema import TABLES

FORMAT = 1
_ABOUT, _STORE, _PUBLICATION, _LEDGER = "bundle.json", "kept.duckdb", "publication", "ledger"
_README_FILE = "README.txt"
_LARGEST_TEXT = 1 << 16
_PUBLICATION_ID = re.compile(r"\d{4,9}-[0-9a-f]{8}")
_EARLIER = re.compile(rf"{_LEDGER}/{_PUBLICATION_ID.pattern}/(manifest\.json|manifest\.json\.sig)")
# Whoever changes this text raises the format: a bundle's README is compared with it.
_README = """\
Evidence for the training run {run_id}, publication {publication_id}.

    pip install wattledger=={version}
    wattledger verify {name}

takes the digest of everything in here again and computes the figures of the run again from its
readings. Nothing else is needed: no network, no project, not this archive's maker.

publication/   the publication: {database} (any DuckDB reads it), report.html, summary.html,
               manifest.json with the digest of every file and table, its signature if there is one
ledger/        the manifests of all publications before, each named by digest in the next
kept.duckdb    the readings and grid data that the run's figures rest on

Is it the publication that you heard of? Its manifest's digest (sha256sum) is
{digest}
"""


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written."""

    path: Path
    publication_id: str
    run_id: str
    readings: int
    size_bytes: int
    manifest_sha256: str


def write_bundle(
    settings: Settings, run_id: str, publication: str = "", target: Path | None = None
) -> Bundled:
    """Write a bundle of a run.

    Args:
        settings: The project.
        run_id: The run.
        publication: Id or number of the publication; the last if none is named.
        target: The file; RUN.bundle.zip in this folder if none is named.

    Raises:
        UsageError: nothing published, no such run in it, or it was published without a manifest.
    """
    folder = find_publication(settings, publication)
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"publication {folder.name} has no manifest", where=str(folder), remedy="Publish again"
        )
    path = target or Path(f"{_file_name(run_id)}.bundle.zip")
    digest = hash_file(folder / MANIFEST)
    settings.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.work) as scratch:
        store = Path(scratch) / _STORE
        readings = _write_store(store_of(settings), database_in(folder), store, run_id)
        publications = list_publications(settings)
        before = publications[: publications.index(folder)]
        half = path.with_name(path.name + ".part")
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as archive:
            _describe_bundle(archive, run_id, folder.name, path.name, digest)
            archive.write(store, _STORE)
            _add_publication(archive, folder)
            _add_manifests(archive, before)
        half.replace(path)
    return Bundled(path, folder.name, run_id, readings, path.stat().st_size, digest)


def _describe_bundle(
    archive: zipfile.ZipFile, run_id: str, publication_id: str, name: str, digest: str
) -> None:
    """Say what the archive is: to people, and to `verify_bundle`."""
    readme = _README.format(
        run_id=run_id,
        publication_id=publication_id,
        version=__version__,
        name=_file_name(name),
        database=PUBLISHED_DATABASE,
        digest=digest,
    )
    archive.writestr(_README_FILE, readme)
    archive.writestr(_ABOUT, _render_about(run_id, publication_id))


def _render_about(run_id: str, publication_id: str) -> str:
    about = {"format": FORMAT, "run_id": run_id, "publication_id": publication_id}
    return json.dumps(about, indent=1) + "\n"


def _add_publication(archive: zipfile.ZipFile, folder: Path) -> None:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        archive.write(file, f"{_PUBLICATION}/{file.relative_to(folder).as_posix()}")


def _add_manifests(archive: zipfile.ZipFile, folders: Sequence[Path]) -> None:
    """Add the manifests of publications, and their signatures."""
    for folder in folders:
        for name in (MANIFEST, SIGNATURE):
            if (folder / name).is_file():
                archive.write(folder / name, f"{_LEDGER}/{folder.name}/{name}")


def _file_name(run_id: str) -> str:
    """The run's id as a plain file name: what is neither letter, digit, dot, dash nor line becomes _."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in run_id)
    return plain.lstrip(".")[:100] or "run"


def _write_store(warehouse: Store, published: Path, target: Path, run_id: str) -> int:
    """Write what the run's figures rest on into a DuckDB file; returns the number of readings."""
    with closing(connect(target)) as con:
        warehouse.attach(con, "store")
        con.execute(f"ATTACH {quote_literal(published)} AS published (READ_ONLY)")
        runs = con.execute("FROM published.energy_slot WHERE run_id = ? LIMIT 1", [run_id])
        if not runs.fetchall():
            raise UsageError(
                f"the publication has no run {run_id!r}",
                where=str(published),
                remedy='`wattledger query "SELECT run_id FROM run_summary"` names those in force',
            )
        _copy_evidence(con, run_id)
        con.execute("DETACH store")
        con.execute("DETACH published")
        con.execute("CHECKPOINT")
        [(readings,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
    return int(readings)


def _copy_evidence(con: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Copy the run's segments, whole, and what else was known when its figures were computed."""
    [(as_of,)] = con.execute("SELECT computed_at FROM published.computation").fetchall()
    con.execute(
        "CREATE TABLE segment AS FROM store.segment WHERE loaded_at <= $as_of "
        f"AND segment_id IN ({load_query('publication/segments_of_run')})",
        {"run": run_id, "as_of": as_of, "slot_us": SLOT_US},
    )
    of_segments = "WHERE segment_key IN (SELECT segment_key FROM segment)"
    for table in TABLES_KEPT:
        where = of_segments if table in BY_SEGMENT else ""
        con.execute(
            f"CREATE TABLE {table} AS FROM ({select_as_known(table, 'store')}) {where}",
            {"as_of": as_of},
        )
    con.execute(f"CREATE TABLE rolled_up AS FROM store.rolled_up {of_segments}")


def verify_bundle(path: Path, trust: Trust | None = None) -> Iterator[Finding]:
    """Verify a bundle, with nothing but what is in it and what is known from elsewhere.

    Raises:
        BadInput: it is no bundle, a damaged one, or one that no Wattledger wrote.
        OutOfMemory: or `OutOfTime`: it takes more than it may; nothing was confirmed.
    """
    trust = trust or Trust()
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = _unpack_bundle(path, Path(scratch))
        folder, name = unpacked.folder, unpacked.folder.name
        for stranger in unpacked.strangers:
            yield Finding(name, "bundle", stranger[:200], False, "no bundle has such a member")
        yield _check_readme(unpacked)
        if trust.expected:
            same = unpacked.manifest_sha256 == trust.expected
            detail = "the manifest has another one"
            yield Finding(name, "chain", "expected digest", same, detail)
        previous = ""
        for finding, digest in _check_earlier(Path(scratch) / _LEDGER, trust):
            previous = digest
            yield finding
        yield from check_folder(folder, trust, previous, {})
        found = list(_check_store(unpacked, trust))
        yield from found
        if not any(finding.ok is False for finding in found):
            yield from check_figures(unpacked.store, folder, unpacked.run_id)


def _check_readme(unpacked: _Unpacked) -> Finding:
    """What people read first is what Wattledger writes: of this run, publication and manifest."""
    written = _README.format(
        run_id=unpacked.run_id,
        publication_id=unpacked.folder.name,
        version="\0",
        name="\0",
        database=PUBLISHED_DATABASE,
        digest=unpacked.manifest_sha256,
    )
    pattern = r"[\w.+-]{1,200}".join(re.escape(part) for part in written.split("\0"))
    path = unpacked.root / _README_FILE
    text = path.read_bytes()[:_LARGEST_TEXT].decode("utf-8", "replace") if path.is_file() else ""
    detail = "it is not what Wattledger writes" if text else "it is missing"
    same = re.fullmatch(pattern, text) is not None
    return Finding(unpacked.folder.name, "bundle", _README_FILE, same, detail)


def _check_earlier(ledger: Path, trust: Trust) -> Iterator[tuple[Finding, str]]:
    """Check that the manifests of earlier publications name each other; gives the digest of each, too."""
    previous = ""
    for earlier in sorted(ledger.glob("*"), key=lambda folder: (len(folder.name), folder.name)):
        try:
            stated = read_manifest(earlier / MANIFEST)["publication"]["previous_digest"]
        except (OSError, ValueError) as error:
            detail = f"it cannot be read: {first_line(error)}"
            yield Finding(earlier.name, "manifest", MANIFEST, False, detail), ""
            continue
        signature = earlier / SIGNATURE
        if trust.public_key is not None and signature.is_file():
            signed = is_signed_by(
                trust.public_key,
                signature.read_bytes()[:_LARGEST_TEXT],
                (earlier / MANIFEST).read_bytes(),
            )
            detail = "it is not by this key"
            yield Finding(earlier.name, "signature", SIGNATURE, signed, detail), previous
        same = stated == previous
        previous = hash_file(earlier / MANIFEST)
        detail = "it names another publication before it than there is"
        yield Finding(earlier.name, "chain", "previous_digest", same, detail), previous


def _check_store(unpacked: _Unpacked, trust: Trust) -> Iterator[Finding]:
    """Readings and grid data of the bundle are those that the publication names by digest, and it has the run."""
    name, database = unpacked.folder.name, database_in(unpacked.folder)
    try:
        stores = {"store": unpacked.store, "published": FileStore(database)}
        with closing(attach_read_only(**stores)) as con, bound_time(con):
            strange = [
                *check_kept_shape(con, name, "store", unpacked.store.path.stat().st_size),
                *check_published_shape(con, name, "published", database.stat().st_size),
            ]
            yield from strange
            if strange:
                return
            vouched = bool(trust.public_key or trust.expected)
            yield from check_views(con, name, "published", vouched=vouched)
            yield _check_run(con, name, unpacked.run_id)
            yield _check_segments(con, name)
            segments = con.execute("SELECT segment_id FROM store.segment").fetchall()
            held = frozenset(segment_id for (segment_id,) in segments)
            yield from check_kept_inputs(con, name, held)
    except (WarehouseError, OSError, duckdb.Error) as error:
        yield explain_damage(error, name, "kept", _STORE)


def _check_run(con: duckdb.DuckDBPyConnection, publication_id: str, run_id: str) -> Finding:
    """The run that the bundle is said to be of has figures in it."""
    [(slots,)] = con.execute(
        "SELECT count(*) FROM published.energy_slot WHERE run_id = ?", [run_id]
    ).fetchall()
    [(totals,)] = con.execute(
        "SELECT count(*) FROM published.run_footprint WHERE run_id = ?", [run_id]
    ).fetchall()
    detail = "the publication has no figures of this run, so there is nothing to verify"
    place = f"run {name_for_people(run_id)[:100]}"
    return Finding(publication_id, "bundle", place, bool(slots and totals), detail)


def _check_segments(con: duckdb.DuckDBPyConnection, publication_id: str) -> Finding:
    """Segments of the store are among those published."""
    known = {name for name, *_ in con.execute("DESCRIBE published.segment").fetchall()}
    columns = ", ".join(name for name in TABLES["segment"].columns if name in known)
    [(strange,)] = con.execute(
        f"SELECT count(*) FROM (SELECT {columns} FROM store.segment EXCEPT ALL "
        f"SELECT {columns} FROM published.segment)"
    ).fetchall()
    detail = f"{strange} rows are not among those published"
    return Finding(publication_id, "kept", "segment", strange == 0, detail)


@dataclass(frozen=True)
class _Unpacked:
    """A bundle below a folder.

    Attributes:
        root: The folder.
        run_id: The run that it is said to be of.
        folder: The publication, under its name.
        strangers: Members that no bundle has, which were not unpacked.
    """

    root: Path
    run_id: str
    folder: Path
    strangers: list[str]

    @property
    def store(self) -> FileStore:
        return FileStore(self.root / _STORE)

    @property
    def manifest_sha256(self) -> str:
        """Digest of the manifest; empty where there is none."""
        manifest = self.folder / MANIFEST
        return hash_file(manifest) if manifest.is_file() else ""


def _is_expected(name: str) -> bool:
    """Whether a bundle has members of that name; the manifest says which files the publication has."""
    return (
        name in (_README_FILE, _ABOUT, _STORE)
        or name.startswith(f"{_PUBLICATION}/")
        or _EARLIER.fullmatch(name) is not None
    )


def _unpack_bundle(path: Path, target: Path) -> _Unpacked:
    """Unpack a bundle below a folder.

    Raises:
        BadInput: it is none.
    """
    strangers = unpack_archive(path, target, _is_expected)
    with explain_archive(path):
        text = (target / _ABOUT).read_bytes()[:_LARGEST_TEXT]
        about = json.loads(text)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"{_ABOUT} is not of format {FORMAT}")
        run_id, name = about.get("run_id"), about.get("publication_id")
        if not isinstance(run_id, str) or not isinstance(name, str):
            raise ValueError(f"{_ABOUT} names no run and publication")
        if not _PUBLICATION_ID.fullmatch(name):
            raise ValueError(f"publication {name!r}")
        if text.decode() != _render_about(run_id, name):
            raise ValueError(f"{_ABOUT} says more than a bundle does")
        if not (target / _STORE).is_file():
            raise ValueError(f"no {_STORE}")
        folder = target / "unpacked" / name
        folder.parent.mkdir()
        (target / _PUBLICATION).rename(folder)
        # Where DuckDB sets aside what it has no memory for.
        (target / ".wattledger").mkdir()
    return _Unpacked(target, run_id, folder, strangers)
