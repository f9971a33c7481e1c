"""Tables of grid data: lines cut into fields by whatever separates them, and columns found by what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.files import open_plain_text, scan_lines
from flows.rows import RowFaults
from flows.sources.grid.series import Limits

REMEDY = "Fix the file, or describe it under [grid_sources.NAME] and pass --source NAME"

_SEPARATORS = (";", "\t", ",", "|")
"""Where a header has several, the first of these cuts it."""
_COLUMNS = 2000
"""Columns that a table may have."""


@dataclass(frozen=True)
class Options:
    """What the file itself does not say."""

    zone: str = ""
    signal: str = ""
    unit: str = ""
    tz: str = ""
    provider: str = ""


@dataclass(frozen=True)
class Table:
    """A file as texts: a column `row_no`, which counts lines, and those of its header."""

    frame: pl.DataFrame
    path: Path
    options: Options
    faults: RowFaults
    names: dict[str, str] = field(default_factory=dict)
    """Name of a column, `normalise`d -> its name in the file."""
    rows: int = 0
    """Rows that should hold data, the bad ones included."""
    limits: Limits = field(default_factory=Limits)

    def find(self, *names: str) -> str:
        """The first column of these (normalised) names; empty where there is none."""
        return next((self.names[name] for name in names if name in self.names), "")

    def has(self, *names: str) -> bool:
        """Whether there is a column of each of these (normalised) names."""
        return all(name in self.names for name in names)

    def find_unit(self, column: str) -> str:
        """The unit in the brackets of a column's name, without blanks, in lower case; empty without one."""
        brackets = re.findall(r"[\[(]([^\])]*)[\])]", column)
        return re.sub(r"[\s_]", "", brackets[-1]).lower().replace("₂", "2") if brackets else ""

    def require_zone(self) -> str:
        """The zone that was given.

        Raises:
            UsageError: none was.
        """
        if not self.options.zone:
            raise UsageError(
                "the file does not say which grid zone it is about",
                where=str(self.path),
                remedy="Name it with --zone, for example --zone DE",
            )
        return self.options.zone


def normalise(name: str, *, bare: bool = False) -> str:
    """A column's name in lower case, with `_` for all that is no letter and no digit.

    Args:
        name: As the file has it.
        bare: Leave out what stands in brackets, such as a unit.
    """
    text = re.sub(r"[\[(][^\])]*[\])]", " ", name) if bare else name
    return re.sub(r"\W+|_+", "_", text.replace("₂", "2").lower()).strip("_")


def as_text(value: Any) -> str | None:
    """A value of an answer as text, as numbers and times are read; None where there is none."""
    return None if value is None else str(value)


def read_table(path: Path, options: Options, limits: Limits, scratch: Path) -> Table:
    """Read a table; lines that have more or fewer fields than the header are set aside.

    Args:
        path: CSV, with commas, semicolons or tabs between fields, or Parquet.
        options: What the file does not say.
        limits: What is believed.
        scratch: Folder for unpacked copies.

    Raises:
        BadInput: not a table.
    """
    faults = limits.collect(path)
    if path.suffix == ".parquet":
        frame, rows = _read_parquet(path), 0
    else:
        with open_plain_text(path, scratch) as plain:
            frame, rows = _read_lines(plain, path, faults)
    names: dict[str, str] = {}
    for bare in (False, True):
        for name in frame.columns[1:]:
            names.setdefault(normalise(name, bare=bare), name)
    return Table(frame, path, options, faults, names, rows or frame.height, limits)


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"not a Parquet file: {first}", where=str(path)) from None
    frame.columns = _name_columns(frame.columns)
    flat = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    as_text = [
        pl.col(name)
        if isinstance(frame.schema[name], pl.Datetime)
        else pl.col(name).cast(pl.String)
        for name in flat
    ]
    if frame.height == 0:
        raise BadInput("there is no row", where=str(path), remedy="Fetch it again")
    numbered = frame.select(as_text).with_row_index("row_no", 1)
    return numbered.with_columns(pl.col("row_no").cast(pl.Int64))


def _read_lines(plain: Path, path: Path, faults: RowFaults) -> tuple[pl.DataFrame, int]:
    lines = scan_lines(plain).with_columns(pl.col("line").str.strip_chars_end("\r")).collect()
    # A sheet may say `sep=;` before its header.
    lines = lines.filter(~pl.col("line").str.contains(r"^(?i)sep=.$"))
    filled = lines.filter(pl.col("line").str.strip_chars() != "")
    faults.skip("blank lines", lines.height - filled.height)
    if filled.height < 2:
        raise BadInput(
            "there is a header but no row" if filled.height else "the file is empty",
            where=str(path),
            remedy="Fetch it again",
        )
    header, body = filled["line"][0], filled.slice(1)
    separator = next((s for s in _SEPARATORS if s in re.sub(r'"[^"]*"', "", header)), ",")
    names = _name_columns(_cut(pl.Series([header]), separator)[0].to_list())
    if len(names) > _COLUMNS:
        raise BadInput(f"{len(names):,} columns", where=locate(path, 1), remedy=REMEDY)
    body = body.with_columns(parts=_cut(body["line"], separator)).with_columns(
        fields=pl.col("parts").list.len()
    )
    good = faults.drop_ragged(body, len(names))
    faults.check(body.height)
    frame = good.select(
        "row_no", *(pl.col("parts").list.get(i).alias(name) for i, name in enumerate(names))
    )
    return (frame if separator == "," else _settle_decimals(frame, path)), body.height


def _cut(lines: pl.Series, separator: str) -> pl.Series:
    """The fields of each line, without quotes; a quote that is never closed quotes nothing."""
    mark = re.escape(separator)
    found = (lines + separator).str.extract_all(rf'(?:\s*"(?:[^"]|"")*"\s*|[^{mark}]*){mark}')
    clean = (
        pl.element()
        .str.strip_suffix(separator)
        .str.strip_chars(" \t\r")
        .str.replace(r'^"(.*)"$', "$1")
        .str.replace_all('""', '"', literal=True)
        .str.strip_chars(" \t\r")
    )
    return found.list.eval(clean)


def _name_columns(header: Sequence[str]) -> list[str]:
    """Names of columns, each once; those without one by their place."""
    names: list[str] = []
    for place, name in enumerate(header, 1):
        free = name or f"column {place}"
        names.append(f"{free} ({place})" if free in names or free == "row_no" else free)
    return names


_DIGITS = r"^[+-]?[\d.,]*\d$"
_STYLES = {
    # Group and point -> numbers that can only be read so, and all numbers that can.
    (",", "."): (
        r"^[+-]?\d{1,3}(,\d{3})+\.\d|^[+-]?\d{1,3}(,\d{3}){2,}$",
        r"\d{1,3}(?:,\d{3})*(?:\.\d+)?",
    ),
    (".", ","): (
        r"^[+-]?\d{1,3}(\.\d{3})+,\d|^[+-]?\d{1,3}(\.\d{3}){2,}$|^[+-]?\d+,(\d{1,2}|\d{4,})$|^[+-]?0\d*,|^[+-]?\d{4,},",
        r"\d{1,3}(?:\.\d{3})*(?:,\d+)?",
    ),
    ("", "."): (r"^[+-]?\d+\.(\d{1,2}|\d{4,})$|^[+-]?0\d*\.|^[+-]?\d{4,}\.", r"\d+(?:\.\d+)?"),
}


def _settle_decimals(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Numbers with a decimal point, however the file writes them: 1.234,5 or 1,234.5.

    What most numbers say that can only be read in one way counts for all; those that cannot be read so stay
    as they are, and are set aside later.

    Raises:
        BadInput: 1,234 may be a thousand or a fraction, and no other number tells which.
    """
    texts = pl.concat([frame[name] for name in frame.columns[1:]])
    numbers = texts.filter(texts.str.contains(_DIGITS)).drop_nulls()
    votes = {style: int(numbers.str.contains(only).sum()) for style, (only, _) in _STYLES.items()}
    style = max(votes, key=lambda known: votes[known])
    if not votes[style]:
        if numbers.str.contains(",", literal=True).any():
            raise BadInput(
                "nothing tells whether 1,234 is a thousand or a fraction",
                where=str(path),
                remedy="Write numbers with a decimal point",
            )
        # Thousands with a point leave those below a thousand without one; fractions rarely do.
        grouped = numbers.str.contains(r"^[+-]?\d{1,3}\.\d{3}$").any()
        style = (
            (".", ",") if grouped and numbers.str.contains(r"^[+-]?\d{1,3}$").any() else ("", ".")
        )
    group, point = style
    plain = rf"^[+-]?(?:{_STYLES[style][1]}|\d+(?:{re.escape(point)}\d+)?)$"
    text = pl.col(frame.columns[1:])
    bare = text.str.replace_all(group, "", literal=True) if group else text
    return frame.with_columns(
        pl.when(text.str.contains(plain))
        .then(bare.str.replace(point, ".", literal=True))
        .when(text.str.contains(_DIGITS) & text.str.contains("[.,]"))
        .then(pl.concat_str(pl.lit("? "), text))
        .otherwise(text)
        .name.keep()
    )
