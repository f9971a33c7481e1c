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
_BATCH = 1 << 18
_NULL = -(2**63)


@dataclass(frozen=True)
class Content:
    """How many rows there are, and the digest of them."""

    rows: int
    sha256: str


def digest_by_part(
    con: duckdb.DuckDBPyConnection, query: str, part: str = "''", values: object = None
) -> dict[str, Content]:
    """Digests of the rows of a query, apart for each value of the SQL expression `part`.

    Each row becomes a JSON object, the digests of these are sorted, and the digest of all of them
    one after the other is the result: it depends on no order.
    """
    found: dict[str, tuple[int, hashlib._Hash]] = {}
    result = con.execute(
        f"SELECT {part}::VARCHAR AS part, sha256(to_json(t)::VARCHAR) AS digest "
        f"FROM ({query}) AS t ORDER BY ALL",
        values,
    )
    for batch in result.to_arrow_reader(_BATCH):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        for (name,), rows in frame.group_by("part", maintain_order=True):
            count, digest = found.get(str(name), (0, hashlib.sha256()))
            digest.update("".join(rows["digest"]).encode())
            found[str(name)] = (count + rows.height, digest)
    return {name: Content(count, digest.hexdigest()) for name, (count, digest) in found.items()}


def digest_rows(con: duckdb.DuckDBPyConnection, query: str, values: object = None) -> Content:
    """The digest of the rows of a query."""
    return digest_by_part(con, query, values=values).get(
        "", Content(0, hashlib.sha256().hexdigest())
    )


def digest_readings(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[int, Content]]:
    """Digests of readings by segment, from rows of whole numbers and times, in order of segments.

    A row is its columns as 64-bit integers (little-endian; times in microseconds since 1970, null as
    the smallest integer); the digest goes over the rows of a segment as they follow one another.
    """
    key, count, digest = None, 0, hashlib.sha256()
    for batch in con.execute(query).to_arrow_reader(_BATCH):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
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
    """Readings, grid files (by content), runs, GPUs and sites that are in force."""
    return digest_text(*(digest_rows(con, query).sha256 for query in _INPUTS))


def digest_factors(con: duckdb.DuckDBPyConnection) -> str:
    """The factors in force."""
    return digest_rows(con, "FROM factor").sha256


def digest_outputs(con: duckdb.DuckDBPyConnection) -> str:
    """The figures of the candidate."""
    return digest_text(*(digest_rows(con, query).sha256 for query in _OUTPUTS))


def digest_settings(recorded: Mapping[str, str]) -> str:
    """What is recorded of wattledger.toml, by section."""
    return digest_text(*(f"{section} {value}" for section, value in sorted(recorded.items())))


@cache
def digest_code() -> str:
    """The source files of the packages that read, compute and check: what they say, not where they lie.

    A file that moves as it is leaves this digest as it was; one whose imports follow a move does not.
    """
    files = [
        file
        for package in ("flows", "transforms", "expectations", "sql", "wattledger")
        for file in _sources(resources.files(package))
    ]
    return digest_text(*sorted(hashlib.sha256(data).hexdigest() for data in files))


def _sources(folder: Traversable) -> Iterator[bytes]:
    for item in folder.iterdir():
        # In a clone, the package `wattledger` lies inside `flows`.
        if item.is_dir() and item.name != "node":
            yield from _sources(item)
        elif item.name.endswith((".py", ".sql", ".csv", ".toml", ".j2")):
            yield item.read_bytes()


def digest_text(*parts: str) -> str:
    """Digest of strings, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
