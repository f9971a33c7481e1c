"""What every file and answer of grid data becomes: intervals of one series, in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput, locate
from flows.rows import RowFaults
from transforms.constants import FILE_FEED

GRAMS_PER_KWH = {"g": 1.0, "kg": 1000.0, "lb_per_mwh": 0.45359237}
"""What one unit of intensity is in g/kWh (1 lb = 453.59237 g)."""

REMEDY = "Fix the file, or describe it under [grid_sources.NAME] and pass --source NAME"


@dataclass(frozen=True)
class GridData:
    """What a file held: intensities, or a generation mix; `row_no` is the row in the file."""

    layout: str
    intensity: pl.DataFrame | None = None
    mix: pl.DataFrame | None = None
    rows_read: int = 0
    duplicates: int = 0
    feed: str = FILE_FEED

    @property
    def rows(self) -> pl.DataFrame:
        """The intensities or the mix, whichever it is."""
        rows = self.intensity if self.mix is None else self.mix
        assert rows is not None
        return rows


def build_grid_data(layout: str, table: pl.DataFrame, rows_read: int) -> GridData:
    """What was read, each row once.

    Args:
        layout: The name of the layout.
        table: A generation mix if it has a column `fuel`, else intensities; `row_no` says where
            each row stands and does not count as a value.
        rows_read: Rows of the file, for the report.
    """
    values = [c for c in table.columns if c != "row_no"]
    unique = table.unique(values, keep="first", maintain_order=True)
    duplicates = table.height - unique.height
    if "fuel" in table.columns:
        return GridData(layout, mix=unique, rows_read=rows_read, duplicates=duplicates)
    return GridData(layout, intensity=unique, rows_read=rows_read, duplicates=duplicates)


def build_intensities(
    row_no: pl.Series,
    starts: pl.Series,
    values: pl.Series,
    *,
    zone: pl.Series | str,
    signal: str,
    source: str,
    estimated: pl.Series | None = None,
    minutes: pl.Series | int | None = None,
) -> pl.DataFrame:
    """A table of intensities from its columns.

    Args:
        row_no: Where each value stands in the file.
        starts: Start of each interval, in UTC.
        values: Intensities in g/kWh.
        zone: Grid zone, one for all or one for each row.
        signal: One of `transforms.constants.SIGNALS`.
        source: Who says so.
        estimated: Whether the source calls the value an estimate; none is if left out.
        minutes: How long intervals last; if left out, each lasts until the next one
            (`compute_interval_ends`).

    Returns:
        zone, valid_from, valid_to, signal, intensity_g_per_kwh, source, is_estimated, row_no.
    """

    def repeat(value: str | bool) -> pl.Series:
        return pl.repeat(value, row_no.len(), eager=True)

    table = pl.DataFrame(
        {
            "zone": zone if isinstance(zone, pl.Series) else repeat(zone),
            "valid_from": starts,
            "signal": repeat(signal),
            "intensity_g_per_kwh": values,
            "source": repeat(source),
            "is_estimated": repeat(False) if estimated is None else estimated,
            "row_no": row_no.cast(pl.Int64),
        }
    )
    if minutes is not None:
        return table.with_columns(
            valid_to=pl.col("valid_from") + pl.duration(minutes=pl.lit(minutes))
        )
    return _add_ends(table, ["zone", "signal"])


def _add_ends(table: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    series_with_ends = []
    for series in table.partition_by(keys, maintain_order=True):
        starts = series["valid_from"].unique().sort()
        ends = pl.DataFrame({"valid_from": starts, "valid_to": compute_interval_ends(starts)})
        series_with_ends.append(
            series.join(ends, on="valid_from", how="left", validate="m:1", maintain_order="left")
        )
    return pl.concat(series_with_ends)


def compute_interval_ends(starts: pl.Series) -> pl.Series:
    """End of each interval: its usual step later, or at the next start if that comes sooner.

    The usual step is the median of the steps around it. So a series may change its resolution, and
    a gap does not stretch the interval before it.

    Args:
        starts: Distinct times, sorted.
    """
    if starts.len() < 2:
        return starts.dt.offset_by("1h")
    step = starts.diff().shift(-1).dt.total_microseconds()
    step = step.fill_null(strategy="forward")
    usual = step.cast(pl.Float64).rolling_median(11, min_samples=1, center=True)
    shortest = pl.select(pl.min_horizontal(step, usual.cast(pl.Int64))).to_series()
    return starts + shortest.cast(pl.Duration("us"))


def parse_numbers(frame: pl.DataFrame, column: str, path: Path) -> pl.Series:
    """A column of texts as finite numbers; null where the text is empty.

    Raises:
        BadInput: one of them is no number, named by row and column.
    """
    text = frame[column].cast(pl.String).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    bad = number.is_null() & text.is_not_null() & (text != "")
    bad = bad | ~number.is_finite().fill_null(True)
    if bad.any():
        first = int(bad.arg_max() or 0)
        raise BadInput(
            "not a usable number",
            where=locate(path, frame["row_no"][first], column, text[first]),
            remedy=REMEDY,
        )
    return number


def parse_times(frame: pl.DataFrame, column: str, tz: str, path: Path) -> pl.Series:
    """A column of times, as text or as datetimes, in UTC.

    Args:
        frame: Holds `column`, and `row_no` for the message.
        column: The column of times.
        tz: The zone of times that carry none.
        path: The file, for the message.

    Raises:
        BadInput: one of them is no time or has no zone, named by row and column.
        UsageError: an unknown zone.
    """
    faults = RowFaults(path)
    parsed = faults.parse_times(frame, column, tz, to="_utc")
    faults.check(0)
    return parsed["_utc"]


def parse_answer_times(texts: Sequence[Any], path: Path) -> pl.Series:
    """The times of an answer in UTC; those without a zone are UTC already.

    Raises:
        BadInput: one of them is no time, named by its place in the answer.
    """
    frame = pl.DataFrame({"datetime": [None if t is None else str(t) for t in texts]})
    return parse_times(frame.cast(pl.String).with_row_index("row_no", 1), "datetime", "UTC", path)
