"""Files as people have them: found, fingerprinted, and turned into plain UTF-8 lines."""

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
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
        elif path.exists():
            inside = [path]
        else:
            inside = sorted(Path(p) for p in glob.glob(str(given), recursive=True))
        if not inside:
            raise BadInput("no such file", where=str(given), remedy="Check the path or pattern")
        found.update(dict.fromkeys(inside))
    return list(found)


def is_in_spool(path: Path) -> bool:
    """Whether a file lies in a collector's folder, with its journal, lock and state."""
    return any((parent / "collector.lock").exists() for parent in list(path.parents)[:2])


def hash_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def read_first_line(path: Path) -> str:
    """The first line of a text file, packed or not; empty where it can't be read as text."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            return file.readline(_CHUNK).decode("utf-8-sig", "replace").rstrip("\r\n")
    except (OSError, EOFError, zlib.error):
        return ""


@contextmanager
def open_plain_text(path: Path, scratch: Path) -> Iterator[Path]:
    """The file as UTF-8 text: itself, or an unpacked or transcoded copy that is removed after.

    Raises:
        BadInput: empty, damaged archive, or not text at all.
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
                while piece := file.read(_CHUNK):
                    copy.write(decode.decode(piece).encode() if encoding else piece)
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
            plain.unlink()
            raise BadInput(
                f"can't be unpacked: {error}", where=str(path), remedy="Copy the file again"
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
        while piece := file.read(_CHUNK):
            fault = piece.find(b"\0")
            try:
                decode.decode(piece)
            except UnicodeDecodeError as error:
                fault = error.start if fault < 0 else min(fault, error.start)
            if fault >= 0:
                raise BadInput(
                    "this is not a text file",
                    where=locate(path, lines_before + piece[:fault].count(b"\n") + 1),
                    remedy="Give a CSV log, or a Parquet file with the ending .parquet",
                )
            lines_before += piece.count(b"\n")


def scan_lines(plain: Path) -> pl.LazyFrame:
    """A text file as `row_no` (from 1) and `line`."""
    return pl.scan_lines(
        plain, name="line", row_index_name="row_no", row_index_offset=1, glob=False
    ).with_columns(pl.col("row_no").cast(pl.Int64), pl.col("line").str.strip_prefix("\ufeff"))


def split_fields(count: int) -> list[pl.Expr]:
    """`line` cut at commas into f0..fN, and `fields`, how many there are."""
    parts = pl.col("line").str.split(",")
    return [
        parts.list.len().alias("fields"),
        *(
            parts.list.get(i, null_on_oob=True).str.strip_chars(" \t\r\"'").alias(f"f{i}")
            for i in range(count)
        ),
    ]
