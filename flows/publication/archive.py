"""An archive from elsewhere, unpacked within bounds: plain members with plain names, each of them once.

Nothing is corrected on the way: what Wattledger would not have written is refused, or named.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from flows.errors import BadInput, DiskFailed
from flows.files import name_for_people

_UNPACKED_FREE, _UNPACKED_TIMES = 256 << 20, 100
"""Bytes that any bundle may unpack to, and how many times its size a larger one may. DuckDB's files, whose blocks are
partly empty, reach 20 times."""
_MOST_MEMBERS, _LARGEST_DIRECTORY = 400_000, 64 << 20
"""Members, and bytes of the list of them: two files for each of 200,000 publications."""
_LONGEST_NAME, _DEEPEST = 255, 12
_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_HEADER_BYTES = 30
"""What precedes every member, its name aside."""
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What `zipfile` raises for archives that are none, or hold what it cannot read."""


def unpack_archive(path: Path, target: Path, is_expected: Callable[[str], bool]) -> list[str]:
    """Unpack the expected members of an archive below a folder.

    Args:
        path: The archive.
        target: An empty folder.
        is_expected: Whether an archive of its kind has a member of that name.

    Returns:
        Names of members that were left out, as no such archive has them.

    Raises:
        BadInput: no archive, a damaged or encrypted one, one that unpacks to far more than it should, or with
            members that lead elsewhere, lie over each other, or have the same name.
        DiskFailed: there is no room for it.
    """
    if not path.is_file():
        raise _refuse(path, "not a bundle, or a damaged one: there is no such file")
    with explain_archive(path):
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members, archive.start_dir)
            strangers = [m.filename for m in members if not is_expected(m.filename)]
            free = shutil.disk_usage(target).free
            if sum(member.file_size for member in members) > free:
                raise DiskFailed(
                    "there is no room to unpack it",
                    where=str(target),
                    remedy="Free some space, or set TMPDIR to a folder with more",
                )
            for member in members:
                if member.filename not in strangers:
                    _unpack_member(archive, member, target)
    return [name_for_people(name) for name in strangers]


@contextmanager
def explain_archive(path: Path) -> Iterator[None]:
    """Turn whatever a damaged archive raises into one sentence."""
    try:
        yield
    except RecursionError:
        raise _refuse(
            path, "not a bundle, or a damaged one: its JSON is nested too deeply"
        ) from None
    except _DAMAGED as error:
        reason = name_for_people(str(error) or type(error).__name__)[:200]
        raise _refuse(path, f"not a bundle, or a damaged one: {reason}") from None


def _refuse(path: Path, what: str) -> BadInput:
    return BadInput(
        what, where=str(path), remedy="Ask for it again; `wattledger bundle RUN` makes one"
    )


def _check_directory(path: Path) -> None:
    """Bound the list of members before it is read.

    Raises:
        BadInput: it is longer than any.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END.size - 0xFFFF))
        tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + _END.size > len(tail):
        return  # `zipfile` says that this is none.
    _, _, _, _, count, length, _, _ = _END.unpack_from(tail, place)
    larger = tail.rfind(b"PK\x06\x06", 0, place)
    if 0 <= larger <= len(tail) - _END_64.size:
        *_, count_64, length_64, _ = _END_64.unpack_from(tail, larger)
        count, length = max(count, count_64), max(length, length_64)
    elif length == 0xFFFFFFFF or count == 0xFFFF:
        raise _refuse(path, "its list of members cannot be found")
    if count > _MOST_MEMBERS or length > _LARGEST_DIRECTORY:
        raise _refuse(path, f"it has {count:,} members: no bundle has that many")


def _check_members(path: Path, members: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse an archive that Wattledger would not have written, before a byte of it is unpacked."""
    packed = path.stat().st_size
    unpacked = sum(member.file_size for member in members)
    if len(members) > _MOST_MEMBERS:
        raise _refuse(path, f"it has {len(members):,} members: no bundle has that many")
    if unpacked > max(_UNPACKED_FREE, packed * _UNPACKED_TIMES):
        raise _refuse(
            path,
            f"it unpacks to {unpacked >> 20:,} MiB, more than {_UNPACKED_TIMES} times its size",
        )
    seen: dict[str, str] = {}
    for member in members:
        _check_member(path, member)
        folded = unicodedata.normalize("NFKC", member.filename).casefold()
        if folded in seen:
            names = sorted({seen[folded], member.filename})
            raise _refuse(
                path, f"it has two members {' and '.join(name_for_people(name) for name in names)}"
            )
        seen[folded] = member.filename
    ends_at = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < ends_at:
            raise _refuse(
                path, f"its member {name_for_people(member.filename)!r} lies over another one"
            )
        name_bytes = len(member.filename.encode())
        ends_at = member.header_offset + _HEADER_BYTES + name_bytes + member.compress_size
    if ends_at > end:
        raise _refuse(path, "its members lie over the list of them")


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename)
    shown = name_for_people(member.filename)[:100]
    kind = stat.S_IFMT(member.external_attr >> 16)
    inside = name.parts and not name.is_absolute() and ".." not in name.parts
    is_plain = inside and str(name) == member.filename and member.orig_filename == member.filename
    if (
        not is_plain
        or "\\" in member.filename
        or ":" in member.filename
        or not member.filename.isprintable()
        or len(member.filename.encode()) > _LONGEST_NAME
        or len(name.parts) > _DEEPEST
        or kind not in (0, stat.S_IFREG)
    ):
        raise BadInput(
            f"its member {shown!r} lies outside it, or is no plain file",
            where=str(path),
            remedy="No bundle of Wattledger has that: do not unpack it with other tools either",
        )
    if member.flag_bits & 0x1:
        raise _refuse(path, f"its member {shown!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refuse(
            path,
            f"its member {shown!r} is packed by method {member.compress_type}, not as bundles are",
        )


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member; `zipfile` gives no more bytes than it states."""
    file = target.joinpath(*PurePosixPath(member.filename).parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, file.open("xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
