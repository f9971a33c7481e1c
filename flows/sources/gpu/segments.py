"""Our own Parquet segments: what the collector and the generator write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from flows.errors import BadInput
from flows.sources.gpu.staged import STAGED, Staged, fill_columns
from transforms.constants import PPM
from wattledger.spool.spool import COLLECTOR_KEY, EVENTS_KEY, SAMPLE_KEY

FORMAT = "segment"
COLUMNS = {name: dtype for name, dtype in STAGED.items() if name != "row_no"}
"""Columns of a segment, ordered by (gpu_uuid, ts), each GPU in one piece."""
REQUIRED = ("gpu_uuid", "host", "ts", "power_mw", "power_source")
HOST_COLUMNS = {
    "host": pl.String(),
    "ts": pl.Datetime("us", "UTC"),
    "span_us": pl.Int64(),
    "component": pl.String(),
    "energy_mj": pl.Int64(),
    "is_modelled": pl.Boolean(),
    "method": pl.String(),
}
"""Columns of the collector's other segments: energy of CPU and memory by interval."""


def write(readings: pl.DataFrame, path: Path, *, sample: bool = False) -> None:
    """Write readings (COLUMNS, already in order) as a segment."""
    fill_columns(readings, COLUMNS).write_parquet(
        path, metadata={SAMPLE_KEY: "true" if sample else "false"}, row_group_size=1 << 20
    )


def read(path: Path, staged: Staged) -> Staged:
    """Take a segment as it is; the gate reads its values where they lie.

    Raises:
        BadInput: not Parquet, damaged, or not in the columns of a segment.
    """
    try:
        file = pq.ParquetFile(path)
        empty = pl.from_arrow(file.schema_arrow.empty_table())
        assert isinstance(empty, pl.DataFrame)
        schema = empty.schema
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
    staged.collector, staged.events = _collector(metadata, path)
    if rows == 0 and not staged.events:
        raise BadInput("the segment holds no reading", where=str(path), remedy="Record again")
    staged.format, staged.path, staged.own, staged.rows_read = FORMAT, path, True, rows
    staged.sample = metadata.get(SAMPLE_KEY.encode()) == b"true"
    staged.columns = _with_values(file.metadata)
    return staged


def _with_values(metadata: Any) -> frozenset[str]:
    """Columns that are not null throughout, as far as a Parquet file says."""
    found = set()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            known = column.statistics
            if known is None or not known.has_null_count or known.num_values:
                found.add(column.path_in_schema)
    return frozenset(found)


def _collector(metadata: dict[bytes, bytes], path: Path) -> tuple[str | None, list[dict[str, Any]]]:
    """What the collector left in a segment's metadata, checked."""
    try:
        said = metadata[COLLECTOR_KEY.encode()].decode()
        events = json.loads(metadata.get(EVENTS_KEY.encode(), b"[]"))
        gpus = json.loads(said)["gpus"]
        for event in events:
            if not isinstance(event["ts_us"], int) or not isinstance(event["event"], str):
                raise TypeError(event)
        for gpu in gpus:
            for instance in gpu["instances"]:
                if not 0 < instance["share_ppm"] <= PPM:
                    raise ValueError(f"share {instance['share_ppm']} of {instance['uuid']}")
    except KeyError as missing:
        if COLLECTOR_KEY.encode() not in metadata:
            return None, []
        raise _damaged(path, f"no {missing}") from None
    except (ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from None
    return said, events


def _damaged(path: Path, what: str) -> BadInput:
    return BadInput(
        f"the collector's metadata is damaged: {what}",
        where=str(path),
        remedy="Copy the file again; the readings alone can be saved without the metadata",
    )


def is_host_segment(path: Path) -> bool:
    """Whether a Parquet file holds energy of CPU and memory rather than GPU readings."""
    try:
        return {"component", "span_us"} <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def _fits(given: pl.DataType, wanted: pl.DataType) -> bool:
    if wanted.is_integer():
        return given.is_integer()
    if wanted == pl.String:
        return given == pl.String or isinstance(given, pl.Categorical | pl.Enum)
    return isinstance(given, pl.Datetime) and given.time_zone is not None
