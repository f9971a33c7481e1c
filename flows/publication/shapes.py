"""The shape of a database from elsewhere: only plain tables, of the columns that Wattledger declares.

It is looked at before anything else in the file is. A view in a table's place, a generated column, a macro with
the name of a function would be run by whoever reads the file: where there is one, the file is not read further.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb

from flows.errors import WarehouseDamaged, WarehouseError, WattledgerError
from flows.files import name_for_people
from flows.publication.database import create_published_views
from flows.publication.evidence import TABLES_KEPT
from flows.publication.findings import Finding
from flows.publication.manifest import digest_views, list_tables
from flows.warehouse.connection import connect
from flows.warehouse.failures import explain_failure, first_line
from flows.warehouse.frames import query_rows, quote_literal
from transforms.schema import TABLES

_TYPES = "|".join(
    sorted({field.sql_type for table in TABLES.values() for field in table.fields}, reverse=True)
)
_PLAIN = rf'"?\w+"? (?:{_TYPES})'
_PLAIN_TABLE = re.compile(rf'CREATE TABLE "?\w+"?\({_PLAIN}(?:, {_PLAIN})*\);')
"""The text of a table that was made from rows: no default, no generated column, no constraint."""
_KEPT = {"segment", "rolled_up", *TABLES_KEPT}
_MOST_BYTES_FREE, _MOST_TIMES = 1 << 30, 100
"""Bytes that the rows of any file may be in memory, at eight a value, and how many times its size those of a larger
one."""
_HEADERS_BYTES, _BLOCK_BYTES = 3 * 4096, 1 << 18
"""Of a DuckDB file: https://duckdb.org/docs/stable/internals/storage."""
_OTHERS = {
    "macro": "SELECT DISTINCT function_name AS name FROM duckdb_functions() WHERE NOT internal",
    "type": "SELECT type_name AS name FROM duckdb_types() WHERE NOT internal",
    "sequence": "SELECT sequence_name AS name FROM duckdb_sequences() WHERE true",
    "schema": "SELECT schema_name AS name FROM duckdb_schemas() WHERE NOT internal",
    "index": "SELECT index_name AS name FROM duckdb_indexes() WHERE true",
}


def check_published_shape(
    con: duckdb.DuckDBPyConnection, publication_id: str, database: str, size_bytes: int
) -> Iterator[Finding]:
    """Check that a file of figures holds plain tables with the columns declared, and nothing that runs.

    Its views are not looked at: their texts are compared with the manifest, and verification runs none.

    Args:
        con: A connection that the file is attached to.
        publication_id: Names the publication in findings.
        database: What it is called there.
        size_bytes: Of the file.

    Yields:
        What is wrong; nothing where all is well.
    """
    yield from _check_objects(con, publication_id, "table", database)
    yield from _check_tables(con, publication_id, "table", database)
    yield from _check_size(con, publication_id, "table", database, size_bytes)


def check_kept_shape(
    con: duckdb.DuckDBPyConnection, publication_id: str, database: str, size_bytes: int
) -> Iterator[Finding]:
    """Check that the store of a bundle holds exactly what a bundle keeps, in plain tables.

    Takes and yields what `check_published_shape` does.
    """
    yield from _check_objects(con, publication_id, "kept", database)
    if (size_bytes - _HEADERS_BYTES) % _BLOCK_BYTES:
        detail = "it has bytes that belong to no block of the database"
        yield Finding(publication_id, "kept", "blocks", False, detail)
    for view in _list_names(con, "view_name", "duckdb_views()", database):
        yield _name_stranger(publication_id, "kept", "view", view)
    tables = list_tables(con, database)
    for name in sorted(_KEPT - tables):
        yield Finding(publication_id, "kept", name, False, "the table is missing")
    for name in sorted(tables - _KEPT):
        yield _name_stranger(publication_id, "kept", "table", name)
    yield from _check_tables(con, publication_id, "kept", database)
    yield from _check_size(con, publication_id, "kept", database, size_bytes)


def check_store_shape(
    con: duckdb.DuckDBPyConnection, publication_id: str, database: str
) -> Iterator[Finding]:
    """Check that a warehouse has the tables and columns of this version.

    Takes and yields what `check_published_shape` does.
    """
    present = list_tables(con, database)
    for table in TABLES.values():
        if table.kind != "table":
            continue
        if table.name not in present:
            yield Finding(publication_id, "warehouse", table.name, False, "the table is missing")
            continue
        columns = _list_columns(con, database, table.name)
        for field in table.fields:
            if columns.get(field.name) != field.sql_type:
                detail = (
                    f"its column {field.name} is {columns.get(field.name, 'missing')}, "
                    f"not {field.sql_type}"
                )
                yield Finding(publication_id, "warehouse", table.name, False, detail)
                break
    for row in query_rows(
        con,
        f"{_OTHERS['macro']} AND database_name = {quote_literal(database)}",
    ):
        yield _name_stranger(publication_id, "warehouse", "macro", row["name"])
    generated = query_rows(
        con,
        "SELECT table_name FROM duckdb_tables() WHERE sql LIKE '%GENERATED ALWAYS%' "
        f"AND database_name = {quote_literal(database)}",
    )
    for row in generated:
        detail = "it has columns that are computed when they are read"
        yield Finding(publication_id, "warehouse", row["table_name"], False, detail)


def check_views(
    con: duckdb.DuckDBPyConnection, publication_id: str, database: str, *, vouched: bool
) -> Iterator[Finding]:
    """Check that the views of a file of figures are those of this version, by their texts.

    Args:
        con: A connection that the file is attached to.
        publication_id: Names the publication in findings.
        database: What it is called there.
        vouched: Somebody vouches for the manifest, which has digests of them: a key, or the reader.

    Yields:
        What differs; nothing where all is well.
    """
    with tempfile.TemporaryDirectory() as folder:
        # In a file, as DuckDB writes the types in a view's text otherwise before it has been read again.
        path = Path(folder) / "views.duckdb"
        with closing(connect(path)) as ours:
            create_published_views(ours)
        with closing(connect(path, read_only=True)) as ours:
            expected = digest_views(ours)
    actual = digest_views(con, database)
    for name in sorted({*expected, *actual}):
        if expected.get(name) != actual.get(name):
            detail = "its text is not that of this version" + (
                "" if vouched else ", and neither --key nor --expect vouches for it"
            )
            yield Finding(
                publication_id, "view", name_for_people(name), None if vouched else False, detail
            )


def explain_damage(error: Exception, publication_id: str, what: str, place: str) -> Finding:
    """The finding for a database that could not be read to its end.

    Raises:
        WattledgerError: that says nothing of the database: memory, time or permission failed, or somebody writes it.
    """
    failure = error if isinstance(error, WattledgerError) else explain_failure(error)
    if failure is not None and type(failure) not in (WarehouseDamaged, WarehouseError):
        raise failure from None
    return Finding(publication_id, what, place, False, f"damaged: {first_line(error)}")


def _check_objects(
    con: duckdb.DuckDBPyConnection, publication_id: str, what: str, database: str
) -> Iterator[Finding]:
    """Name what is neither a table nor a view: nothing that Wattledger writes is."""
    for kind, query in _OTHERS.items():
        found = query_rows(con, f"{query} AND database_name = {quote_literal(database)}")
        for row in found:
            yield _name_stranger(publication_id, what, kind, row["name"])


def _name_stranger(publication_id: str, what: str, kind: str, name: str) -> Finding:
    detail = f"a {kind} that Wattledger does not write; the file was not read further"
    return Finding(publication_id, what, name_for_people(name)[:100], False, detail)


def _check_tables(
    con: duckdb.DuckDBPyConnection, publication_id: str, what: str, database: str
) -> Iterator[Finding]:
    for row in query_rows(
        con,
        "SELECT table_name, sql FROM duckdb_tables() WHERE NOT internal "
        f"AND database_name = {quote_literal(database)} ORDER BY ALL",
    ):
        name = row["table_name"]
        if not _PLAIN_TABLE.fullmatch(row["sql"]):
            detail = "it has columns or constraints that Wattledger does not write; the file was not read further"
            yield Finding(publication_id, what, name_for_people(name)[:100], False, detail)
            continue
        declared = {f.name: f.sql_type for f in TABLES[name].fields} if name in TABLES else {}
        for column, sql_type in _list_columns(con, database, name).items():
            if declared.get(column, sql_type) != sql_type:
                detail = f"its column {column} is {sql_type}, not {declared[column]}"
                yield Finding(publication_id, what, name, False, detail)


def _check_size(
    con: duckdb.DuckDBPyConnection,
    publication_id: str,
    what: str,
    database: str,
    size_bytes: int,
) -> Iterator[Finding]:
    """A file can say in a few bytes that a value repeats for ever."""
    [(values,)] = con.execute(
        "SELECT coalesce(sum(estimated_size::HUGEINT * column_count), 0) FROM duckdb_tables() "
        f"WHERE database_name = {quote_literal(database)}"
    ).fetchall()
    most = max(_MOST_BYTES_FREE, size_bytes * _MOST_TIMES)
    if values * 8 > most:
        detail = (
            f"its rows are more than {most >> 20:,} MiB: no such file is that large when it is read"
        )
        yield Finding(publication_id, what, "rows", False, detail)


def _list_columns(con: duckdb.DuckDBPyConnection, database: str, table: str) -> dict[str, str]:
    described = con.execute(f'DESCRIBE {database}."{table}"').fetchall()
    return {name: sql_type for name, sql_type, *_ in described}


def _list_names(
    con: duckdb.DuckDBPyConnection, column: str, source: str, database: str
) -> list[str]:
    names = con.execute(
        f"SELECT {column} FROM {source} WHERE NOT internal "
        f"AND database_name = {quote_literal(database)} ORDER BY ALL"
    ).fetchall()
    return [name for (name,) in names]
