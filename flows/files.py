"""Files as people have them: found, hashed, and turned into lines of UTF-8."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import polars as pl

from flows.errors import BadInput, locate

_CHUNK = 1 << 20


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


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
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
    """The file as UTF-8 text: itself, or an unpacked or transcoded copy that is removed afterwards.

    Args:
        path: Text in UTF-8 or UTF-16, or UTF-8 packed with gzip.
        scratch: Folder for the copy.

    Raises:
        BadInput: empty, a damaged archive, or not text at all.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise BadInput("the file is empty", where=str(path), remedy="Record again")
    encoding = ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"  # PowerShell redirection writes this.
    packed = head.startswith(b"\x1f\x8b")
    if not packed and not encoding:
        _check_text(path, path)
        yield path
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("wb", dir=scratch, suffix=".txt", delete=False) as copy:
        plain = Path(copy.name)
        try:
            with gzip.open(path, "rb") if packed else path.open("rb") as file:
                decode = codecs.getincrementaldecoder(encoding or "utf-8")()
                while chunk := file.read(_CHUNK):
                    copy.write(decode.decode(chunk).encode() if encoding else chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
            plain.unlink()
            raise BadInput(
                f"cannot be unpacked: {error}", where=str(path), remedy="Copy the file again"
            ) from None
    try:
        if plain.stat().st_size == 0:
            raise BadInput("the file is empty", where=str(path), remedy="Record again")
        _check_text(plain, path)
        yield plain
    finally:
        plain.unlink(missing_ok=True)


def _check_text(plain: Path, path: Path) -> None:
    decode = codecs.getincrementaldecoder("utf-8")()
    lines_before = 0
    with plain.open("rb") as file:
        while chunk := file.read(_CHUNK):
            fault = chunk.find(b"\0")
            try:
                decode.decode(chunk)
            except UnicodeDecodeError as error:
                fault = error.start if fault < 0 else min(fault, error.start)
            if fault >= 0:
                raise BadInput(
                    "this is not a text file",
                    where=locate(path, lines_before + chunk[:fault].count(b"\n") + 1),
                    remedy="Give a CSV log, or a Parquet file with the ending .parquet",
                )
            lines_before += chunk.count(b"\n")


def scan_lines(plain: Path) -> pl.LazyFrame:
    """The lines of a text file as `row_no` (from 1) and `line`, without a byte order mark."""
    return pl.scan_lines(
        plain, name="line", row_index_name="row_no", row_index_offset=1, glob=False
    ).with_columns(pl.col("row_no").cast(pl.Int64), pl.col("line").str.strip_prefix("\ufeff"))


def split_fields(count: int) -> list[pl.Expr]:
    """Cut `line` at commas.

    Returns:
        Expressions for `fields`, the number of fields in the line, and for f0 to f(count - 1), null
        where the line has fewer.
    """
    parts = pl.col("line").str.split(",")
    return [
        parts.list.len().alias("fields"),
        *(
            parts.list.get(i, null_on_oob=True).str.strip_chars(" \t\r\"'").alias(f"f{i}")
            for i in range(count)
        ),
    ]
