"""A bundle: one archive with everything that an outsider needs to verify the figures of a run.

It holds the whole publication, the manifests of all before it, and of the readings and grid data what
the run's figures rest on, in whole segments, so that their published digests can be taken again.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import duckdb

from flows import __version__
from flows.errors import BadInput, UsageError
from flows.files import hash_file
from flows.publication.evidence import BY_SEGMENT, TABLES_KEPT, select_as_known
from flows.publication.findings import Finding, Trust
from flows.publication.folders import database_in, find_publication, list_publications
from flows.publication.integrity import check_folder
from flows.publication.manifest import MANIFEST, SIGNATURE
from flows.publication.reproduction import check_figures, check_kept_inputs
from flows.settings import PUBLISHED_DATABASE, Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import load_query, quote_literal
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of
from transforms.constants import SLOT_US

FORMAT = 1
_ABOUT, _STORE, _PUBLICATION, _LEDGER = "bundle.json", "kept.duckdb", "publication", "ledger"
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
        name=name,
        database=PUBLISHED_DATABASE,
        digest=digest,
    )
    about = {"format": FORMAT, "run_id": run_id, "publication_id": publication_id}
    archive.writestr("README.txt", readme)
    archive.writestr(_ABOUT, json.dumps(about, indent=1) + "\n")


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
        BadInput: it is no bundle, or its members lie outside it.
    """
    trust = trust or Trust()
    with tempfile.TemporaryDirectory() as scratch:
        run_id, folder = _unpack_bundle(path, Path(scratch))
        manifest = folder / MANIFEST
        if trust.expected:
            same = manifest.is_file() and hash_file(manifest) == trust.expected
            detail = "the manifest has another one"
            yield Finding(folder.name, "chain", "expected digest", same, detail)
        previous = ""
        for earlier in sorted((Path(scratch) / _LEDGER).glob("*")):
            stated = _read_previous_digest(earlier / MANIFEST)
            detail = "it names another publication before it than there is"
            yield Finding(earlier.name, "chain", "previous_digest", stated == previous, detail)
            previous = hash_file(earlier / MANIFEST) if stated is not None else ""
        yield from check_folder(folder, trust, previous, {})
        store = FileStore(Path(scratch) / _STORE)
        yield from _check_store(store, folder)
        yield from check_figures(store, folder, run_id)


def _check_store(store: Store, folder: Path) -> Iterator[Finding]:
    """Readings and grid data of the bundle are those that the publication names by digest."""
    published = FileStore(database_in(folder))
    try:
        with closing(attach_read_only(store=store, published=published)) as con:
            segments = con.execute("SELECT segment_id FROM store.segment").fetchall()
            held = frozenset(segment_id for (segment_id,) in segments)
            yield from check_kept_inputs(con, folder.name, held)
    except duckdb.Error as error:
        yield Finding(folder.name, "kept", _STORE, False, f"damaged: {error}")


def _read_previous_digest(manifest: Path) -> str | None:
    """What a manifest says of the one before; None where it cannot be read."""
    try:
        return str(json.loads(manifest.read_bytes())["publication"]["previous_digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unpack_bundle(path: Path, target: Path) -> tuple[str, Path]:
    """Unpack a bundle below `target`; returns the run that it is of, and the publication's folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _unpack_member(archive, member, target, path)
        about = json.loads((target / _ABOUT).read_bytes())
        name, run_id = str(about["publication_id"]), str(about["run_id"])
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        if not name or PurePosixPath(name).name != name or name in (".", ".."):
            raise ValueError(f"publication {name!r}")
        if not (target / _STORE).is_file():
            raise ValueError(f"no {_STORE}")
        folder = target / "unpacked" / name
        folder.parent.mkdir()
        (target / _PUBLICATION).rename(folder)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise BadInput(
            f"not a bundle, or a damaged one: {error}",
            where=str(path),
            remedy="Ask for it again; `wattledger bundle RUN` makes one",
        ) from None
    return run_id, folder


def _unpack_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path
) -> None:
    """Write one member; names that lead elsewhere and links are refused, not corrected."""
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    inside = name.parts and not name.is_absolute() and ".." not in name.parts
    if not inside or "\\" in member.filename or ":" in member.filename or kind == stat.S_IFLNK:
        raise BadInput(
            f"its member {member.filename!r} lies outside it",
            where=str(path),
            remedy="No bundle of Wattledger has that: do not unpack it with other tools either",
        )
    if member.is_dir():
        return
    file = target.joinpath(*name.parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, file.open("xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
