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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import duckdb

from flows import __version__
from flows.errors import BadInput, UsageError
from flows.files import hash_file
from flows.publication import evidence
from flows.publication import manifest as ledger
from flows.publication.revisions import folder_of, publications
from flows.publication.verify import (
    DATABASE,
    Finding,
    Trust,
    check_figures,
    check_folder,
    check_kept,
)
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import quote_literal
from flows.warehouse.store import FileStore, Store, attach_read_only, store_of

FORMAT = 1
_ABOUT, _STORE, _PUBLICATION, _LEDGER = "bundle.json", "kept.duckdb", "publication", "ledger"
_README = """\
Evidence for the training run {run_id}, publication {publication_id}.

    pip install wattledger=={version}
    wattledger verify {name}

takes the digest of everything in here again and computes the figures of the run again from its
readings. Nothing else is needed: no network, no project, not this archive's maker.

publication/   the publication: published.duckdb (any DuckDB reads it), report.html, summary.html,
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


def bundle(
    settings: Settings, run_id: str, publication: str = "", target: Path | None = None
) -> Bundled:
    """Write a bundle of a run; `target` is a file, or RUN.bundle.zip in this folder.

    Raises:
        UsageError: nothing published, no such run in it, or it was published without a manifest.
    """
    folder = folder_of(settings, publication)
    known = publications(settings)
    manifest = folder / ledger.MANIFEST
    if not manifest.is_file():
        raise UsageError(
            f"publication {folder.name} has no manifest", where=str(folder), remedy="Publish again"
        )
    path = target or Path(f"{_file_name(run_id)}.bundle.zip")
    settings.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.work) as scratch:
        store = Path(scratch) / _STORE
        readings = _keep(store_of(settings), folder / DATABASE, store, run_id)
        digest = hash_file(manifest)
        about = {"format": FORMAT, "run_id": run_id, "publication_id": folder.name}
        readme = _README.format(**about, version=__version__, name=path.name, digest=digest)
        half = path.with_name(path.name + ".part")
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", readme)
            archive.writestr(_ABOUT, json.dumps(about, indent=1) + "\n")
            archive.write(store, _STORE)
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(file, f"{_PUBLICATION}/{file.relative_to(folder).as_posix()}")
            for before in known[: known.index(folder)]:
                for name in (ledger.MANIFEST, ledger.SIGNATURE):
                    if (before / name).is_file():
                        archive.write(before / name, f"{_LEDGER}/{before.name}/{name}")
        half.replace(path)
    return Bundled(path, folder.name, run_id, readings, path.stat().st_size, digest)


def _file_name(run_id: str) -> str:
    """The run's id as a plain file name: what is neither letter, digit, dot, dash nor line becomes _."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in run_id)
    return plain.lstrip(".")[:100] or "run"


_SEGMENTS = """
    WITH held AS (
        SELECT g.gpu_uuid, min(slot_start) AS begins, max(slot_start) + INTERVAL 5 MINUTE AS ends
        FROM was.energy_slot AS e JOIN was.gpu AS g USING (gpu_key)
        WHERE e.run_id = $run GROUP BY g.gpu_uuid
    ), loaded AS (
        SELECT p.* FROM was.segment_profile AS p JOIN was.segment AS s USING (segment_id)
        WHERE s.verdict = 'loaded'
    ), reach AS (
        -- An interval may reach from the reading before to the one after, however far they are.
        SELECT gpu_uuid,
            coalesce(arg_max(p.first_ts, p.last_ts) FILTER (p.last_ts < h.begins), any_value(h.begins))
                AS begins,
            coalesce(arg_min(p.last_ts, p.first_ts) FILTER (p.first_ts > h.ends), any_value(h.ends))
                AS ends
        FROM held AS h JOIN loaded AS p USING (gpu_uuid) GROUP BY gpu_uuid
    )
    SELECT DISTINCT segment_id FROM loaded AS p JOIN reach AS r USING (gpu_uuid)
    WHERE p.last_ts >= r.begins AND p.first_ts <= r.ends
    UNION
    SELECT DISTINCT s.segment_id FROM store.host_reading AS r
    JOIN store.segment AS s USING (segment_key)
    JOIN (
        SELECT g.host, min(slot_start) AS begins, max(slot_start) + INTERVAL 5 MINUTE AS ends
        FROM was.energy_slot AS e JOIN was.gpu AS g USING (gpu_key)
        WHERE e.run_id = $run GROUP BY g.host
    ) AS h ON h.host = r.host AND r.ts > h.begins AND epoch_us(r.ts) - r.span_us < epoch_us(h.ends)
"""
"""Segments with readings that the energy of a run rests on."""


def _keep(warehouse: Store, published: Path, target: Path, run_id: str) -> int:
    """Write what the run's figures rest on into a DuckDB file; returns the number of readings."""
    con = connect(target)
    try:
        warehouse.attach(con, "store")
        con.execute(f"ATTACH {quote_literal(published)} AS was (READ_ONLY)")
        if not con.execute("FROM was.energy_slot WHERE run_id = ? LIMIT 1", [run_id]).fetchall():
            raise UsageError(
                f"the publication has no run {run_id!r}",
                where=str(published),
                remedy='`wattledger query "SELECT run_id FROM run_summary"` names those in force',
            )
        [(then,)] = con.execute("SELECT computed_at FROM was.computation").fetchall()
        con.execute(
            "CREATE TABLE segment AS FROM store.segment WHERE loaded_at <= $then "
            f"AND segment_id IN ({_SEGMENTS})",
            {"run": run_id, "then": then},
        )
        for table in evidence.TABLES_KEPT:
            where = (
                "WHERE segment_key IN (SELECT segment_key FROM segment)"
                if table in evidence.BY_SEGMENT
                else ""
            )
            con.execute(
                f"CREATE TABLE {table} AS FROM ({evidence.as_it_was(table, 'store')}) {where}",
                {"then": then},
            )
        con.execute(
            "CREATE TABLE rolled_up AS FROM store.rolled_up "
            "WHERE segment_key IN (SELECT segment_key FROM segment)"
        )
        con.execute("DETACH store")
        con.execute("DETACH was")
        con.execute("CHECKPOINT")
        [(readings,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
    finally:
        con.close()
    return int(readings)


def verify(path: Path, trust: Trust | None = None) -> Iterator[Finding]:
    """Verify a bundle, with nothing but what is in it and what `trust` knows.

    Raises:
        BadInput: it is no bundle, or its members lie outside it.
    """
    trust = trust or Trust()
    with tempfile.TemporaryDirectory() as scratch:
        run_id, folder = _open(path, Path(scratch))
        manifest = folder / ledger.MANIFEST
        if trust.expected:
            same = manifest.is_file() and hash_file(manifest) == trust.expected
            detail = "the manifest has another one"
            yield Finding(folder.name, "chain", "expected digest", same, detail)
        before = ""
        for one in sorted((Path(scratch) / _LEDGER).glob("*")):
            said = _previous(one / ledger.MANIFEST)
            detail = "it names another publication before it than there is"
            yield Finding(one.name, "chain", "previous_digest", said == before, detail)
            before = hash_file(one / ledger.MANIFEST) if said is not None else ""
        yield from check_folder(folder, trust, before, {})
        store = FileStore(Path(scratch) / _STORE)
        try:
            with closing(attach_read_only(store=store, was=FileStore(folder / DATABASE))) as con:
                held = con.execute("SELECT segment_id FROM store.segment").fetchall()
                yield from check_kept(con, folder.name, frozenset(name for (name,) in held))
        except duckdb.Error as error:
            yield Finding(folder.name, "kept", _STORE, False, f"damaged: {error}")
        yield from check_figures(store, folder, run_id)


def _previous(manifest: Path) -> str | None:
    """What a manifest says of the one before; None where it can't be read."""
    try:
        return str(json.loads(manifest.read_bytes())["publication"]["previous_digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(path: Path, target: Path) -> tuple[str, Path]:
    """Unpack a bundle below `target`; the run that it is of, and the publication's folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _unpack(archive, member, target, path)
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


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path) -> None:
    """Write one member; names that lead elsewhere and links are refused, not mended."""
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
