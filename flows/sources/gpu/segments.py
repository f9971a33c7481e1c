"""Segments: the Parquet files that the collector and the sample generators write."""

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
_MOST_INT, _MOST_US = (1 << 31) - 1, 1 << 53
"""Largest integer of a column, and time in microseconds since 1970 (the year 2255), that metadata may have."""
COLUMNS = {name: dtype for name, dtype in STAGED.items() if name != "row_no"}
"""Columns of a segment, ordered by (gpu_uuid, ts), so that each GPU is contiguous."""
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
    """Write readings as a segment.

    Args:
        readings: COLUMNS, in order; missing ones become null.
        path: Where to.
        sample: The readings were made up, and figures from them say so.
    """
    fill_columns(readings, COLUMNS).write_parquet(
        path, metadata={SAMPLE_KEY: "true" if sample else "false"}, row_group_size=1 << 20
    )


def read(path: Path, staged: Staged) -> Staged:
    """Take a segment as it is; its values stay where they are, and the gate reads them there.

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
        expected = COLUMNS.get(name)
        if expected is not None and not _fits(dtype, expected):
            raise BadInput(
                f"column {name!r} is {dtype}, not {expected}",
                where=str(path),
                remedy="See docs/formats.md",
            )
    staged.collector, staged.events = _read_collector_metadata(metadata, path)
    if rows == 0 and not staged.events:
        raise BadInput("the segment holds no reading", where=str(path), remedy="Record again")
    staged.format, staged.path, staged.own, staged.readings = FORMAT, path, True, rows
    staged.sample = metadata.get(SAMPLE_KEY.encode()) == b"true"
    staged.columns = _find_columns_with_values(file.metadata)
    return staged


def _find_columns_with_values(metadata: Any) -> frozenset[str]:
    """Columns that are not null throughout, as far as a Parquet file says."""
    columns = set()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count or statistics.num_values:
                columns.add(column.path_in_schema)
    return frozenset(columns)


def _read_collector_metadata(
    metadata: dict[bytes, bytes], path: Path
) -> tuple[str | None, list[dict[str, Any]]]:
    """What the collector says of itself, and its events, from the metadata of a segment."""
    try:
        collector = metadata[COLLECTOR_KEY.encode()].decode()
        events = json.loads(metadata.get(EVENTS_KEY.encode(), b"[]"))
        told = json.loads(collector)
        gpus = told["gpus"]
        if not isinstance(told.get("host", "" if not gpus else None), str):
            raise TypeError("it names no host")
        period_ms = told.get("period_ms")
        if period_ms is not None and not _is_whole(period_ms, 1):
            raise TypeError(f"period_ms {period_ms!r}")
        for event in events:
            texts = event["event"], event.get("detail", ""), event.get("gpu_uuid") or ""
            is_sound = _is_whole(event["ts_us"], 0, _MOST_US)
            if not is_sound or not all(isinstance(text, str) for text in texts):
                raise TypeError(event)
        for gpu in gpus:
            if not _is_whole(gpu["index"], -1) or not isinstance(gpu["uuid"], str):
                raise TypeError(gpu)
            if not isinstance(gpu["model"], str | None):
                raise TypeError(gpu)
            for instance in gpu["instances"]:
                if not isinstance(instance["uuid"], str) or not _is_whole(instance["share_ppm"]):
                    raise TypeError(instance)
                if not 0 < instance["share_ppm"] <= PPM:
                    raise ValueError(f"share {instance['share_ppm']} of {instance['uuid']}")
    except KeyError as missing:
        if COLLECTOR_KEY.encode() not in metadata:
            return None, []
        raise _damaged_error(path, f"no {missing}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged_error(path, str(error)[:200]) from None
    return collector, events


def _is_whole(value: object, least: int = 0, most: int = _MOST_INT) -> bool:
    return type(value) is int and least <= value <= most


def _damaged_error(path: Path, what: str) -> BadInput:
    return BadInput(
        f"the collector's metadata is damaged: {what}",
        where=str(path),
        remedy="Copy the file again; the readings alone can be saved without the metadata",
    )


def is_host_segment(path: Path) -> bool:
    """Whether a Parquet file holds energy of CPU and memory rather than GPU readings."""
    try:
        return {"component", "span_us"} <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError):
        return False


def _fits(dtype: pl.DataType, expected: pl.DataType) -> bool:
    if expected.is_integer():
        return dtype.is_integer()
    if expected == pl.String:
        return dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    return isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
