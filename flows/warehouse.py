"""The warehouse: one DuckDB file, opened, migrated, explained, and written by one process."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import duckdb

from flows.errors import WarehouseBusy, WarehouseError
from transforms.schemas import TABLES, Table

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing is fetched behind the user's back, and no query can make DuckDB do so.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Sorting and loading spill to disk beyond this.
    "memory_limit": "512MB",
}


def _sql(folder: str) -> list[Traversable]:
    files = resources.files("sql").joinpath(folder).iterdir()
    return sorted((f for f in files if f.name.endswith(".sql")), key=lambda f: f.name)


def connect(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file with Wattledger's settings: UTC, no extension loading.

    Raises:
        WarehouseBusy: another process holds it for writing.
        WarehouseError: not a DuckDB file, no permission, disk full.
    """
    try:
        con = duckdb.connect(str(path), read_only=read_only, config=_CONFIG)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise WarehouseBusy(
                "another process is writing it",
                where=str(path),
                remedy="Wait for it to end, or query published/published.duckdb, which is never locked",
            ) from None
        raise WarehouseError(_first_line(error), where=str(path), remedy=_RESTORE) from None
    except duckdb.Error as error:
        raise WarehouseError(_first_line(error), where=str(path), remedy=_RESTORE) from None
    con.execute("SET TimeZone = 'UTC'")
    return con


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_RESTORE = "Check that it is a DuckDB file of this version and that the disk is writable"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failing disk into a `WarehouseError` that says what is safe."""
    try:
        yield
    except (OSError, duckdb.IOException, duckdb.FatalException) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        raise WarehouseError(
            f"can't write: {_first_line(error)}",
            where=str(path),
            remedy="Free some space or fix the permissions and run it again: "
            "what was acknowledged is stored, nothing is half done",
        ) from None


def open_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    """Open (and if need be create and migrate) the warehouse for writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con = connect(path)
    try:
        spill = path.parent / ".wattledger" / "spill"
        con.execute("SET temp_directory = $path", {"path": str(spill)})
        with disk_errors(path):
            # DuckDB makes only the last folder of that path.
            spill.parent.mkdir(exist_ok=True)
            migrate(con, path)
            # Whatever a killed process left half way; only `main` counts.
            con.execute("DROP SCHEMA IF EXISTS staging CASCADE")
            con.execute("CREATE SCHEMA staging")
    except BaseException:
        con.close()
        raise
    return con


@contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, open for writing, closed at the end."""
    con = open_warehouse(path)
    try:
        yield con
    finally:
        con.close()


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing."""
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def migrate(con: duckdb.DuckDBPyConnection, path: Path) -> list[int]:
    """Apply the migrations that this file lacks, all in one transaction; returns their numbers.

    Raises:
        WarehouseError: the file knows migrations that this code does not, or an applied
            migration was edited afterwards.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration (version INTEGER NOT NULL, "
        "migration VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
    )
    applied = dict(con.execute("SELECT version, sha256 FROM schema_migration").fetchall())
    known = {int(f.name.split("_")[0]): f for f in _sql("migrations")}
    if newer := sorted(set(applied) - set(known)):
        raise WarehouseError(
            f"it was written by a newer Wattledger (migration {newer[-1]}; this one knows {max(known)})",
            where=str(path),
            remedy="Upgrade Wattledger; this version leaves the file untouched",
        )
    waiting = []
    for version, file in sorted(known.items()):
        text = file.read_text("utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if version not in applied:
            waiting.append((version, file, text, digest))
        elif applied[version] != digest:
            raise WarehouseError(
                f"migration {file.name} differs from the one applied to it",
                where=str(path),
                remedy="Migrations are never edited: restore the file, or use its version of Wattledger",
            )
    if waiting:
        # With their views and comments, which are not made again later.
        with transaction(con):
            for version, file, text, digest in waiting:
                con.execute(text)
                con.execute(
                    "INSERT INTO schema_migration VALUES (?, ?, ?, now())",
                    [version, file.name.removesuffix(".sql"), digest],
                )
            for table in TABLES.values():
                if table.kind == "table":
                    comment(con, table)
            create_views(con)
    return [version for version, *_ in waiting]


def create_views(con: duckdb.DuckDBPyConnection, leave_out: AbstractSet[str] = frozenset()) -> None:
    """(Re)create the views of sql/views, with their comments, but for those to leave out."""
    for file in _sql("views"):
        name = file.name.removesuffix(".sql").split("_", 1)[1]
        if name not in leave_out:
            con.execute(file.read_text("utf-8"))
            comment(con, TABLES[name])


def comment(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Write the meaning of a table or view and of its columns into the database."""
    kind = table.kind.upper()
    text = f"{table.description}. One row: {table.grain}"
    said = [f"COMMENT ON {kind} {table.name} IS {literal(text)}"]
    for field in table.fields:
        unit = f" [{field.unit}]" if field.unit else ""
        said.append(
            f"COMMENT ON COLUMN {table.name}.{field.name} IS {literal(field.description + unit)}"
        )
    con.execute(";\n".join(said))


def literal(text: object) -> str:
    """A text as an SQL literal, for statements that take no parameters."""
    return "'" + str(text).replace("'", "''") + "'"


def beside(**files: Path) -> duckdb.DuckDBPyConnection:
    """A connection in memory with files attached, read-only, under the names given."""
    con = connect(Path(":memory:"))
    try:
        for name, path in files.items():
            con.execute(f"ATTACH {literal(path)} AS {name} (READ_ONLY)")
    except BaseException:
        con.close()
        raise
    return con


def one_file(path: Path) -> str:
    """A path as DuckDB's readers take it: just this file, whatever its name looks like."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))


def rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Run a query and give its rows as dictionaries."""
    result = con.execute(sql, parameters) if parameters is not None else con.execute(sql)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
