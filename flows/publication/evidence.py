"""What figures rest on and a publication does not hold itself: readings and grid data, by digest.

The warehouse keeps every revision with its times, so it can be asked for what it held when a
publication was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb
import polars as pl

from flows.warehouse.digests import Content, digest_by_part, digest_readings
from flows.warehouse.frames import insert
from flows.warehouse.locks import FIGURES, transaction
from transforms.schema import TABLES, that_change

GPU_READINGS, HOST_READINGS, GPU_PIECES = "gpu_reading", "host_reading", "gpu_piece"
BY_SEGMENT = that_change("by_roll_up")
"""Tables whose rows belong to a segment and are never changed, only rolled up."""

_KNOWN_SINCE = {name: TABLES[name].known_since for name in that_change("by_revision")}
"""Tables whose rows are never changed but superseded -> since when a row is known."""
TABLES_KEPT = (*BY_SEGMENT, *_KNOWN_SINCE)
"""Tables of the warehouse that hold what figures rest on."""


def select_as_known(table: str, schema: str = "main") -> str:
    """SQL for the rows of a table as they were known at the time `$as_of`."""
    if table in BY_SEGMENT:
        loaded = f"SELECT segment_key FROM {schema}.segment WHERE loaded_at <= $as_of"
        # In the order in which they are stored: computing needs no sort then.
        return f"SELECT * FROM {schema}.{table} WHERE segment_key IN ({loaded}) ORDER BY rowid"
    return (
        "SELECT * REPLACE (CASE WHEN superseded_at <= $as_of THEN superseded_at END AS superseded_at) "
        f"FROM {schema}.{table} WHERE {_KNOWN_SINCE[table]} <= $as_of"
    )


def digest_segments(
    con: duckdb.DuckDBPyConnection, table: str, where: str = "true", schema: str = "main"
) -> dict[int, Content]:
    """Take the digests of stored readings.

    Args:
        con: A connection that has them.
        table: One of `BY_SEGMENT`.
        where: SQL condition on its rows.
        schema: Where the table is.

    Returns:
        By segment key.
    """
    columns = ", ".join(TABLES[table].columns)
    query = f"SELECT {columns} FROM {schema}.{table} WHERE {where}"
    if table == GPU_READINGS:
        return dict(digest_readings(con, f"{query} ORDER BY segment_key, gpu_key, ts"))
    digests = digest_by_part(con, query, "segment_key")
    return {int(key): content for key, content in digests.items()}


def digest_revisions(
    con: duckdb.DuckDBPyConnection, as_of: datetime, schema: str = "main"
) -> dict[tuple[str, str], Content]:
    """Take the digests of what else figures rest on: grid data, runs and allocations.

    Args:
        con: A connection that has them.
        as_of: They are digested as they were known then.
        schema: Where the tables are.

    Returns:
        By table and part.
    """
    return {
        (table, part): content
        for table in _KNOWN_SINCE
        for part, content in digest_by_part(
            con, select_as_known(table, schema), TABLES[table].part or "''", {"as_of": as_of}
        ).items()
    }


def record_new_segments(con: duckdb.DuckDBPyConnection) -> None:
    """Write the digests of stored readings that have none yet; later ones are compared with these."""
    for table in (GPU_READINGS, HOST_READINGS):
        [(last,)] = con.execute(
            "SELECT coalesce(max(segment_key), 0) FROM segment_digest WHERE table_name = ?", [table]
        ).fetchall()
        digests = digest_segments(con, table, f"segment_key > {last}")
        with transaction(con, FIGURES):
            record_segments(con, table, digests)


def record_segments(
    con: duckdb.DuckDBPyConnection, table: str, digests: Mapping[int, Content]
) -> None:
    """Write digests of a table by segment key (inside the caller's transaction)."""
    rows = [(table, key, content.rows, content.sha256) for key, content in digests.items()]
    schema = {
        "table_name": pl.String,
        "segment_key": pl.Int32,
        "row_count": pl.Int64,
        "content_sha256": pl.String,
    }
    insert(con, "segment_digest", pl.DataFrame(rows, schema=schema, orient="row"))


def record_kept_inputs(con: duckdb.DuckDBPyConnection) -> None:
    """Write the table `kept_input` for the figures that were computed last."""
    record_new_segments(con)
    [(as_of,)] = con.execute("SELECT computed_at FROM computation").fetchall()
    revisions = [
        {
            "table_name": table,
            "part": part,
            "row_count": content.rows,
            "content_sha256": content.sha256,
        }
        for (table, part), content in digest_revisions(con, as_of).items()
    ]
    with transaction(con, FIGURES):
        con.execute("DELETE FROM kept_input")
        con.execute(
            "INSERT INTO kept_input BY NAME SELECT d.table_name, s.segment_id AS part, d.row_count, "
            "d.content_sha256 FROM segment_digest AS d JOIN segment AS s USING (segment_key) "
            "WHERE s.loaded_at <= ?",
            [as_of],
        )
        insert(con, "kept_input", revisions)
