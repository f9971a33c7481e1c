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
from flows.warehouse.frames import register
from flows.warehouse.locks import FIGURES, transaction
from transforms.schema import TABLES, that_change

GPU_READINGS, HOST_READINGS, GPU_PIECES = "gpu_reading", "host_reading", "gpu_piece"
BY_SEGMENT = that_change("by_roll_up")
"""Tables whose rows belong to a segment and are never changed, only rolled up."""

_REVISED = (
    "SELECT * REPLACE (CASE WHEN superseded_at <= $then THEN superseded_at END AS superseded_at) "
    "FROM {schema}.{name} WHERE {known} <= $then"
)
_KNOWN_SINCE = {name: TABLES[name].known_since for name in that_change("by_revision")}
"""Tables whose rows are never changed but superseded -> since when a row is known."""
TABLES_KEPT = (*BY_SEGMENT, *_KNOWN_SINCE)
"""Tables of the warehouse that hold what figures rest on."""


def as_it_was(table: str, schema: str = "main") -> str:
    """The rows of a table as they were at `$then`."""
    if table in BY_SEGMENT:
        loaded = f"SELECT segment_key FROM {schema}.segment WHERE loaded_at <= $then"
        # In the order in which they are stored: computing needs no sort then.
        return f"SELECT * FROM {schema}.{table} WHERE segment_key IN ({loaded}) ORDER BY rowid"
    return _REVISED.format(schema=schema, name=table, known=_KNOWN_SINCE[table])


def digest_segments(con: duckdb.DuckDBPyConnection) -> None:
    """Take the digests of stored readings that have none yet; later ones are compared with these."""
    for table in (GPU_READINGS, HOST_READINGS):
        [(last,)] = con.execute(
            "SELECT coalesce(max(segment_key), 0) FROM segment_digest WHERE table_name = ?", [table]
        ).fetchall()
        found = of_segments(con, table, f"segment_key > {last}")
        with transaction(con, FIGURES):
            write(con, table, found)


def write(con: duckdb.DuckDBPyConnection, table: str, found: Mapping[int, Content]) -> None:
    """Write digests of a table by segment key (inside the caller's transaction)."""
    fresh = pl.DataFrame(
        [(key, content.rows, content.sha256) for key, content in found.items()],
        schema={"segment_key": pl.Int32, "row_count": pl.Int64, "content_sha256": pl.String},
        orient="row",
    )
    with register(con, digest=fresh):
        con.execute(
            "INSERT INTO segment_digest BY NAME SELECT *, ? AS table_name FROM digest", [table]
        )


def of_segments(
    con: duckdb.DuckDBPyConnection, table: str, where: str = "true", schema: str = "main"
) -> dict[int, Content]:
    """Digests of stored readings by segment key."""
    columns = ", ".join(TABLES[table].columns)
    query = f"SELECT {columns} FROM {schema}.{table} WHERE {where}"
    if table == GPU_READINGS:
        return dict(digest_readings(con, f"{query} ORDER BY segment_key, gpu_key, ts"))
    return {int(key): one for key, one in digest_by_part(con, query, "segment_key").items()}


def of_revised(
    con: duckdb.DuckDBPyConnection, then: datetime, schema: str = "main"
) -> dict[tuple[str, str], Content]:
    """Digests of what else the figures rest on, as it was known `then`, by table and part."""
    return {
        (table, part): content
        for table in _KNOWN_SINCE
        for part, content in digest_by_part(
            con, as_it_was(table, schema), TABLES[table].part or "''", {"then": then}
        ).items()
    }


def record(con: duckdb.DuckDBPyConnection) -> None:
    """Write the table kept_input for what was computed last."""
    digest_segments(con)
    [(then,)] = con.execute("SELECT computed_at FROM computation").fetchall()
    revised = of_revised(con, then)
    with transaction(con, FIGURES):
        con.execute("DELETE FROM kept_input")
        con.execute(
            "INSERT INTO kept_input SELECT d.table_name, s.segment_id, d.row_count, "
            "d.content_sha256 FROM segment_digest AS d JOIN segment AS s USING (segment_key) "
            "WHERE s.loaded_at <= ?",
            [then],
        )
        for (table, part), content in revised.items():
            con.execute(
                "INSERT INTO kept_input VALUES (?, ?, ?, ?)",
                [table, part, content.rows, content.sha256],
            )
