"""Small tables as people keep them: CSV with any usual separator, each row whole or set aside."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.errors import BadInput, locate
from flows.files import DAMAGED
from flows.rows import RowFaults

_SEPARATORS = ",;\t|"
_MOST_LINES = 20
"""Lines that one row may go on for, where a quoted field holds line breaks."""
_MOST_CHARS = 1 << 20


@dataclass(frozen=True)
class CsvTable:
    """A table that was read.

    Attributes:
        names: Its columns: lower case, `_` for blanks.
        rows: Number of the line, and value by column, of each row that is whole.
        total: Rows that hold something, the others included.
        separator: What separates its fields.
    """

    names: list[str]
    rows: list[tuple[int, dict[str, str]]]
    total: int
    separator: str


def split_header(line: str) -> tuple[str, list[str]]:
    """The separator of a table, and the names of its columns: lower case, `_` for blanks."""
    line = line.strip("\ufeff\r\n")
    separator = max(_SEPARATORS, key=line.count)
    names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    clean = [re.sub(r"[\s-]+", "_", name.strip().strip('"').lower()) for name in names]
    while clean and not clean[-1]:
        clean.pop()
    return separator, clean


def read_csv(path: Path, plain: Path, faults: RowFaults, needed: Sequence[str]) -> CsvTable:
    """Read a table with a header.

    Args:
        path: The file, for messages.
        plain: Its text.
        faults: Takes rows that are not whole: more or fewer fields than the header, a quote without its
            other, bytes that are not text. Counts repeated headers and empty rows.
        needed: Columns that there must be.

    Raises:
        BadInput: no header, or one that names a column twice or lacks one.
    """
    with plain.open(encoding="utf-8-sig", errors="replace") as file:
        lines = [line.rstrip("\n") for line in file]
    start = next((i for i, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise BadInput("the file is empty", where=str(path), remedy="Record again")
    separator, names = split_header(lines[start])
    _check_names(path, start + 1, names, needed)
    rows: list[tuple[int, dict[str, str]]] = []
    total = 0
    for number, line, fields in _iterate(lines, start + 1, separator, len(names)):
        total += 1
        if fields is not None and not any(field.strip() for field in fields):
            faults.skip("empty rows")
        elif split_header(line)[1] == names:
            faults.skip("repeated headers")
        elif DAMAGED in line:
            faults.add(number, "bytes that are not text", "", line, "Remove the line")
        elif fields is None:
            faults.add(number, "a quote without its other", "", line, "Fix the line")
        elif len(fields) != len(names):
            faults.add(
                number,
                f"{len(fields)} fields where the header has {len(names)}",
                "",
                line,
                "Fix the line; a field that holds the separator needs quotes",
            )
        else:
            rows.append((number, dict(zip(names, map(str.strip, fields), strict=True))))
    return CsvTable(names, rows, total, separator)


def _check_names(path: Path, number: int, names: Sequence[str], needed: Sequence[str]) -> None:
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BadInput(
            f"two columns are called {twice[0]!r}",
            where=locate(path, number),
            remedy="Remove one of them",
        )
    if missing := [name for name in needed if name not in names]:
        raise BadInput(
            f"no column {missing[0]!r}",
            where=locate(path, number, value=",".join(names)),
            remedy=f"Needed are: {', '.join(needed)} (docs/formats.md)",
        )


def _iterate(
    lines: Sequence[str], start: int, separator: str, count: int
) -> Iterator[tuple[int, str, list[str] | None]]:
    """The rows of a table: number and text of their first line, and fields; None where quotes do not close."""
    place = start
    while place < len(lines):
        line, number = lines[place], place + 1
        place += 1
        if not line.strip():
            continue
        fields = _split(line, separator)
        if fields is None:
            taken, fields = _join(lines[place - 1 : place + _MOST_LINES], separator, count)
            place += taken
        elif len(fields) > count and not any(field.strip() for field in fields[count:]):
            # Spreadsheets fill up with separators.
            fields = fields[:count]
        yield number, line, fields


def _join(lines: Sequence[str], separator: str, count: int) -> tuple[int, list[str] | None]:
    """The fields of a row whose quoted field goes on in the next lines, and how many lines that takes."""
    for last in range(1, len(lines)):
        if lines[last].count(separator) >= count - 1:
            # A row of its own: the quote before it was never closed.
            break
        fields = _split("\n".join(lines[: last + 1]), separator)
        if fields is not None and len(fields) == count:
            return last, fields
    return 0, None


def _split(text: str, separator: str) -> list[str] | None:
    """The fields of a row; None where a quote does not close."""
    if len(text) > _MOST_CHARS:
        return None
    if '"' not in text:
        return [field.strip(" ") for field in text.split(separator)]
    if text.count('"') % 2:
        return None
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
