"""Reproduction: what a publication rests on is still there, and its figures follow from it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import (
    OutOfMemory,
    OutOfTime,
    UsageError,
    WarehouseBusy,
    WarehouseError,
    WarehouseForbidden,
)
from flows.publication.evidence import (
    BY_SEGMENT,
    GPU_PIECES,
    GPU_READINGS,
    digest_revisions,
    digest_segments,
)
from flows.publication.findings import Finding
from flows.publication.folders import database_in
from flows.publication.held import (
    WHILE_COMPUTED,
    check_ledger,
    check_tables,
    format_row,
    is_same_computation,
    list_shared_columns,
)
from flows.publication.manifest import list_tables
from flows.publication.recompute import compute_again
from flows.publication.shapes import check_published_shape, check_store_shape, explain_damage
from flows.warehouse.bounds import bound_time
from flows.warehouse.digests import Content, digest_code
from flows.warehouse.failures import explain_failure, first_line
from flows.warehouse.frames import query_rows, quote_literal, register
from flows.warehouse.lake import NAME
from flows.warehouse.schema import require_schema
from flows.warehouse.store import FileStore, Store, attach_read_only
from transforms.schema import TABLES

Part = tuple[str, str]
"""A table of the warehouse and a part of it: a segment, a zone."""


def check_schema(store: Store, publication_id: str) -> Iterator[Finding]:
    """Check that the warehouse has the tables that this version reads, before any is read.

    Yields:
        What is wrong; nothing where all is well.

    Raises:
        WarehouseNewer: a newer Wattledger wrote it; `WarehouseOlder`: an older one.
    """
    try:
        with closing(attach_read_only(store=store)) as con:
            require_schema(con, "store", str(store))
            yield from check_store_shape(con, publication_id, "store")
    except (WarehouseError, duckdb.Error) as error:
        yield explain_damage(error, publication_id, "warehouse", NAME)


def check_warehouse(store: Store, folder: Path) -> Iterator[Finding]:
    """Check that the warehouse still holds what a publication rests on, and what it says itself."""
    published = FileStore(database_in(folder))
    try:
        with closing(attach_read_only(store=store, published=published)) as con, bound_time(con):
            require_schema(con, "store", str(store))
            strange = [
                *check_store_shape(con, folder.name, "store"),
                *check_published_shape(
                    con, folder.name, "published", database_in(folder).stat().st_size
                ),
            ]
            yield from strange
            if strange:
                return
            if "kept_input" not in list_tables(con, "published"):
                detail = "published before digests of readings were kept"
                yield Finding(folder.name, "kept", "readings", None, detail)
                return
            yield from check_kept_inputs(con, folder.name)
            yield from check_tables(con, folder.name)
            yield from check_ledger(con, folder.name)
            yield from _check_candidate(con, folder.name)
    except (WarehouseError, duckdb.Error) as error:
        yield explain_damage(error, folder.name, "kept", NAME)


def check_kept_inputs(
    con: duckdb.DuckDBPyConnection, publication_id: str, segments: frozenset[str] | None = None
) -> Iterator[Finding]:
    """Check readings and grid data of a store against the digests that were published.

    Args:
        con: A connection with the store attached as `store`, the figures as `published`.
        publication_id: Names the publication in findings.
        segments: Those that the store should hold, where it does not hold all; None for all.
    """
    kept = _Kept.read(con)
    for part in sorted({*kept.expected, *kept.actual}):
        table, name = part
        if segments is None or table not in BY_SEGMENT or name in segments:
            yield from _check_part(kept, publication_id, part)
    if segments is None:
        yield _check_recorded(kept, publication_id)


def _check_recorded(kept: _Kept, publication_id: str) -> Finding:
    """The digests that the store recorded of its segments are those of what it holds."""
    known = kept.expected.keys() | kept.actual.keys()
    wrong = [
        part
        for part in known
        if part[0] in BY_SEGMENT
        and kept.recorded.get(part) != kept.actual.get(part)
        # Of a roll-up that left no readings there is nothing to record.
        and not (part not in kept.recorded and part[1] in kept.roll_ups)
    ]
    wrong += [part for part in kept.recorded if part not in known and part[1] in kept.sources]
    if not wrong and kept.recorded_rows != len(kept.recorded):
        detail = f"it has {kept.recorded_rows} rows for {len(kept.recorded)} files and tables"
        return Finding(publication_id, "warehouse", "segment_digest", False, detail)
    detail = f"of {len(wrong)} files it has other digests: {', '.join(min(wrong, default=()))}"
    return Finding(publication_id, "warehouse", "segment_digest", not wrong, detail)


@dataclass(frozen=True)
class _Kept:
    """Digests of what figures rest on.

    Attributes:
        expected: As published.
        actual: Of what the store holds.
        recorded: As the store recorded them of its segments, also after they were rolled up.
        recorded_rows: How many rows it has of that.
        roll_ups: Rows of `rolled_up` by segment.
        sources: Names of files by segment.
    """

    expected: dict[Part, Content]
    actual: dict[Part, Content]
    recorded: dict[Part, Content]
    recorded_rows: int
    roll_ups: dict[str, dict[str, Any]]
    sources: dict[str, str]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> _Kept:
        roll_ups = query_rows(con, "FROM store.rolled_up ORDER BY rolled_up_at DESC")
        sources = con.execute("SELECT segment_id, source_name FROM published.segment").fetchall()
        return cls(
            _read_digests(con, "SELECT *, part AS name FROM published.kept_input"),
            _digest_store(con),
            _read_recorded_digests(con),
            _count_recorded_digests(con),
            {roll_up["segment_id"]: roll_up for roll_up in roll_ups},
            dict(sources),
        )


def _read_digests(con: duckdb.DuckDBPyConnection, query: str) -> dict[Part, Content]:
    return {
        (row["table_name"], row["name"]): Content(row["row_count"], row["content_sha256"])
        for row in query_rows(con, query)
    }


def _read_recorded_digests(con: duckdb.DuckDBPyConnection) -> dict[Part, Content]:
    # The store of a bundle has none.
    if "segment_digest" not in list_tables(con, "store"):
        return {}
    return _read_digests(
        con,
        "SELECT *, segment_id AS name FROM store.segment_digest "
        "JOIN store.segment USING (segment_key)",
    )


def _count_recorded_digests(con: duckdb.DuckDBPyConnection) -> int:
    if "segment_digest" not in list_tables(con, "store"):
        return 0
    [(rows,)] = con.execute("SELECT count(*) FROM store.segment_digest").fetchall()
    return int(rows)


def _digest_store(con: duckdb.DuckDBPyConnection) -> dict[Part, Content]:
    """Take the digests of what the store holds of the time when the figures were computed."""
    [(as_of,)] = con.execute("SELECT computed_at FROM published.computation").fetchall()
    contents = digest_revisions(con, as_of, "store")
    segments = dict(
        con.execute(
            "SELECT segment_key, segment_id FROM store.segment WHERE loaded_at <= ?", [as_of]
        ).fetchall()
    )
    for table in BY_SEGMENT:
        for key, content in digest_segments(con, table, schema="store").items():
            if key in segments:
                contents[table, segments[key]] = content
    return contents


def _check_part(kept: _Kept, publication_id: str, part: Part) -> Iterator[Finding]:
    table, name = part
    expected, actual = kept.expected.get(part), kept.actual.get(part)
    source = kept.sources.get(name, name)
    roll_up = kept.roll_ups.get(name)
    if expected != actual and roll_up and (GPU_PIECES, name) not in kept.expected:
        # Rolled up after this publication: what it named is gone. What is left has digests of its
        # own, which the next publication names.
        if table == GPU_READINGS:
            yield _check_roll_up(publication_id, source, expected, roll_up)
        if table in (GPU_READINGS, GPU_PIECES):
            if not kept.recorded:
                return
            expected = kept.recorded.get(part)
    if expected is None or actual is None or expected.rows != actual.rows:
        detail = (
            f"{expected.rows if expected else 0} rows were published, "
            f"{actual.rows if actual else 0} are there"
        )
    else:
        detail = "its rows were changed"
    place = f"{table} {source}".strip()
    yield Finding(publication_id, "kept", place, expected == actual, detail)


def _check_roll_up(
    publication_id: str, source: str, published: Content | None, roll_up: Mapping[str, Any]
) -> Finding:
    """Of readings that are gone, the digest that was recorded is the one that was published."""
    place = f"{GPU_READINGS} {source}"
    if published is None or published.sha256 != roll_up["readings_sha256"]:
        return Finding(publication_id, "kept", place, False, "they were rolled up, but were others")
    detail = (
        f"rolled up {roll_up['rolled_up_at']:%Y-%m-%d} after {roll_up['after_days']:g} days: of "
        f"{roll_up['readings']:,} readings {roll_up['readings_left']:,} are left and "
        f"{roll_up['pieces']:,} sums; figures follow from these"
    )
    return Finding(publication_id, "kept", place, None, detail)


def _check_candidate(con: duckdb.DuckDBPyConnection, publication_id: str) -> Iterator[Finding]:
    """While the computation of the warehouse is the published one, so is what it wrote."""
    if not is_same_computation(con):
        return
    for table in sorted(set(WHILE_COMPUTED) & list_tables(con, "published")):
        yield _compare_table(con, publication_id, "warehouse", table, f"store.{table}")


def check_figures(store: Store, folder: Path, run_id: str | None = None) -> Iterator[Finding]:
    """Compute every figure again from a store, and compare it to the last digit.

    Args:
        store: Holds the readings and grid data of then.
        folder: The publication.
        run_id: Compare the figures of this run only; the store need not hold more.
    """
    name = folder.name
    try:
        con, tables = compute_again(store, database_in(folder), run_id)
    except UsageError as error:
        yield Finding(name, "figures", "all", None, str(error))
        return
    except (OutOfMemory, OutOfTime, WarehouseBusy, WarehouseForbidden):
        raise
    except Exception as error:  # Inputs that were tampered with may break anything on the way.
        if isinstance(failure := explain_failure(error), OutOfMemory):
            raise failure from None
        detail = f"they cannot be computed again: {first_line(error)}"
        yield Finding(name, "figures", "all", False, detail)
        return
    with closing(con), bound_time(con):
        [(code,)] = con.execute(
            "SELECT max_by(code_digest, sequence) FROM published.publication"
        ).fetchall()
        if code != digest_code():
            detail = "other code computed it; figures are compared with what this code computes"
            yield Finding(name, "figures", "code", None, detail)
        for table, frame in sorted(tables.items()):
            if run_id is not None and "run_id" not in frame.columns:
                continue
            where = "true" if run_id is None else f"run_id = {quote_literal(run_id)}"
            with register(con, computed_again=frame.select(TABLES[table].columns)):
                yield _compare_table(con, name, "figures", table, "computed_again", where)


def _compare_table(
    con: duckdb.DuckDBPyConnection,
    publication_id: str,
    what: str,
    table: str,
    other: str,
    where: str = "true",
) -> Finding:
    """Compare a published table with another of the same columns, as multisets of rows."""
    declared, known = TABLES[table], list_shared_columns(con, table)
    columns = ", ".join(known)
    published = f"SELECT {columns} FROM published.{table} WHERE {where}"
    actual = f"SELECT {columns} FROM {other} WHERE {where}"
    different = _count_missing(con, published, actual) or _count_missing(con, actual, published)
    if different is None:
        return Finding(publication_id, what, table, True)
    count, row = different
    changed = [
        column
        for column in known
        if con.execute(
            f"(SELECT {column} FROM published.{table} WHERE {where} EXCEPT ALL "
            f"SELECT {column} FROM {other} WHERE {where}) LIMIT 1"
        ).fetchall()
    ]
    example = {
        column: row[column] for column in known if column in declared.key or column in changed
    }
    detail = (
        f"{count} rows differ, in {', '.join(changed) or 'their number'}: {format_row(example)}"
    )
    return Finding(publication_id, what, table, False, detail)


def _count_missing(
    con: duckdb.DuckDBPyConnection, query: str, other: str
) -> tuple[int, dict[str, Any]] | None:
    """How many rows of a query another does not have, and one of them; None if there are none."""
    missing = query_rows(
        con, f"SELECT *, count(*) OVER () AS rows FROM ({query} EXCEPT ALL {other}) LIMIT 1"
    )
    return (missing[0].pop("rows"), missing[0]) if missing else None
