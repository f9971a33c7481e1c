"""The schema of a warehouse: its migrations, its views, and what they mean, as comments."""

from __future__ import annotations

import hashlib
from collections.abc import Set as AbstractSet
from importlib import resources
from importlib.resources.abc import Traversable

import duckdb

from flows.errors import WarehouseError, WarehouseNewer, WarehouseOlder
from flows.warehouse import lake
from flows.warehouse.frames import quote_literal
from flows.warehouse.locks import commit_or_roll_back
from transforms.constants import SLOT_US
from transforms.schema import TABLES, Table


def _list_sql(folder: str) -> list[Traversable]:
    files = resources.files("sql").joinpath(folder).iterdir()
    return sorted((f for f in files if f.name.endswith(".sql")), key=lambda f: f.name)


def migrate(con: duckdb.DuckDBPyConnection, place: str) -> list[int]:
    """Apply the migrations that a warehouse lacks, all in one transaction.

    Args:
        con: The warehouse, open for writing.
        place: Where it is, for messages.

    Returns:
        The numbers of the migrations that were applied.

    Raises:
        WarehouseError: the warehouse has migrations that this code does not have, or an applied
            migration was edited afterwards.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration (version INTEGER NOT NULL, "
        "migration VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
    )
    applied = dict(con.execute("SELECT version, sha256 FROM schema_migration").fetchall())
    migrations = {int(file.name.split("_")[0]): file for file in _list_sql("migrations")}
    if newer := sorted(set(applied) - set(migrations)):
        raise WarehouseNewer(
            f"it was written by a newer Wattledger (migration {newer[-1]}; this one knows {max(migrations)})",
            where=place,
            remedy="Upgrade Wattledger; this version leaves the file untouched",
        )
    texts = {version: file.read_text("utf-8") for version, file in sorted(migrations.items())}
    digests = {
        version: hashlib.sha256(text.encode()).hexdigest() for version, text in texts.items()
    }
    for version in applied:
        if applied[version] != digests[version]:
            raise WarehouseError(
                f"migration {migrations[version].name} differs from the one applied to it",
                where=place,
                remedy="Migrations are never edited: restore the file, or use its version of Wattledger",
            )
    missing = [version for version in texts if version not in applied]
    if missing:
        # With their views and comments, which are not made again later.
        with commit_or_roll_back(con):
            for version in missing:
                con.execute(texts[version])
                name = migrations[version].name.removesuffix(".sql")
                con.execute(
                    "INSERT INTO schema_migration (version, migration, sha256, applied_at) "
                    "VALUES (?, ?, ?, now())",
                    [version, name, digests[version]],
                )
            for table in TABLES.values():
                if table.kind == "table":
                    write_comments(con, table)
            create_views(con)
    return missing


def require_schema(con: duckdb.DuckDBPyConnection, database: str, place: str) -> None:
    """Require that a warehouse that is only read has the schema of this version.

    Args:
        con: A connection that it is attached to.
        database: What it is called there.
        place: Where it is, for messages.

    Raises:
        WarehouseNewer: it has a newer schema.
        WarehouseOlder: it has an older one, or none of Wattledger's.
    """
    newest = max(int(file.name.split("_")[0]) for file in _list_sql("migrations"))
    try:
        [(version,)] = con.execute(
            f"SELECT max(version) FROM {database}.schema_migration"
        ).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        version = None
    if not isinstance(version, int):
        raise WarehouseOlder(
            "it is no warehouse of Wattledger: nothing says which migrations it has",
            where=place,
            remedy="Check the path",
        )
    if version > newest:
        raise WarehouseNewer(
            f"it was written by a newer Wattledger (migration {version}; this one knows {newest})",
            where=place,
            remedy="Upgrade Wattledger; this version leaves the file untouched",
        )
    if version < newest:
        raise WarehouseOlder(
            f"it has the tables of an older Wattledger (migration {version}; this one has {newest})",
            where=place,
            remedy="Run `wattledger footprint` once, which adds what is missing",
        )


def list_migrations() -> list[tuple[int, str, str]]:
    """Number, name and digest of every migration of this version, as `schema_migration` has them."""
    return [
        (
            int(file.name.split("_")[0]),
            file.name.removesuffix(".sql"),
            hashlib.sha256(file.read_text("utf-8").encode()).hexdigest(),
        )
        for file in _list_sql("migrations")
    ]


def create_views(con: duckdb.DuckDBPyConnection, leave_out: AbstractSet[str] = frozenset()) -> None:
    """(Re)create the views of sql/views, with their comments, except those named in `leave_out`."""
    for file in _list_sql("views"):
        name = file.name.removesuffix(".sql").split("_", 1)[1]
        if name not in leave_out:
            con.execute(_with_constants(file.read_text("utf-8")))
            write_comments(con, TABLES[name])


def _with_constants(view: str) -> str:
    """Replace `$slot_us` in the text of a view by its value.

    A macro would do the same, in files and on lakes. But a manifest digests the texts of views: a value
    in the text is one that verification sees.
    """
    return view.replace("$slot_us", str(SLOT_US))


def write_comments(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Write the meaning of a table or view and of its columns into the database."""
    kind = table.kind.upper()
    text = f"{table.description}. One row: {table.grain}"
    comments = [f"COMMENT ON {kind} {table.name} IS {quote_literal(text)}"]
    # A lake has no comments on the columns of views.
    for field in () if kind == "VIEW" and lake.is_lake(con) else table.fields:
        unit = f" [{field.unit}]" if field.unit else ""
        meaning = quote_literal(field.description + unit)
        comments.append(f"COMMENT ON COLUMN {table.name}.{field.name} IS {meaning}")
    con.execute(";\n".join(comments))
