"""The form of readings between a reader and the gate: a Parquet file in STAGED columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flows.files import Seen, look_at
from flows.rows import RowFaults
from wattledger.meters.dcgm import BLANKS, FP64_EDGE

STAGED: dict[str, pl.DataType] = {
    "gpu_uuid": pl.String(),
    "host": pl.String(),
    "gpu_index": pl.Int32(),
    "model": pl.String(),
    "ts": pl.Datetime("us", "UTC"),
    "power_mw": pl.Int32(),
    "energy_mj": pl.Int64(),
    "util_pct": pl.Int16(),
    "mem_used_mib": pl.Int32(),
    "temp_c": pl.Int16(),
    "sm_clock_mhz": pl.Int16(),
    "power_source": pl.String(),
    "power_average_mw": pl.Int32(),
    "mem_temp_c": pl.Int16(),
    "power_limit_mw": pl.Int32(),
    "throttle_reasons": pl.Int64(),
    "row_no": pl.Int64(),
}
"""Columns of a staged file, ordered by (gpu_uuid, ts). `row_no` is the row in the source file."""

VALUES = ["power_mw", "energy_mj", "util_pct", "mem_used_mib", "temp_c", "sm_clock_mhz"]
"""What makes two readings of one time the same or a contradiction."""
EXTRA = ["power_average_mw", "mem_temp_c", "power_limit_mw", "throttle_reasons"]
"""What only the collector records."""


def fill_columns(readings: pl.DataFrame, columns: Iterable[str] = STAGED) -> pl.DataFrame:
    """Exactly these columns of STAGED, in order; those that a source does not have are null."""
    return readings.select(
        name if name in readings.columns else pl.lit(None, STAGED[name]).alias(name)
        for name in columns
    )


@dataclass
class Staged:
    """A file that could be read, waiting for the gate."""

    source: Path
    segment_id: str
    format: str
    path: Path
    """Parquet in STAGED columns, or one of our own segments as it is."""
    faults: RowFaults
    """Rows that were set aside or skipped."""
    readings: int = 0
    """Readings that the file holds, repeated ones included."""
    rows_duplicate: int = 0
    sample: bool = False
    columns: frozenset[str] = frozenset(STAGED)
    """Columns of `path` that are not null throughout, as far as the file tells."""
    steps_back: dict[str, tuple[int, int]] = field(default_factory=dict)
    """GPU -> (readings earlier than the one before, first such row)."""
    blanks: dict[str, int] = field(default_factory=dict)
    """GPU -> values that stood for missing ones and were taken for unknown."""
    collector: str | None = None
    """What the collector says of itself (JSON), in its own segments."""
    events: list[dict[str, Any]] = field(default_factory=list)
    own: bool = False
    """True where `path` is the source itself and must be kept."""
    seen: Seen | None = None
    """One of our segments as it was before its digest was taken."""

    @property
    def has_changed(self) -> bool:
        """Whether somebody changed the source since its digest was taken, so that it says another thing now."""
        return self.seen is not None and look_at(self.source) != self.seen

    @property
    def rows_skipped(self) -> int:
        return self.faults.skipped.total()

    @property
    def rows_read(self) -> int:
        """Every row of the file: what was loaded, known, skipped or set aside."""
        return self.readings + self.rows_skipped + self.faults.count


def write_staged(readings: pl.DataFrame, staged: Staged, *, unsorted: bool = False) -> Staged:
    """Order readings by GPU and time, drop exact repeats, note steps back, write the Parquet file.

    Args:
        readings: STAGED columns in the order of the file; missing ones become null. `blanks`, if there, counts
            the values of each row that stood for missing ones.
        staged: Where to; its counts and columns are filled in.
        unsorted: The file need not be in order of time: steps back mean nothing.

    Returns:
        `staged`.
    """
    back = (
        readings.select("gpu_uuid", "row_no", back=pl.col("ts").diff().over("gpu_uuid") < 0)
        .filter("back")
        .group_by("gpu_uuid")
        .agg(pl.len(), pl.col("row_no").min())
    )
    if not unsorted:
        staged.steps_back = {uuid: (count, row) for uuid, count, row in back.iter_rows()}
    if "blanks" in readings.columns:
        counts = (
            readings.group_by("gpu_uuid").agg(pl.col("blanks").sum()).filter(pl.col("blanks") > 0)
        )
        staged.blanks = dict(counts.iter_rows())
    ordered = fill_columns(readings).sort("gpu_uuid", "ts", "row_no")
    unique = ordered.unique(["gpu_uuid", "ts", *VALUES], keep="first", maintain_order=True)
    staged.readings = ordered.height
    staged.rows_duplicate = ordered.height - unique.height
    staged.columns = frozenset(
        column.name for column in unique if column.null_count() < unique.height
    )
    staged.path.parent.mkdir(parents=True, exist_ok=True)
    unique.write_parquet(staged.path)
    return staged


def convert_to_milliwatts(value: pl.Expr, unit: str) -> pl.Expr:
    """Power in whole milliwatts from a number in `unit`."""
    factor = {"w": 1000.0, "mw": 1.0, "kw": 1e6}[unit.lower()]
    return (value * factor).round()


def drop_blanks(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Put null in place of numbers that stand for missing values (`dcgm.BLANKS`), and count them in `blanks`.

    Args:
        frame: `column`, a number as the file has it; and `blanks`, if something was counted before.
        column: Which.

    Returns:
        The same rows.
    """
    value = pl.col(column)
    numbers = sorted(BLANKS)
    is_blank = (
        value.is_in(numbers)
        | (value / 1000).is_in(numbers)
        | (value * 1000).round(3).is_in(numbers)
        | value.abs().is_between(FP64_EDGE, 2.0**64 * 1.01)
    ).fill_null(False)
    before = pl.col("blanks") if "blanks" in frame.columns else pl.lit(0)
    return frame.with_columns(
        pl.when(~is_blank).then(value).alias(column),
        blanks=(before + is_blank.cast(pl.Int64)).cast(pl.Int64),
    )


def drop_out_of_range(frame: pl.DataFrame, column: str, faults: RowFaults) -> pl.DataFrame:
    """Set aside rows with a number that is too large for its column of STAGED.

    Args:
        frame: row_no and `column`.
        column: A column of STAGED.
        faults: Where to.

    Returns:
        The other rows.
    """
    dtype = STAGED[column]
    low, high = (pl.select(edge).item() for edge in (dtype.min(), dtype.max()))  # type: ignore[attr-defined]
    return faults.drop(
        frame,
        ~pl.col(column).is_between(low, high),
        f"out of range for {column}",
        field=column,
        value=column,
        remedy="Check the column and its unit",
    )
