"""Digests of what a figure rests on: the same content gives the same digest, on any machine.

docs/verification.md says how each is made, so that it can be made without this code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import duckdb
import numpy as np
import polars as pl

from flows.warehouse.frames import stream_frames
from transforms.schema import TABLES

_INPUTS = tuple(
    f"SELECT {', '.join(table.digested)} FROM {table.name} {table.where_in_force}"
    for table in TABLES.values()
    if table.digested
)
_OUTPUTS = (
    "FROM run_footprint",
    "SELECT g.gpu_uuid, c.* EXCLUDE (gpu_key) FROM conservation AS c JOIN gpu AS g USING (gpu_key)",
)
_NULL = -(2**63)


@dataclass(frozen=True)
class Content:
    """How many rows there are, and the digest of them."""

    rows: int
    sha256: str


def digest_by_part(
    con: duckdb.DuckDBPyConnection, query: str, part: str = "''", parameters: object = None
) -> dict[str, Content]:
    """Take the digests of a query's rows, one for each value of a part.

    Each row becomes a JSON object, the digests of these are sorted, and the digest of all of them
    one after the other is the result: it depends on no order.

    Args:
        con: An open connection.
        query: The rows.
        part: SQL expression over the columns of the query, by whose values the rows are divided.
        parameters: Of the query.
    """
    counts: dict[str, int] = {}
    digests: dict[str, hashlib._Hash] = {}
    rows = (
        f"SELECT {part}::VARCHAR AS part, sha256(to_json(t)::VARCHAR) AS digest "
        f"FROM ({query}) AS t ORDER BY ALL"
    )
    for frame in stream_frames(con, rows, parameters):
        for (value,), group in frame.group_by("part", maintain_order=True):
            name = str(value)
            counts[name] = counts.get(name, 0) + group.height
            digests.setdefault(name, hashlib.sha256()).update("".join(group["digest"]).encode())
    return {name: Content(counts[name], digest.hexdigest()) for name, digest in digests.items()}


def digest_rows(con: duckdb.DuckDBPyConnection, query: str, parameters: object = None) -> Content:
    """Take the digest of the rows of a query."""
    empty = Content(0, hashlib.sha256().hexdigest())
    return digest_by_part(con, query, parameters=parameters).get("", empty)


def digest_readings(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[int, Content]]:
    """Take the digests of readings by segment, in order of segments.

    A row is its columns as 64-bit integers (little-endian; times in microseconds since 1970, null as
    the smallest integer); the digest goes over the rows of a segment as they follow one another.

    Args:
        con: An open connection.
        query: Rows of whole numbers and times with a column `segment_key`, ordered by it.

    Yields:
        Segment keys, each with its digest.
    """
    key, count, digest = None, 0, hashlib.sha256()
    for frame in stream_frames(con, query):
        if frame.is_empty():
            continue
        keys = frame["segment_key"].to_numpy()
        numbers = frame.select(pl.all().to_physical().cast(pl.Int64).fill_null(_NULL)).to_numpy()
        rows = np.ascontiguousarray(numbers, dtype="<i8")
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            if key is not None and keys[start] != key:
                yield key, Content(count, digest.hexdigest())
                count, digest = 0, hashlib.sha256()
            key = int(keys[start])
            digest.update(rows[start:end].data)
            count += int(end - start)
    if key is not None:
        yield key, Content(count, digest.hexdigest())


def digest_inputs(con: duckdb.DuckDBPyConnection) -> str:
    """Take the digest of the readings, grid files (by content), runs, GPUs and sites that are in force."""
    return digest_text(*(digest_rows(con, query).sha256 for query in _INPUTS))


def digest_factors(con: duckdb.DuckDBPyConnection) -> str:
    """Take the digest of the factors in force."""
    return digest_rows(con, "FROM factor").sha256


def digest_outputs(con: duckdb.DuckDBPyConnection) -> str:
    """Take the digest of the figures of the candidate."""
    return digest_text(*(digest_rows(con, query).sha256 for query in _OUTPUTS))


def digest_settings(recorded: Mapping[str, str]) -> str:
    """Take the digest of what is recorded of wattledger.toml, by section."""
    return digest_text(*(f"{section} {value}" for section, value in sorted(recorded.items())))


@cache
def digest_code() -> str:
    """Take the digest of the source files of the packages that read, compute and check, wherever they lie.

    A file that moves as it is leaves this digest as it was; one whose imports follow a move does not.
    """
    files = [
        file
        for package in ("flows", "transforms", "expectations", "sql", "wattledger")
        for file in _read_sources(resources.files(package))
    ]
    return digest_text(*sorted(hashlib.sha256(data).hexdigest() for data in files))


def _read_sources(folder: Traversable) -> Iterator[bytes]:
    for item in folder.iterdir():
        # In a clone, the package `wattledger` lies inside `flows`.
        if item.is_dir() and item.name != "node":
            yield from _read_sources(item)
        elif item.name.endswith((".py", ".sql", ".csv", ".toml", ".j2")):
            yield item.read_bytes()


def digest_text(*parts: str) -> str:
    """Take the digest of strings, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
