"""Files of run records: read once, and whose word each is.

A spool's folder of a host has `runs/UID/ID.json`, in a folder that the user owns. A record speaks for that host and
that user, and for no other. Root, and the user who runs the pipeline, may speak for others: for prologs, and for
spools that were copied.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from flows.errors import BadInput
from flows.files import name_for_people
from flows.sources.runs import records
from wattledger.files import describe_kind, open_folder, open_plain, read_open
from wattledger.runs.records import MAX_BYTES, Record
from wattledger.spool.spool import RUNS, parse_user_folder

_MOST_FILES, _MOST_BYTES = 20_000, 256 << 20
"""Of one user's folder, what is read in one load: the newest files."""


@dataclass(frozen=True)
class Origin:
    """Who wrote a record, and where."""

    owner_uid: int
    """The user that it speaks for."""
    is_vouched: bool
    """Whether root, or the user who runs the pipeline, wrote it."""
    host: str
    """The host whose folder it lies in; empty outside a spool."""


@dataclass(frozen=True)
class RecordFile:
    """A record with its file."""

    path: Path
    digest: str
    record: Record
    origin: Origin


@dataclass(frozen=True)
class Bytes:
    """A file of a record as it was read, once."""

    path: Path
    data: bytes
    digest: str
    folder_uid: int
    file_uid: int


def is_vouched(read: Bytes) -> bool:
    """Whether root, or the user who runs the pipeline, wrote a file."""
    return _find_owner(read) in _trusted()


def _trusted() -> set[int]:
    return {0, os.geteuid()}


def _find_owner(read: Bytes) -> int:
    """The user for whom a file speaks: the owner of its folder; in a copy, the one that the folder is named for."""
    named = find_user(read.path)
    if named is None:
        return read.file_uid
    return named if read.folder_uid in _trusted() else read.folder_uid


def find_user(path: Path) -> int | None:
    """The user whose folder a file of a spool lies in, by the folder's name; None for all other files."""
    return parse_user_folder(path.parent.name) if path.parent.parent.name == RUNS else None


def find_host(path: Path) -> str:
    """The host whose spool folder a record lies in; empty where it lies in none."""
    if find_user(path) is not None:
        return path.parents[2].name
    if path.parent.name == RUNS and has_collector(path.parents[1]):
        return path.parents[1].name
    return ""


def has_collector(folder: Path) -> bool:
    """Whether a collector keeps its state in a folder."""
    return any(os.path.lexists(folder / name) for name in ("collector.lock", "collector.json"))


def read_bytes(path: Path) -> Bytes:
    """Read a file that may be a record: never through a link, and no more than a record may have.

    Raises:
        BadInput: it is no regular file, too large, or cannot be read.
    """
    try:
        with open_folder(path.parent) as folder, open_plain(path.name, folder) as file:
            data = read_open(file, MAX_BYTES, path)
            uids = os.fstat(folder).st_uid, os.fstat(file).st_uid
    except OSError as error:
        raise BadInput(
            _explain(path, error), where=name_for_people(path), remedy="Remove it, or its folder"
        ) from None
    return Bytes(path, data, hashlib.sha256(data).hexdigest(), *uids)


def _explain(path: Path, error: OSError) -> str:
    for part in (path, path.parent):
        try:
            mode = part.lstat().st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            return "a link, which is not followed"
        if part == path and not stat.S_ISREG(mode):
            return f"{describe_kind(mode)}, not a regular file"
    return f"cannot be read: {error.strerror or error}"


def read_file(read: Bytes) -> RecordFile:
    """A record from the bytes of its file, if it speaks for whom it may.

    Raises:
        BadInput: it is no record, or speaks for another host or user than that whose folder it lies in.
    """
    record = records.parse(read.data, read.path)
    origin = _find_origin(read, record)
    if origin.host and record.host != origin.host:
        raise _refuse(
            f"it says that it is of host {record.host}, but lies in the folder of {origin.host}",
            read,
        )
    return RecordFile(read.path, read.digest, record, origin)


def _find_origin(read: Bytes, record: Record) -> Origin:
    owner, vouched = _find_owner(read), is_vouched(read)
    if read.file_uid not in {owner, *_trusted()}:
        raise _refuse(f"user {read.file_uid} wrote it into the folder of user {owner}", read)
    if vouched and record.owner_uid is not None:
        owner = record.owner_uid
    if record.owner_uid not in (None, owner):
        raise _refuse(f"it speaks for user {record.owner_uid}, but user {owner} wrote it", read)
    return Origin(owner, vouched, find_host(read.path))


def _refuse(reason: str, read: Bytes) -> BadInput:
    return BadInput(
        reason,
        where=name_for_people(read.path),
        remedy="A record speaks for the host and the user that wrote it (docs/collector.md)",
    )


def limit_files(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """The newest files of each user in each folder of a spool, as many as are read in one load.

    Returns:
        The files, in their order, and a sentence for each folder that has more.
    """
    groups: dict[tuple[Path, int], list[tuple[int, int, Path]]] = {}
    for path in paths:
        if find_host(path):
            written_ns, length, uid = _look_at(path)
            groups.setdefault((path.parent, uid), []).append((written_ns, length, path))
    left_out: set[Path] = set()
    warnings = []
    for (folder, uid), files in groups.items():
        kept, size = 0, 0
        for _, length, path in sorted(files, reverse=True):
            size += length
            if kept == _MOST_FILES or size > _MOST_BYTES:
                left_out.add(path)
            else:
                kept += 1
        if kept < len(files):
            warnings.append(
                f"{name_for_people(folder)}: {len(files):,} files of user {uid}; the newest {kept:,} were read"
            )
    return [path for path in paths if path not in left_out], warnings


def _look_at(path: Path) -> tuple[int, int, int]:
    """When a file was written, how much of it would be read, and whose it is."""
    try:
        found = path.lstat()
    except OSError:
        return 0, 0, -1
    return found.st_mtime_ns, min(found.st_size, MAX_BYTES), found.st_uid
