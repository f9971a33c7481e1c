"""What readers read is what was published: looked at before a figure is taken from it.

Digests of manifest and figures are compared with the ledger and with each other, which takes half a second for a gigabyte
of figures, once: what was found of a large file is kept for as long as the file stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import NotAsPublished, UsageError, WarehouseBusy, WarehouseError
from flows.files import hash_file
from flows.publication.folders import database_in, is_folder, is_regular
from flows.publication.keys import is_signed_by
from flows.publication.manifest import MANIFEST, SIGNATURE, read_manifest
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of

REPORT = "report.html"
_VERIFY = "`wattledger verify` names what was changed; take no figure from it"
_checked: set[object] = set()
"""What was found to be as published, in this process: files as they lay there."""


def find_in_force(settings: Settings, *, file: str = "") -> Path:
    """Find the folder of the publication in force, and check that it is what was published.

    Args:
        settings: The project.
        file: A file of it that is read, too.

    Raises:
        UsageError: nothing has been published yet.
        NotAsPublished: the link leads elsewhere, or to a publication that was changed.
    """
    link = settings.published
    if not os.path.lexists(link):
        raise UsageError(
            "nothing has been published yet", where=str(link), remedy="Run `wattledger pipeline`"
        )
    folder = link.resolve()
    inside = folder.parent == settings.publications.resolve() and is_folder(folder)
    if not link.is_symlink() or not inside:
        raise NotAsPublished(
            "it is no link to a publication of this project",
            where=str(link),
            remedy="Remove it; `wattledger publish` makes it again",
        )
    check_publication(settings, folder, file=file, in_force=True)
    return folder


def check_publication(
    settings: Settings, folder: Path, *, file: str = "", in_force: bool = False
) -> None:
    """Check that the figures in the folder of a publication are those that were published.

    The manifest must be the ledger's, where the warehouse can be read without waiting, and signed, where
    a public key is known; the figures must be those of the manifest.

    Args:
        settings: The project.
        folder: The publication.
        file: A file of it that is read, too.
        in_force: It should be the last of the ledger.

    Raises:
        NotAsPublished: they are not.
    """
    names = [database_in(folder).name, *([file] if file else [])]
    # DuckDB takes what is written in a log beside a file for later changes of the file.
    log = folder / f"{names[0]}.wal"
    if os.path.lexists(log):
        raise _refuse(folder, f"{log.name} lies beside its figures")
    paths = [folder / name for name in (MANIFEST, SIGNATURE, *names)]
    state = (
        *map(_describe_file, paths),
        _describe_warehouse(settings),
        str(settings.ledger),
        in_force,
    )
    if state in _checked:
        return
    if not is_regular(folder / MANIFEST):
        raise NotAsPublished(
            f"it has no {MANIFEST}: nobody can vouch for it",
            where=f"publication {folder.name}",
            remedy="If it is from before there were manifests, publish again: `wattledger pipeline`",
        )
    _check_signature(settings, folder)
    _check_ledger(settings, folder, in_force)
    try:
        files = read_manifest(folder / MANIFEST)["files"]
    except (ValueError, OSError) as error:
        raise _refuse(folder, f"its {MANIFEST} cannot be read: {error}") from None
    for name in names:
        if not is_regular(folder / name) or not _has_digest(folder / name, files.get(name, {})):
            raise _refuse(folder, f"its {name} is not the one that was published")
    _checked.add(state)


def _refuse(folder: Path, what: str) -> NotAsPublished:
    return NotAsPublished(what, where=f"publication {folder.name}", remedy=_VERIFY)


def _check_signature(settings: Settings, folder: Path) -> None:
    if not settings.ledger.public_key:
        return
    signature = folder / SIGNATURE
    if not is_regular(signature):
        raise NotAsPublished(
            "it is not signed, and this ledger has a key",
            where=f"publication {folder.name}",
            remedy="`wattledger sign` signs publications from before there was a key",
        )
    key = settings.root / settings.ledger.public_key
    if not is_signed_by(key, signature.read_bytes(), (folder / MANIFEST).read_bytes()):
        raise _refuse(folder, "its signature is not by the key of this ledger")


def _check_ledger(settings: Settings, folder: Path, in_force: bool) -> None:
    entries = _read_entries(settings)
    if entries is None:
        return
    digests = {entry["publication_id"]: entry["manifest_sha256"] for entry in entries}
    if folder.name not in digests:
        raise _refuse(folder, "the ledger does not have it")
    if digests[folder.name] != hash_file(folder / MANIFEST):
        raise _refuse(folder, f"its {MANIFEST} is not the one of the ledger")
    last = entries[-1]["publication_id"]
    if in_force and last != folder.name:
        raise NotAsPublished(
            f"it leads to {folder.name}, and {last} was published last",
            where=str(settings.published),
            remedy="`wattledger publish` puts the last one in force",
        )


def _read_entries(settings: Settings) -> list[dict[str, Any]] | None:
    """Publications of the ledger; None where it is a lake, is not here, or cannot be read at once.

    Readers neither wait for it nor fail with it.
    """
    store = store_of(settings)
    if settings.lake is not None or not store.exists():
        return None
    with (
        suppress(WarehouseBusy, WarehouseError, duckdb.Error),
        closing(connect(Path(str(store)), read_only=True)) as con,
    ):
        return query_rows(
            con, "SELECT publication_id, manifest_sha256 FROM publication ORDER BY sequence"
        )
    return None


def _has_digest(path: Path, stated: Mapping[str, Any]) -> bool:
    return path.lstat().st_size == stated.get("bytes") and _hash_once(path) == stated.get("sha256")


_Description = tuple[int, ...] | None


def _describe_file(path: Path) -> _Description:
    """Which file lies there, and when it was last changed; nobody can set the last of these times."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _describe_warehouse(settings: Settings) -> _Description:
    return None if settings.lake is not None else _describe_file(Path(str(store_of(settings))))


_LARGE = 64 << 20
"""Bytes that are read in some hundredths of a second."""


def _hash_once(path: Path) -> str:
    """The digest of a file; that of a large one is kept in this user's own cache, which nobody else can write."""
    size = path.lstat().st_size
    cache = _find_cache() if size >= _LARGE else None
    if cache is None:
        return hash_file(path)
    state = repr((str(path.resolve()), _describe_file(path)))
    kept = cache / hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()
    if is_regular(kept):
        return kept.read_text("ascii")
    digest = hash_file(path)
    if repr((str(path.resolve()), _describe_file(path))) == state:
        with suppress(OSError):
            part = kept.with_name(f"{kept.name}.{os.getpid()}")
            part.write_text(digest, "ascii")
            part.replace(kept)
    return digest


def _find_cache() -> Path | None:
    """The folder for digests, if this user alone may write it."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "wattledger" / "digests"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):
        return None
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    return folder if private and found.st_uid == os.getuid() else None
