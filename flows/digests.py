"""Digests of what a figure rests on: the same content gives the same digest, on any machine."""

from __future__ import annotations

import hashlib
import json

import duckdb

METHOD_VERSION = "4"
"""Version of docs/method.md; raised when a formula changes."""

_INPUTS = (
    "SELECT segment_id FROM segment WHERE verdict = 'loaded' ORDER BY ALL",
    "SELECT * EXCLUDE (loaded_at, superseded_at, source_name) FROM training_run "
    "WHERE superseded_at IS NULL ORDER BY ALL",
    "SELECT * EXCLUDE (loaded_at, superseded_at) FROM run_allocation "
    "WHERE superseded_at IS NULL ORDER BY ALL",
    "SELECT gpu_uuid, host, gpu_index, model FROM gpu ORDER BY ALL",
    "FROM site ORDER BY ALL",
    "FROM zone ORDER BY ALL",
    "FROM contract ORDER BY ALL",
    "FROM contract_delivery ORDER BY ALL",
    "FROM tariff ORDER BY ALL",
    "FROM host ORDER BY ALL",
)
_OUTPUTS = (
    "FROM run_footprint ORDER BY ALL",
    "SELECT g.gpu_uuid, c.* EXCLUDE (gpu_key) FROM conservation AS c JOIN gpu AS g USING (gpu_key) "
    "ORDER BY ALL",
)


def _digest(con: duckdb.DuckDBPyConnection, queries: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for query in queries:
        result = con.execute(query)
        digest.update(json.dumps([column[0] for column in result.description or []]).encode())
        while chunk := result.fetchmany(10_000):
            for row in chunk:
                digest.update(json.dumps(row, default=str).encode() + b"\n")
    return digest.hexdigest()


def inputs(con: duckdb.DuckDBPyConnection) -> str:
    """Readings, grid files (by content), runs, GPUs and sites that are in force."""
    return _digest(con, _INPUTS)


def factors(con: duckdb.DuckDBPyConnection) -> str:
    """The factors in force."""
    return _digest(con, ("FROM factor ORDER BY ALL",))


def outputs(con: duckdb.DuckDBPyConnection) -> str:
    """The figures of the candidate."""
    return _digest(con, _OUTPUTS)


def text(*parts: str) -> str:
    """Digest of strings, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
