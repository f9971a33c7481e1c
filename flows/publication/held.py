"""What the warehouse holds beside readings, grid data and runs: it holds what was published of it, and no more.

Rows have a time, or belong to a file or a publication that has one. What was published is still there, or something
later took its place; nothing is there that is older than the publication and was not published with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import duckdb

from flows.publication.findings import Finding
from flows.publication.manifest import list_tables
from flows.settings import GATE_TABLES
from flows.warehouse.frames import query_rows, quote_literal
from flows.warehouse.schema import list_migrations
from transforms.schema import TABLES, in_role, that_change

_BY_SEGMENT_KEY = (
    "(SELECT max(s.loaded_at) FROM store.segment AS s WHERE s.segment_key = t.segment_key)"
)
_BY_SEGMENT_ID = (
    "(SELECT max(s.loaded_at) FROM store.segment AS s WHERE s.segment_id = t.segment_id)"
)
ADDED_AT = {
    "segment": "t.loaded_at",
    "segment_profile": _BY_SEGMENT_ID,
    "collector_event": _BY_SEGMENT_KEY,
    "second_meter": _BY_SEGMENT_KEY,
    "meter_reading": _BY_SEGMENT_KEY,
    "run_record": "t.loaded_at",
    "seen_record": _BY_SEGMENT_ID,
    "host_key": "t.accepted_at",
    "signed_segment": "t.loaded_at",
    "grid_fetch": "t.first_attempt_at",
    "quarantine": "t.recorded_at",
    "quarantined_row": "t.recorded_at",
    "rolled_up": "t.rolled_up_at",
    "publication": "t.published_at",
    "gate_override": "t.recorded_at",
    "restatement": "(SELECT max(p.published_at) FROM store.publication AS p "
    "WHERE p.publication_id = t.publication_id)",
}
"""Table whose rows are added -> SQL: when a row `t` of it was added."""

_REPLACED = {
    "segment": "t.segment_id = m.segment_id",
    "segment_profile": "t.segment_id = m.segment_id",
    "second_meter": "t.meter = m.meter AND t.meter_run_id = m.meter_run_id",
    "meter_reading": "t.meter = m.meter AND t.scope = m.scope AND t.metered = m.metered "
    "AND t.valid_from < m.valid_to AND t.valid_to > m.valid_from",
    "run_record": "t.record_id = m.record_id",
    "quarantined_row": "t.segment_id = m.segment_id",
}
"""Table -> SQL: the row `t` takes the place of `m`, where it was added later. A file that was refused is loaded,
a bill is corrected, a run that went on has ended."""

_COUNTED = ("last_attempt_at", "attempts", "intervals", "changed")
"""Columns of grid_fetch that an attempt with the same outcome changes."""
_NOT_COMPARED = {"publication": ("manifest_sha256",), "grid_fetch": _COUNTED}
"""Table -> columns that are given, or go on, after a publication."""

ONLY_KEPT = ("validation_run", "validation_result")
"""Tables of which the published rows must be there; rows of files and candidates that were refused are there, too."""
WHILE_NOTHING_IS_LOADED = ("gpu_instance",)
"""Tables whose rows have no time: they are compared as long as no file was loaded since the publication."""
WITH_COMPUTATION = ("setting", "kept_input")
"""Tables that a computation or a gate writes: they are compared as long as the computation is the published one."""


def check_tables(con: duckdb.DuckDBPyConnection, publication_id: str) -> Iterator[Finding]:
    """Check the tables of the warehouse against those of a publication.

    Args:
        con: A connection with the warehouse attached as `store`, the figures as `published`.
        publication_id: The publication.
    """
    times = con.execute(
        "SELECT published_at FROM published.publication WHERE publication_id = ?", [publication_id]
    ).fetchall()
    if len(times) != 1:
        detail = f"it has {len(times)} rows of itself"
        yield Finding(publication_id, "warehouse", "publication", False, detail)
        return
    [(published_at,)] = times
    shared = list_tables(con, "published") & list_tables(con, "store")
    for table in sorted(shared & (ADDED_AT.keys() | {*ONLY_KEPT})):
        detail = _describe_missing(con, table, published_at) or _describe_added(
            con, table, published_at
        )
        yield Finding(publication_id, "warehouse", table, not detail, detail)
    if not con.execute("FROM store.segment WHERE loaded_at > ? LIMIT 1", [published_at]).fetchall():
        for table in sorted(shared & {*WHILE_NOTHING_IS_LOADED}):
            yield _compare_rows(con, publication_id, table)
    yield from _check_computation(con, publication_id, published_at)


def list_shared_columns(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Columns of a published table that this version knows; older versions published fewer."""
    description = con.execute(f"DESCRIBE published.{table}").fetchall()
    present = {name for name, *_ in description}
    return [name for name in TABLES[table].columns if name in present]


def _select_columns(con: duckdb.DuckDBPyConnection, table: str) -> str:
    left_out = _NOT_COMPARED.get(table, ())
    return ", ".join(name for name in list_shared_columns(con, table) if name not in left_out)


def _describe_missing(con: duckdb.DuckDBPyConnection, table: str, published_at: datetime) -> str:
    """What of the published rows is not there, in words; nothing where something later took its place."""
    columns = _select_columns(con, table)
    gone = f"SELECT {columns} FROM published.{table} EXCEPT ALL SELECT {columns} FROM store.{table}"
    if table in _REPLACED:
        gone = (
            f"SELECT m.* FROM ({gone}) AS m WHERE NOT EXISTS (FROM store.{table} AS t "
            f"WHERE {_REPLACED[table]} AND {ADDED_AT[table]} > $published_at)"
        )
    return _describe_rows(con, gone, published_at, "published rows are not there")


def _describe_added(con: duckdb.DuckDBPyConnection, table: str, published_at: datetime) -> str:
    """What is there of the time before the publication, and was not published, in words."""
    columns = _select_columns(con, table)
    # Of a verdict that was published, nothing is added later.
    old = (
        f"coalesce({ADDED_AT[table]} <= $published_at, true)"
        if table in ADDED_AT
        else f"t.validation_id IN (SELECT validation_id FROM published.{table}) AND $published_at IS NOT NULL"
    )
    added = (
        f"SELECT {columns} FROM store.{table} AS t WHERE {old} "
        f"EXCEPT ALL SELECT {columns} FROM published.{table}"
    )
    detail = _describe_rows(con, added, published_at, "rows were added that are older than it")
    if detail or table != "grid_fetch":
        return detail
    counted = ", ".join(list_shared_columns(con, table))
    changed = (
        f"SELECT {counted} FROM store.grid_fetch WHERE last_attempt_at <= $published_at "
        f"EXCEPT ALL SELECT {counted} FROM published.grid_fetch"
    )
    return _describe_rows(con, changed, published_at, "rows were changed")


def _describe_rows(
    con: duckdb.DuckDBPyConnection, query: str, published_at: datetime, what: str
) -> str:
    parameters = {"published_at": published_at} if "$published_at" in query else None
    rows = query_rows(con, f"SELECT *, count(*) OVER () AS rows FROM ({query}) LIMIT 1", parameters)
    return f"{rows[0].pop('rows')} {what}: {format_row(rows[0])}" if rows else ""


def _compare_rows(
    con: duckdb.DuckDBPyConnection, publication_id: str, table: str, where: str = "true"
) -> Finding:
    columns = ", ".join(list_shared_columns(con, table))
    published = f"SELECT {columns} FROM published.{table} WHERE {where}"
    stored = f"SELECT {columns} FROM store.{table} WHERE {where}"
    different = query_rows(
        con,
        f"FROM (({published} EXCEPT ALL {stored}) UNION ALL ({stored} EXCEPT ALL {published})) LIMIT 1",
    )
    detail = f"it is not what was published: {format_row(different[0])}" if different else ""
    return Finding(publication_id, "warehouse", table, not different, detail)


def _check_computation(
    con: duckdb.DuckDBPyConnection, publication_id: str, published_at: datetime
) -> Iterator[Finding]:
    """The last computation is the published one, or a later one; settings and digests belong to it."""
    if is_same_computation(con):
        named = ", ".join(map(quote_literal, GATE_TABLES))
        yield _compare_rows(con, publication_id, "setting", f"section NOT IN ({named})")
        rolled_up_since = con.execute(
            "FROM store.rolled_up WHERE rolled_up_at > ? LIMIT 1", [published_at]
        ).fetchall()
        if not rolled_up_since:
            yield _compare_rows(con, publication_id, "kept_input")
        return
    # Readings are of a GPU by its key: what a key means never changes.
    moved = query_rows(
        con,
        "SELECT gpu_key, gpu_uuid FROM published.gpu EXCEPT ALL SELECT gpu_key, gpu_uuid FROM store.gpu LIMIT 1",
    )
    detail = f"published rows are not there: {format_row(moved[0])}" if moved else ""
    yield Finding(publication_id, "warehouse", "gpu", not moved, detail)
    computations = con.execute("SELECT computed_at FROM store.computation").fetchall()
    later = len(computations) == 1 and computations[0][0] > published_at
    detail = "it is neither the published computation nor a later one"
    yield Finding(publication_id, "warehouse", "computation", later, detail)


def is_same_computation(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the candidate of the warehouse is the one that was published."""
    return (
        con.execute("FROM published.computation").fetchall()
        == con.execute("FROM store.computation").fetchall()
    )


_OF_SEGMENT = tuple(
    table.name
    for table in TABLES.values()
    if table.kind == "table" and "segment_key" in table.columns and table.name != "segment"
)


def check_ledger(con: duckdb.DuckDBPyConnection, publication_id: str) -> Iterator[Finding]:
    """Check what the warehouse says of itself: its migrations, its clock, and which files rows belong to.

    Args:
        con: A connection with the warehouse attached as `store`.
        publication_id: Names the last publication in findings.
    """
    applied = con.execute(
        "SELECT version, migration, sha256 FROM store.schema_migration"
    ).fetchall()
    same = Counter(applied) == Counter(list_migrations())
    detail = "they are not the migrations of this version"
    yield Finding(publication_id, "warehouse", "schema_migration", same, detail)
    yield _check_clock(con, publication_id)
    for table in _OF_SEGMENT:
        strange = query_rows(
            con,
            f"SELECT *, count(*) OVER () AS rows FROM store.{table} AS t WHERE t.segment_key NOT IN "
            "(SELECT segment_key FROM store.segment) OR t.segment_key IS NULL LIMIT 1",
        )
        if strange:
            detail = f"{strange[0].pop('rows')} rows belong to no file: {format_row(strange[0])}"
            yield Finding(publication_id, "warehouse", table, False, detail)


_STORED_TIMES = (
    "loaded_at",
    "superseded_at",
    "fetched_at",
    "first_attempt_at",
    "last_attempt_at",
    "recorded_at",
    "rolled_up_at",
    "computed_at",
    "published_at",
    "accepted_at",
)
"""Columns with moments of the ledger's clock."""


def _check_clock(con: duckdb.DuckDBPyConnection, publication_id: str) -> Finding:
    """Nothing was stored later than the clock's last moment."""
    present = list_tables(con, "store")
    times = " UNION ALL ".join(
        f"SELECT max({column}) AS stored_at FROM store.{table.name}"
        for table in TABLES.values()
        if table.name in present
        for column in _STORED_TIMES
        if column in table.columns
    )
    moments = con.execute("SELECT moment FROM store.ledger_clock").fetchall()
    [(latest,)] = con.execute(f"SELECT max(stored_at) FROM ({times})").fetchall()
    right = len(moments) == 1 and (latest is None or moments[0][0] >= latest)
    detail = (
        f"it shows {[str(moment) for (moment,) in moments]}, and the last time stored is {latest}"
    )
    return Finding(publication_id, "warehouse", "ledger_clock", right, detail)


KEPT = that_change("by_roll_up", "by_revision")
"""Tables that are compared by digest (`flows.publication.reproduction`)."""
WHILE_COMPUTED = tuple(
    name
    for name in that_change("by_computation")
    if TABLES[name].published != "no" and TABLES[name].role != "ledger"
)
"""Published tables that a computation writes: compared as long as the computation is the published one."""
CACHES = (
    *(name for name in in_role("candidate") if TABLES[name].published == "no"),
    *in_role("cache", "made_from"),
)
"""Tables that are kept from one computation to the next (`flows.publication.caches`)."""
OF_LEDGER = ("computation", "schema_migration", "ledger_clock", "segment_digest")
OUTSIDE = {
    "turn_load": "a lock: how often it was taken",
    "turn_figures": "a lock: how often it was taken",
}
"""Table -> why verification does not look at it."""


def format_row(row: Mapping[str, Any]) -> str:
    """A row in words, as an example: `run_id r1, co2e_ug 12`."""
    words = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
    return words[:200]
