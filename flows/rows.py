"""Rows of a file that cannot be believed: set aside one by one, with number and reason, while the rest loads.

A file of which too many rows are set aside is not what it seems, and is refused whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from flows import times
from flows.errors import BadInput, WattledgerError, locate
from flows.files import DAMAGED

MAX_BAD_SHARE = 0.01
"""Part of the rows that may be bad ([ingest] in wattledger.toml says another)."""

REFUSED: dict[str, pl.DataType | type[pl.DataType]] = {
    "row_no": pl.Int64,
    "reason": pl.String,
    "field_name": pl.String,
    "raw_value": pl.String,
}
MISSING = (
    r"(?i)^(\[.*\]|n/?[ae]|nan|null|none|-+|not supported|unknown error|gpu is lost|"
    r"insufficient permissions|not active|requested functionality has been deprecated)$"
)
"""Words for a value that was not there. nvidia-smi puts them between brackets, and ever new ones."""
NUMBER = r"^([+-]?(?:\d+\.?\d*|\.\d+|inf(?:inity)?)(?:[eE][+-]?\d+)?)\s*(?:[a-zA-Z%/]+)?$"

_TIME_REMEDIES = {
    times.NO_ZONE: "Say which with --tz, for example --tz UTC or --tz Europe/Berlin",
    times.NEVER_SHOWN: "Check --tz, or give a fixed offset such as --tz +01:00",
    times.SHOWN_TWICE: "Split the file at the change, or give a fixed offset such as --tz +01:00",
    times.UNBELIEVABLE: "Check the unit of the time column, --tz, and the clock that recorded",
}
ANOTHER_ROW = "another row of the same is set aside"
"""Reason of a row that is sound, but of a run that would be loaded in part, or contradicted by another."""
_VALUE_CHARS = 80
"""Characters of a value that are kept: enough to find it again."""


class RowFaults:
    """The bad rows of one file, collected while it is read.

    Attributes:
        path: The file.
        max_share: Part of its rows that may be bad.
        skipped: Reason -> rows that hold nothing to load, and are no fault either.
    """

    def __init__(self, path: Path, max_share: float = MAX_BAD_SHARE) -> None:
        self.path, self.max_share = path, max_share
        self.skipped: Counter[str] = Counter()
        self._single: list[tuple[int, str, str, str]] = []
        self._frames: list[pl.DataFrame] = []
        self._remedies: dict[str, str] = {}

    @property
    def rows(self) -> pl.DataFrame:
        """The bad rows, each once, with its first reason: row_no, reason, field_name, raw_value (`REFUSED`)."""
        single = pl.DataFrame(self._single, schema=REFUSED, orient="row")
        rows = pl.concat([*self._frames, single])
        return rows.unique("row_no", keep="first", maintain_order=True).sort("row_no")

    @property
    def count(self) -> int:
        return self.rows.height

    def skip(self, reason: str, rows: int = 1) -> None:
        """Count rows that hold nothing to load."""
        if rows:
            self.skipped[reason] += rows

    def add(
        self, row_no: int, reason: str, field: str = "", value: object = "", remedy: str = ""
    ) -> None:
        """Set one row aside."""
        self._single.append((row_no, reason, field, str(value)[:_VALUE_CHARS]))
        self._remedies.setdefault(reason, remedy)

    def add_error(self, row_no: int, error: WattledgerError, place: str = "") -> None:
        """Set one row aside for an error whose place names its column and value.

        Args:
            row_no: The row.
            error: What is wrong with it.
            place: What people call the row, where a number does not find it.
        """
        column = re.search(r"column '([^']*)'", error.where)
        value = re.search(r"value (['\"])(.*)\1$", error.where, re.DOTALL)
        reason = f"{error.what} ({place})" if place else error.what
        self.add(
            row_no, reason, column[1] if column else "", value[2] if value else "", error.remedy
        )

    def drop(
        self,
        frame: pl.DataFrame,
        bad: pl.Expr,
        reason: str,
        *,
        field: str = "",
        value: str = "",
        remedy: str = "",
    ) -> pl.DataFrame:
        """Set aside the rows of a frame that fulfil a condition.

        Args:
            frame: Has `row_no`, the number of each row in the file.
            bad: Which rows are bad; null counts as good.
            reason: Why.
            field: What the file calls the column at fault.
            value: Column of `frame` with the value at fault.
            remedy: What to do about it.

        Returns:
            The other rows.
        """
        marked = frame.with_columns(is_bad=bad.fill_null(False))
        if not marked["is_bad"].any():
            return frame
        rows = marked.filter("is_bad").select(
            pl.col("row_no").cast(pl.Int64),
            reason=pl.lit(reason),
            field_name=pl.lit(field),
            raw_value=(
                pl.col(value).cast(pl.String).fill_null("").str.slice(0, _VALUE_CHARS)
                if value
                else pl.lit("")
            ),
        )
        self._frames.append(rows)
        self._remedies.setdefault(reason, remedy)
        return marked.filter(~pl.col("is_bad")).drop("is_bad")

    def drop_ragged(
        self, lines: pl.DataFrame, width: int, *, fields: str = "fields"
    ) -> pl.DataFrame:
        """Set aside lines with bytes that are not text, or with more or fewer fields than the header.

        Args:
            lines: row_no, `line` (its text) and `fields` (how many it has).
            width: Fields of the header.
            fields: Name of that column.

        Returns:
            The other lines.
        """
        lines = self.drop(
            lines,
            pl.col("line").str.contains(DAMAGED, literal=True),
            "bytes that are not text (the machine may have stopped while it wrote)",
            remedy="Remove the line",
        )
        counts = lines.filter(pl.col(fields) != width)[fields].unique().sort()
        for count in counts:
            lines = self.drop(
                lines,
                pl.col(fields) == count,
                f"{count} fields where the header has {width}",
                value="line",
                remedy="Remove or fix the line",
            )
        return lines

    def parse_numbers(
        self, frame: pl.DataFrame, column: str, *, to: str, field: str = "", remedy: str = ""
    ) -> pl.DataFrame:
        """Parse a column of texts as finite numbers, with or without a unit behind them.

        Args:
            frame: row_no and `column`.
            column: The texts. Words for a value that was not there (`MISSING`) are null.
            to: Name of the new column.
            field: What the file calls the column; its name, if left out.
            remedy: What to do about a value that is no number.

        Returns:
            The rows without those whose value is neither a number nor missing, with `to` (Float64).
        """
        text = pl.col(column).cast(pl.String).str.strip_chars(" \t\r\"'")
        raw = pl.when(text.str.contains(MISSING) | (text == "")).then(None).otherwise(text)
        number = raw.str.to_lowercase().str.extract(NUMBER, 1).cast(pl.Float64, strict=False)
        parsed = frame.with_columns(raw.alias("_raw"), number.alias(to))
        bad = pl.col("_raw").is_not_null() & ~pl.col(to).is_finite().fill_null(False)
        good = self.drop(
            parsed, bad, "not a usable value", field=field or column, value="_raw", remedy=remedy
        )
        return good.drop("_raw")

    def parse_times(
        self,
        frame: pl.DataFrame,
        column: str,
        tz: str,
        *,
        to: str = "ts",
        by: str = "",
        field: str = "",
    ) -> pl.DataFrame:
        """Parse a column of times, as text or as datetimes, in UTC.

        Args:
            frame: row_no and `column`, in the order of the file.
            column: The times.
            tz: The zone of those that carry none; empty if such times are refused.
            to: Name of the new column.
            by: Column that tells the series of a file apart, where it holds several one after the other.
            field: What the file calls the column; its name, if left out.

        Returns:
            The rows whose time is known and believable, with `to` (UTC, microseconds).

        Raises:
            UsageError: an unknown zone.
        """
        parsed = times.parse_column(frame[column], tz, frame[by] if by else None)
        marked = frame.with_columns(parsed["utc"].alias(to), parsed["fault"].alias("_fault"))
        for fault in marked["_fault"].drop_nulls().unique(maintain_order=True):
            marked = self.drop(
                marked,
                pl.col("_fault") == fault,
                fault,
                field=field or column,
                value=column,
                remedy=_TIME_REMEDIES.get(fault, "Remove or fix the line"),
            )
        return marked.drop("_fault")

    def count_allowed(self, rows: int) -> int:
        """How many of some rows may be bad: the share of them, and one in any case."""
        return max(1, int(rows * self.max_share))

    def check(self, rows: int, contradictions: int = 0) -> None:
        """Refuse the file if too many of its rows are bad; one bad row among good ones never is.

        Args:
            rows: All rows of the file that should hold data, the bad ones included.
            contradictions: Bad rows that are so only beside another one: the two count once.

        Raises:
            BadInput: too many, or all of them.
        """
        bad = self.rows
        is_few = bad.height - contradictions <= self.count_allowed(rows) and bad.height < rows
        if bad.is_empty() or is_few:
            return
        causes = bad.filter(pl.col("reason") != ANOTHER_ROW)
        first = (causes if causes.height else bad).row(0, named=True)
        others = bad.height - 1
        reason = first["reason"]
        if others:
            reason += f" (and {others:,} more of {rows:,} rows cannot be used)"
        raise BadInput(
            reason,
            where=locate(
                self.path, first["row_no"], first["field_name"], first["raw_value"] or None
            ),
            remedy=self._remedies.get(first["reason"], ""),
        )

    def explain(self) -> list[str]:
        """What was set aside and skipped, as sentences: one for each reason, with its first row."""
        sentences = []
        for reason, group in self.rows.group_by("reason", maintain_order=True):
            first = group.row(0, named=True)
            place = locate("row", first["row_no"], first["field_name"], first["raw_value"] or None)
            sentences.append(
                f"{count_of(group.height, 'row')} set aside: {reason[0]} ({place.removeprefix('row, ')})"
            )
        return sentences


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """What was skipped, by reason: `job steps (12), jobs without GPUs (3)`; empty where nothing was."""
    return ", ".join(f"{reason} ({count:,})" for reason, count in skipped.items() if count)


def count_of(number: int, noun: str) -> str:
    """A number of things: `1 run`, `2,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
