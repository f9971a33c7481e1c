"""Files as people have them: found, hashed, and turned into lines of UTF-8."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import polars as pl

from flows.errors import BadInput, locate

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

    Raises:
        BadInput: a path or pattern that names nothing.
    """
    files: dict[Path, None] = {}
    for pattern in paths:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
        elif path.exists():
            inside = [path]
        else:
            inside = sorted(Path(p) for p in glob.glob(str(pattern), recursive=True))
        if not inside:
            raise BadInput("no such file", where=str(pattern), remedy="Check the path or pattern")
        files.update(dict.fromkeys(inside))
    return list(files)


def is_in_spool(path: Path) -> bool:
    """Whether a file lies in a collector's folder, with its journal, lock and state."""
    return any((parent / "collector.lock").exists() for parent in list(path.parents)[:2])


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


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal.

    Raises:
        BadInput: a pipe, a device or the like, which may never end.
    """
    if not path.is_file():
        raise BadInput(
            "not a regular file",
            where=name_for_people(path),
            remedy="Write what it gives into a file, and load that",
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_first_line(path: Path) -> str:
    """The first line of a text file, packed or not; empty where it cannot be read as text."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            return file.readline(_CHUNK).decode("utf-8-sig", "replace").rstrip("\r\n")
    except (OSError, EOFError, zlib.error):
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
    with path.open("rb") as file:
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


def _read_head(path: Path) -> bytes:
    """The first bytes of a packed file."""
    try:
        with gzip.open(path, "rb") as file:
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
    with path.open("rb") as file:
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
        with plain.open("wb") as copy, gzip.open(path, "rb") if packed else path.open("rb") as file:
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
