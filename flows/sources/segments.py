"""Our own Parquet segments: what the collector and the generator write."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from flows.errors import BadInput
from flows.sources.staged import STAGED, Staged

FORMAT = "segment"
COLUMNS = {name: dtype for name, dtype in STAGED.items() if name != "row_no"}
"""Columns of a segment, ordered by (gpu_uuid, ts), each GPU in one piece."""
REQUIRED = ("gpu_uuid", "host", "ts", "power_mw", "power_source")
SAMPLE_KEY = "wattledger.sample"
"""Parquet metadata: `true` marks readings of the generator."""


def write(readings: pl.DataFrame, path: Path, *, sample: bool = False) -> None:
    """Write readings (COLUMNS, already in order) as a segment."""
    readings.select(list(COLUMNS)).write_parquet(
        path, metadata={SAMPLE_KEY: "true" if sample else "false"}, row_group_size=1 << 20
    )


def read(path: Path, staged: Staged) -> Staged:
    """Take a segment as it is; the gate reads its values where they lie.

    Raises:
        BadInput: not Parquet, damaged, or not in the columns of a segment.
    """
    try:
        schema = pl.read_parquet_schema(path)
        file = pq.ParquetFile(path)
        rows = file.metadata.num_rows
        metadata = file.metadata.metadata or {}
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise BadInput(
            f"not a Parquet file: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="Copy the file again",
        ) from None
    for name in REQUIRED:
        if name not in schema:
            raise BadInput(
                f"no column {name!r}",
                where=str(path),
                remedy="Segments have the columns of docs/formats.md; map other Parquet files "
                "under [sources.NAME] and pass --source NAME",
            )
    for name, dtype in schema.items():
        wanted = COLUMNS.get(name)
        if wanted is not None and not _fits(dtype, wanted):
            raise BadInput(
                f"column {name!r} is {dtype}, not {wanted}",
                where=str(path),
                remedy="See docs/formats.md",
            )
    if rows == 0:
        raise BadInput("the segment holds no reading", where=str(path), remedy="Record again")
    staged.format, staged.path, staged.own, staged.rows_read = FORMAT, path, True, rows
    staged.sample = metadata.get(SAMPLE_KEY.encode()) == b"true"
    return staged


def _fits(given: pl.DataType, wanted: pl.DataType) -> bool:
    if wanted.is_integer():
        return given.is_integer()
    if wanted == pl.String:
        return given == pl.String or isinstance(given, pl.Categorical | pl.Enum)
    return isinstance(given, pl.Datetime) and given.time_zone is not None
