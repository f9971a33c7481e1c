"""Files as people have them: found, hashed, and turned into lines of UTF-8."""

from __future__ import annotations

import codecs
import errno
import glob
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, cast

import polars as pl

from flows.errors import BadInput, locate
from wattledger.files import open_plain

_CHUNK = 1 << 20
_UNPACKED_FREE, _UNPACKED_TIMES = 16 << 20, 100
"""Bytes that any archive may unpack to, and how many times its size a larger one may. A log of eight GPUs whose
values never change reaches 42 times."""
_MOST_DAMAGED = 0.1
"""Part of the first characters that may be no text, in a file that is text elsewhere."""
DAMAGED = "\ufffd"
"""What stands in lines for bytes that are not text."""


def expand_paths(paths: Iterable[str | Path]) -> list[Path]:
    """Files named by paths, folders and glob patterns, each once, in a stable order.

    What is found in a folder or by a pattern may be another user's: a link there is given as itself, not as
    what it leads to, and no reader opens it (`open_regular`). Links that a person names are followed before
    (`follow_named`).

    Raises:
        BadInput: a path or pattern that names nothing.
    """
    files: dict[Path, None] = {}
    for pattern in paths:
        path = Path(pattern)
        if path.is_symlink():
            inside = [path]
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name[0] != "." and not is_folder(p))
        elif path.exists():
            inside = [path]
        else:
            inside = find_matching(str(pattern))
        if not inside:
            raise BadInput("no such file", where=str(pattern), remedy="Check the path or pattern")
        files.update(dict.fromkeys(inside))
    return list(files)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    return stat.S_ISDIR(path.lstat().st_mode)


def follow_named(paths: Iterable[str]) -> list[str]:
    """Paths as a person typed or configured them; one that is itself a link, as what it leads to."""
    typed = (Path(path) for path in paths)
    return [
        str(path.resolve()) if path.is_symlink() and path.exists() else str(path) for path in typed
    ]


def find_matching(pattern: str) -> list[Path]:
    """What a pattern finds; in place of what lies behind a link that it found, the link."""
    parts = Path(pattern).parts
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    base, rest = Path(*fixed), parts[len(fixed) :]
    if "**" in rest:
        # `glob` follows links to folders here, also those that lead in circles.
        deep = base.glob("/".join([*rest, "*"] if rest[-1] == "**" else rest))
        hidden = any(part.startswith(".") for part in rest)
        found = [p for p in deep if hidden or "/." not in f"/{p.relative_to(base)}"]
        found = [p for p in found if not is_folder(p)]
    else:
        found = [Path(p) for p in glob.glob(pattern)]
    return sorted({_find_link(path, len(fixed)) or path for path in found})


def _find_link(path: Path, fixed: int) -> Path | None:
    """The first part of a path that is a link, after so many parts that a person named."""
    below = (Path(*path.parts[:end]) for end in range(fixed + 1, len(path.parts) + 1))
    return next((part for part in below if part.is_symlink()), None)


def is_in_spool(path: Path) -> bool:
    """Whether a file lies in a collector's folder, with its journal, lock and state."""
    return any(os.path.lexists(parent / "collector.lock") for parent in list(path.parents)[:3])


def open_regular(path: Path) -> BinaryIO:
    """A file, open for reading: never through a link, and neither a pipe nor a device, which may never end.

    Raises:
        BadInput: it is no regular file.
        OSError: it may not be read.
    """
    with _refuse_others(path), open_plain(path) as handle:
        return os.fdopen(os.dup(handle), "rb")


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a file that has no reason to be large.

    Raises:
        BadInput: it is no regular file, or has more than `most` bytes.
        OSError: it may not be read.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BadInput(
            f"more than {most:,} bytes", where=name_for_people(path), remedy="Remove the file"
        )
    return data


@contextmanager
def _refuse_others(path: Path) -> Iterator[None]:
    """Turn the system's word for what is no regular file into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ELOOP):
            raise
        is_link = path.is_symlink()
        raise BadInput(
            "a link, which is not followed" if is_link else error.strerror or "not a regular file",
            where=name_for_people(path),
            remedy="If you trust what it leads to, name that"
            if is_link
            else "Write what it gives into a file, and load that",
        ) from None


def name_for_people(path: object) -> str:
    """A path as one line of text: what is no UTF-8, and control characters, as escapes."""
    text = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse_unreadable_name(path: Path) -> None:
    """Refuse a file whose name is not UTF-8: no table and no report could hold it.

    Raises:
        BadInput: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadInput(
            "the name of the file is not UTF-8",
            where=name_for_people(path),
            remedy="Rename it",
        ) from None


Seen = tuple[int, int, int, int, int]
"""A file as it was at one moment: device, inode, size, times of change of content and of state."""


def look_at(path: Path) -> Seen | None:
    """What a file is now; None where it is gone. Equal before and after: nobody changed it, or put another there."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal.

    Raises:
        BadInput: a link, a pipe, a device or the like.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_first_line(path: Path) -> str:
    """The first line of a text file, packed or not; empty where it cannot be read as text."""
    try:
        with open_regular(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
        with _open_unpacked(path, packed=packed) as file:
            return file.readline(_CHUNK).decode("utf-8-sig", "replace").rstrip("\r\n")
    except (BadInput, OSError, EOFError, zlib.error):
        return ""


@contextmanager
def open_plain_text(path: Path, scratch: Path) -> Iterator[Path]:
    """The file as UTF-8 text: itself, or an unpacked, transcoded or cleaned copy that is removed afterwards.

    Bytes that are not text (NUL, broken UTF-8), of a file that is text elsewhere, become U+FFFD
    (`DAMAGED`): readers set such lines aside.

    Args:
        path: Text in UTF-8 or UTF-16, or UTF-8 packed with gzip.
        scratch: Folder for the copy.

    Raises:
        BadInput: empty, a damaged archive, one that unpacks to far more than logs do, or not text at all.
    """
    with open_regular(path) as file:
        head = file.read(_CHUNK)
    if not head:
        raise BadInput("the file is empty", where=str(path), remedy="Record again")
    packed = head.startswith(b"\x1f\x8b")
    if packed:
        head = _read_head(path)
    # PowerShell redirection writes UTF-16.
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not is_utf16:
        _refuse_binary(head, path)
        if not packed and _is_clean(path):
            yield path
            return
    scratch.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("wb", dir=scratch, suffix=".txt", delete=False) as copy:
        plain = Path(copy.name)
    try:
        _write_clean(path, plain, "utf-16" if is_utf16 else "utf-8", packed=packed)
        yield plain
    finally:
        plain.unlink(missing_ok=True)


@contextmanager
def _open_unpacked(path: Path, *, packed: bool) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is packed with gzip."""
    with open_regular(path) as file:
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast("BinaryIO", unpacked)


def _read_head(path: Path) -> bytes:
    """The first bytes of a packed file."""
    try:
        with _open_unpacked(path, packed=True) as file:
            head = file.read(_CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _refuse_archive(path, error) from None
    if not head:
        raise BadInput("the file is empty", where=str(path), remedy="Record again")
    return head


def _refuse_archive(path: Path, error: Exception) -> BadInput:
    return BadInput(f"cannot be unpacked: {error}", where=str(path), remedy="Copy the file again")


def _refuse_binary(head: bytes, path: Path) -> None:
    """Refuse what is no text: not a line of it can be read."""
    text = head.decode("utf-8", "replace")
    damaged = text.count(DAMAGED) + text.count("\0")
    first = text.split("\n", 1)[0]
    if damaged > len(text) * _MOST_DAMAGED or DAMAGED in first[:-1] or "\0" in first:
        raise BadInput(
            "this is not a text file",
            where=locate(path, 1),
            remedy="Give a CSV log in UTF-8, or a Parquet file with the ending .parquet",
        )


def _is_clean(path: Path) -> bool:
    """Whether all bytes of a file are text in UTF-8."""
    decode = codecs.getincrementaldecoder("utf-8")()
    with open_regular(path) as file:
        try:
            while chunk := file.read(_CHUNK):
                if b"\0" in chunk:
                    return False
                decode.decode(chunk)
            decode.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _write_clean(path: Path, plain: Path, encoding: str, *, packed: bool) -> None:
    """Write a file unpacked and in UTF-8, with `DAMAGED` in place of bytes that are not text."""
    decode = codecs.getincrementaldecoder(encoding)(errors="replace")
    most = max(_UNPACKED_FREE, path.stat().st_size * _UNPACKED_TIMES)
    written = 0
    try:
        with plain.open("wb") as copy, _open_unpacked(path, packed=packed) as file:
            while chunk := file.read(_CHUNK):
                text = decode.decode(chunk).replace("\0", DAMAGED)
                written += copy.write(text.encode())
                if written > most:
                    raise BadInput(
                        f"unpacks to more than {_UNPACKED_TIMES} times its size",
                        where=str(path),
                        remedy="No log does that; if this one does, unpack it and load it unpacked",
                    )
            copy.write(decode.decode(b"", final=True).replace("\0", DAMAGED).encode())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _refuse_archive(path, error) from None
    if plain.stat().st_size == 0:
        raise BadInput("the file is empty", where=str(path), remedy="Record again")


def scan_lines(plain: Path) -> pl.LazyFrame:
    """The lines of a text file as `row_no` (from 1) and `line`, without a byte order mark."""
    return pl.scan_lines(
        plain, name="line", row_index_name="row_no", row_index_offset=1, glob=False
    ).with_columns(pl.col("row_no").cast(pl.Int64), pl.col("line").str.strip_prefix("\ufeff"))


def split_fields(count: int, separator: str = ",") -> list[pl.Expr]:
    """Cut `line` at commas, or at another separator.

    Returns:
        Expressions for `fields`, the number of fields in the line, and for f0 to f(count - 1), null
        where the line has fewer.
    """
    parts = pl.col("line").str.split(separator)
    return [
        parts.list.len().alias("fields"),
        *(
            parts.list.get(i, null_on_oob=True).str.strip_chars(" \t\r\"'").alias(f"f{i}")
            for i in range(count)
        ),
    ]
