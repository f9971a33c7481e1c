"""Generation by fuel from what any provider lists: types that share a fuel added up, intervals of one length."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from flows.errors import BadInput
from flows.rows import RowFaults
from flows.sources.grid.series import MAX_KW, GridData, Limits, build_grid_data

_MOST_ROWS = 5_000_000
"""Rows that one mix may come to: ten years of quarter hours of fourteen fuels."""
_SENTINEL = r"^-?9{5,}(\.0*)?$|^-9{3,}(\.0*)?$"
"""Numbers that stand for a missing value."""


def parse_megawatts(
    faults: RowFaults, frame: pl.DataFrame, column: str, *, to: str, field: str = ""
) -> pl.DataFrame:
    """Parse a column of generation; values that stand for missing ones (99999, -999) are set aside.

    Args:
        faults: Collects the bad rows.
        frame: row_no and `column`.
        column: The texts.
        to: Name of the new column.
        field: What the file calls the column.

    Returns:
        The good rows, with `to` (Float64, null where there is no value).
    """
    text = pl.col(column).cast(pl.String).str.strip_chars()
    frame = faults.drop(
        frame,
        text.str.contains(_SENTINEL),
        "a number that stands for a missing value",
        field=field or column,
        value=column,
        remedy="Leave the field empty",
    )
    return faults.parse_numbers(frame, column, to=to, field=field)


def build_mix(
    layout: str,
    rows: pl.DataFrame,
    faults: RowFaults,
    count: int,
    *,
    limits: Limits,
    unit: str,
    warnings: Sequence[str] = (),
) -> GridData:
    """A generation mix from rows of production types.

    Args:
        layout: The name of the layout.
        rows: zone, valid_from, valid_to, fuel, `type` (what the provider calls it), kilowatts (null where
            there is no value), source, is_estimated, row_no.
        faults: The bad rows so far.
        count: Rows of the file, the bad ones included.
        limits: What is believed.
        unit: Unit of the values as they were read.
        warnings: What the answer itself warns of.

    Raises:
        BadInput: too many rows are bad, none holds a value, or there are too many.
    """
    rows = faults.drop(
        rows,
        pl.col("kilowatts").abs() > MAX_KW,
        f"more than {MAX_KW // 1_000_000:,} GW of one type",
        value="kilowatts",
        remedy="Check the unit (--unit MW or kW)",
    )
    given = _leave_out_missing(rows, faults)
    exact = given.unique(
        [name for name in given.columns if name != "row_no"], keep="first", maintain_order=True
    )
    whole, doubled = _drop_doubled(exact, faults)
    table = _cut_to_shortest(whole, faults)
    keys = ["zone", "valid_from", "valid_to", "fuel", "source", "is_estimated"]
    mix = table.group_by(keys, maintain_order=True).agg(
        generation_kw=pl.col("kilowatts").sum().round().cast(pl.Int64),
        row_no=pl.col("row_no").min(),
    )
    faults.skip("added to others of the same fuel", table.height - mix.height)
    data = build_grid_data(
        layout, mix, faults, count, unit=unit, limits=limits, warnings=warnings, doubled=doubled
    )
    return data.with_duplicates(given.height - exact.height)


def _leave_out_missing(rows: pl.DataFrame, faults: RowFaults) -> pl.DataFrame:
    """Rows that have a value; a type that has none at all is one that the zone does not have."""
    given = rows.drop_nulls("kilowatts")
    gaps = rows.join(given.select("type").unique(), on="type", how="semi").height - given.height
    faults.skip("without a value", gaps)
    return given


def _drop_doubled(rows: pl.DataFrame, faults: RowFaults) -> tuple[pl.DataFrame, int]:
    """Set aside what an interval has twice of one type, and all of a row that is; count the intervals.

    Two types of one fuel add up; one type twice contradicts itself.
    """
    keys = ["zone", "type", "valid_from", "valid_to"]
    twice = pl.len().over(keys) > 1
    doubled = rows.filter(twice).select(keys).unique().height
    sound = faults.drop(
        rows,
        twice,
        "the interval is given twice, with two values",
        value="valid_from",
        remedy="Check --tz, or remove one of the two rows",
    )
    whole = sound.join(faults.rows.select("row_no"), on="row_no", how="anti", maintain_order="left")
    faults.skip("on rows that were set aside", sound.height - whole.height)
    return whole, doubled


def _cut_to_shortest(table: pl.DataFrame, faults: RowFaults) -> pl.DataFrame:
    """Cut longer intervals into the shortest of their zone: power is the same in every part."""
    length = pl.col("valid_to") - pl.col("valid_from")
    table = faults.drop(
        table,
        (length <= pl.duration()) | (length > pl.duration(days=31)),
        "the interval does not end after it starts, or is longer than 31 days",
        value="valid_to",
    )
    shortest = length.min().over("zone")
    parts = table.select(parts=(length / shortest).floor().cast(pl.Int64)).to_series()
    if parts.sum() > _MOST_ROWS:
        raise BadInput(
            f"it comes to {parts.sum():,} values in intervals of the shortest length",
            where=str(faults.path),
            remedy="Split the file by time",
        )
    if (parts == 1).all():
        return table
    return (
        table.with_columns(shortest=shortest, part=pl.int_ranges(parts))
        .explode("part")
        .with_columns(valid_from=pl.col("valid_from") + pl.col("shortest") * pl.col("part"))
        .with_columns(valid_to=pl.col("valid_from") + pl.col("shortest"))
        .drop("shortest", "part")
    )
