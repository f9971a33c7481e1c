"""What every file and answer of grid data becomes: intervals of series, in UTC, each once and each believable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from flows.errors import BadInput
from flows.rows import MAX_BAD_SHARE, RowFaults
from transforms.constants import FILE_FEED

GRAMS_PER_KWH = {"g": 1.0, "kg": 1000.0, "lb_per_mwh": 0.45359237}
"""What one unit of intensity is in g/kWh (1 lb = 453.59237 g)."""
UNIT_NAMES = {"g": "g/kWh", "kg": "kg/kWh", "lb_per_mwh": "lb/MWh"}

MAX_KW = 500_000_000
"""The largest believable generation of one fuel: 500 GW."""
_LONGEST = pl.duration(days=31)
"""The longest interval of a series."""
_HOUR_US = 3_600_000_000
_STEPS = 3
"""How often a step longer than an hour must follow itself to be a resolution, and no gap."""


@dataclass(frozen=True)
class Limits:
    """What is believed of a file: thresholds of wattledger.toml."""

    max_bad_share: float = MAX_BAD_SHARE
    max_g_per_kwh: float = 3000
    """The largest believable intensity."""

    def collect(self, path: Path) -> RowFaults:
        """An empty collection of a file's bad rows."""
        return RowFaults(path, self.max_bad_share)


@dataclass(frozen=True)
class GridData:
    """What a file held: intensities, or a generation mix; `row_no` is the row in the file."""

    layout: str
    faults: RowFaults
    intensity: pl.DataFrame | None = None
    mix: pl.DataFrame | None = None
    duplicates: int = 0
    unit: str = ""
    """Unit of the values as they were read."""
    feed: str = FILE_FEED
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> pl.DataFrame:
        """The intensities or the mix, whichever it is."""
        rows = self.intensity if self.mix is None else self.mix
        assert rows is not None
        return rows

    @property
    def rows_read(self) -> int:
        """Values that the file holds, or should hold."""
        skipped = sum(self.faults.skipped.values())
        return self.rows.height + self.duplicates + skipped + self.faults.count

    def with_duplicates(self, count: int) -> GridData:
        """The same, with further rows that repeat others exactly."""
        return replace(self, duplicates=self.duplicates + count)


def build_grid_data(
    layout: str,
    table: pl.DataFrame,
    faults: RowFaults,
    rows: int,
    *,
    unit: str,
    limits: Limits,
    warnings: Sequence[str] = (),
    doubled: int = 0,
) -> GridData:
    """What was read, each interval once; what contradicts itself or cannot be is set aside.

    Args:
        layout: The name of the layout.
        table: A generation mix if it has a column `fuel`, else intensities; `row_no` says where
            each value stands and does not count as one.
        faults: The bad rows so far.
        rows: Rows of the file, the bad ones included.
        unit: Unit of the values as they were read, for people.
        limits: What is believed.
        warnings: What the answer itself warns of.
        doubled: Intervals that were found to be given twice before.

    Raises:
        BadInput: too many rows are bad, or none holds a value.
    """
    is_mix = "fuel" in table.columns
    value = "generation_kw" if is_mix else "intensity_g_per_kwh"
    low, high = (-MAX_KW, MAX_KW) if is_mix else (0, limits.max_g_per_kwh)
    table = _drop_unbelievable(table, faults, value, low, high)
    filled = table.drop_nulls(value)
    faults.skip("without a value", table.height - filled.height)
    columns = [name for name in filled.columns if name != "row_no"]
    unique = filled.unique(columns, keep="first", maintain_order=True)
    keys = ["zone", "fuel" if is_mix else "signal"]
    kept, contradicted = _drop_contradictions(unique, faults, keys)
    # A row that is set aside for one of its values gives no other.
    whole = kept.join(faults.rows.select("row_no"), on="row_no", how="anti", maintain_order="left")
    faults.skip("on rows that were set aside", kept.height - whole.height)
    faults.check(rows, contradicted + doubled)
    if whole.is_empty():
        raise BadInput(
            f"none of {rows:,} rows has a value" if rows else "it holds no values",
            where=str(faults.path),
            remedy="Ask the provider for another zone or time",
        )
    return GridData(
        layout,
        faults,
        None if is_mix else whole,
        whole if is_mix else None,
        filled.height - unique.height,
        unit,
        warnings=list(warnings),
    )


def _drop_unbelievable(
    table: pl.DataFrame, faults: RowFaults, value: str, low: float, high: float
) -> pl.DataFrame:
    what = "generation" if value == "generation_kw" else "intensity"
    unit = "kW" if value == "generation_kw" else "g/kWh"
    table = faults.drop(
        table,
        ~pl.col(value).is_between(low, high),
        f"the {what} does not lie between {low:,g} and {high:,g} {unit}",
        value=value,
        remedy="Check the unit (--unit)",
    )
    length = pl.col("valid_to") - pl.col("valid_from")
    table = faults.drop(
        table,
        length <= pl.duration(),
        "the interval does not end after it starts",
        value="valid_to",
        remedy="Check the time columns and --tz",
    )
    return faults.drop(
        table, length > _LONGEST, "the interval is longer than 31 days", value="valid_to"
    )


def _drop_contradictions(
    table: pl.DataFrame, faults: RowFaults, keys: Sequence[str]
) -> tuple[pl.DataFrame, int]:
    """Set aside intervals that are given twice with two values, or that overlap; and count the places."""
    ordered = table.with_row_index("place").sort(
        *keys, "valid_from", "valid_to", maintain_order=True
    )
    same = (pl.col("valid_from") == pl.col("valid_from").shift(1)).over(keys).fill_null(False)
    marked = ordered.with_columns(again=same).with_columns(
        twice=pl.col("again") | pl.col("again").shift(-1).over(keys).fill_null(False)
    )
    repeats = marked.filter("again")["row_no"].n_unique()
    table = faults.drop(
        marked,
        pl.col("twice"),
        "the interval is given twice, with two values",
        value="valid_from",
        remedy="Check --tz (an hour that the clock repeats looks doubled in local time), or remove "
        "one of the two rows",
    )
    over = (pl.col("valid_from").shift(-1) < pl.col("valid_to")).over(keys).fill_null(False)
    marked = table.with_columns(over=over)
    overlaps = marked.filter("over")["row_no"].n_unique()
    kept = faults.drop(
        marked,
        pl.col("over") | pl.col("over").shift(1).over(keys).fill_null(False),
        "the interval overlaps another",
        value="valid_from",
        remedy="Check the end of the intervals, and remove one of the two rows",
    )
    columns = ["place", "again", "twice", "over"]
    return kept.sort("place").drop(columns), repeats + overlaps


def build_intensities(
    frame: pl.DataFrame,
    value: str,
    *,
    zone: str,
    signal: str,
    source: str,
    grams: float = 1.0,
    zone_column: str = "",
    estimated: str = "",
    length: pl.Expr | None = None,
) -> pl.DataFrame:
    """A table of intensities from parsed columns.

    Args:
        frame: row_no, `valid_from` (UTC) and the columns named here; `valid_to`, where it is known.
        value: Column of numbers.
        zone: Grid zone, where `zone_column` does not tell it.
        signal: One of `transforms.constants.SIGNALS`.
        source: Who says so.
        grams: What one unit of the value is in g/kWh.
        zone_column: Column of zones.
        estimated: Column (Boolean) that says whether the source calls the value an estimate; none is
            if left out.
        length: How long intervals last; if left out, each lasts until the next one
            (`compute_interval_ends`).

    Returns:
        zone, valid_from, valid_to, signal, intensity_g_per_kwh, source, is_estimated, row_no; rows
        without a value have none.
    """
    table = frame.select(
        zone=pl.col(zone_column) if zone_column and not zone else pl.lit(zone),
        valid_from="valid_from",
        signal=pl.lit(signal),
        intensity_g_per_kwh=pl.col(value) * grams,
        source=pl.lit(source),
        is_estimated=pl.col(estimated).fill_null(False) if estimated else pl.lit(False),
        row_no=pl.col("row_no").cast(pl.Int64),
        valid_to=(
            pl.col("valid_to")
            if "valid_to" in frame.columns
            else pl.lit(None, pl.Datetime("us", "UTC"))
            if length is None
            else pl.col("valid_from") + length
        ),
    )
    return add_ends(table, ["zone", "signal"])


def add_ends(table: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Fill in `valid_to` where it is null: the end as `compute_interval_ends` has it."""
    if not table.height or not table["valid_to"].has_nulls():
        return table
    series_with_ends = []
    for series in table.partition_by(keys, maintain_order=True):
        starts = series["valid_from"].unique().sort()
        ends = pl.DataFrame({"valid_from": starts, "end": compute_interval_ends(starts)})
        series_with_ends.append(
            series.join(ends, on="valid_from", how="left", validate="m:1", maintain_order="left")
        )
    filled = pl.concat(series_with_ends)
    return filled.with_columns(pl.coalesce("valid_to", "end").alias("valid_to")).drop("end")


def compute_interval_ends(starts: pl.Series) -> pl.Series:
    """End of each interval: a step of its series later, so that a gap does not stretch the interval before it.

    A step is a gap, and its interval as long as those beside it, where it is longer than these and
    stands alone, or is one of two among shorter ones. So a series may change its resolution. Nothing
    longer than an hour counts as a resolution, unless it comes three times in a row.

    Args:
        starts: Distinct times, sorted; those without a value too.
    """
    if starts.len() < 2:
        return starts.dt.offset_by("1h")
    steps = starts.diff().dt.total_microseconds().slice(1)
    runs = steps.rle().struct.unnest()
    step, before, after = pl.col("value"), pl.col("value").shift(1), pl.col("value").shift(-1)
    after_longer, before_longer = ((side < step).fill_null(False) for side in (after, before))
    alone = (pl.col("len") == 1) & (before_longer | after_longer)
    is_gap = alone | ((pl.col("len") == 2) & before_longer & after_longer)
    length = pl.when(is_gap).then(pl.min_horizontal(before, after)).otherwise(step)
    settled = runs.select(
        pl.when((length > _HOUR_US) & (pl.col("len") < _STEPS))
        .then(pl.lit(_HOUR_US))
        .otherwise(length)
        .repeat_by("len")
        .explode()
    ).to_series()
    lengths = pl.concat([settled, settled.tail(1)]).cast(pl.Int64)
    return starts + lengths.cast(pl.Duration("us"))
