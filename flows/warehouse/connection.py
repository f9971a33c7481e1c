"""The warehouse: a DuckDB file with one writer, or a lake that many share; opened, migrated, explained."""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext, suppress
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from flows.errors import LakeAway, WarehouseBusy, WarehouseError
from flows.settings import Lake
from flows.warehouse import lake
from transforms.schemas import TABLES, Table

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing is fetched behind the user's back, and no query can make DuckDB do so.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Sorting and loading spill to disk beyond this.
    "memory_limit": "512MB",
    # What is committed goes into the file itself, not first into the log beside it: DuckDB 1.5 takes large inserts from a
    # log that a killed process left half written, without the rest of their transaction.
    "checkpoint_threshold": "1KB",
    "auto_checkpoint_skip_wal_threshold": 1000,
    # Row groups are compressed while they are still in the processor's cache.
    "write_buffer_row_group_count": 1,
}


Store = Path | Lake
"""Where a warehouse is: a DuckDB file, or a lake that many machines share."""

NAME = "warehouse"
"""What the warehouse is called inside a connection, whatever it is."""


def _sql(folder: str) -> list[Traversable]:
    files = resources.files("sql").joinpath(folder).iterdir()
    return sorted((f for f in files if f.name.endswith(".sql")), key=lambda f: f.name)


def connect(store: Store, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a warehouse (or any DuckDB file) with Wattledger's settings: UTC, no extension loading.

    Raises:
        WarehouseBusy: another process holds the file for writing.
        WarehouseError: not a DuckDB file, no permission, disk full; the lake can't be reached.
    """
    if isinstance(store, Lake):
        con = connect(Path(":memory:"))
        try:
            lake.attach(con, store, NAME, read_only=read_only)
            con.execute(f"USE {NAME}")
        except BaseException:
            con.close()
            raise
        return con
    until = time.monotonic() + _patience_s
    while True:
        try:
            con = duckdb.connect(str(store), read_only=read_only, config=_CONFIG)
            break
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise WarehouseError(
                    _first_line(error), where=str(store), remedy=_RESTORE
                ) from None
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            raise WarehouseBusy(
                "another process is writing it",
                where=str(store),
                remedy="Wait for it to end, or query published/published.duckdb, which is never locked",
            ) from None
        except duckdb.Error as error:
            raise WarehouseError(_first_line(error), where=str(store), remedy=_RESTORE) from None
    con.execute("SET TimeZone = 'UTC'")
    return con


_patience_s = 0.0


def be_patient(seconds: float) -> None:
    """Let this process wait while others write: flows on a schedule do, a person wants to know."""
    global _patience_s
    _patience_s = seconds


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_RESTORE = "Check that it is a DuckDB file of this version and that the disk is writable"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300]


_QUERIES = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
"""Mistakes in a query: ours, whatever the warehouse is."""


@contextmanager
def disk_errors(store: Store) -> Iterator[None]:
    """Turn a failing disk, or a lake that went away, into a `WarehouseError` that says what is safe."""
    try:
        yield
    except (OSError, duckdb.Error) as error:
        remedy = "what was acknowledged is stored, nothing is half done"
        if isinstance(error, OSError):
            ours = error.errno not in _DISK
        elif isinstance(store, Lake):
            # Where the catalogue can't be asked, that is said of the query.
            ours = isinstance(error, _QUERIES) and "from DuckLake" not in str(error)
        else:
            ours = not isinstance(error, duckdb.IOException | duckdb.FatalException)
        if ours:
            raise
        if isinstance(store, Lake):
            raise LakeAway(
                f"it went away: {_first_line(error)}",
                where=str(store),
                remedy=f"Check that PostgreSQL and the data can be reached and run it again: {remedy}",
            ) from None
        raise WarehouseError(
            f"can't write: {_first_line(error)}",
            where=str(store),
            remedy=f"Free some space or fix the permissions and run it again: {remedy}",
        ) from None


def open_warehouse(store: Store) -> duckdb.DuckDBPyConnection:
    """Open (and if need be create and migrate) the warehouse for writing."""
    work = _beside(store)
    work.parent.mkdir(parents=True, exist_ok=True)
    con = connect(store)
    try:
        con.execute("SET temp_directory = $path", {"path": str(work / "spill")})
        with disk_errors(store):
            # DuckDB makes only the last folder of that path.
            work.mkdir(exist_ok=True)
            with turn(con, "migrate"):
                migrate(con, store)
            # What a process prepares is nobody else's, and gone with it.
            con.execute("DETACH DATABASE IF EXISTS staging")
            con.execute("ATTACH ':memory:' AS staging")
    except BaseException:
        con.close()
        raise
    return con


def exists(store: Store) -> bool:
    """Whether there is anything to read."""
    return isinstance(store, Lake) or store.exists()


def _beside(store: Store) -> Path:
    """The folder for what a process needs while it works."""
    return (store.work if isinstance(store, Lake) else store.parent) / ".wattledger"


@contextmanager
def writing(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, open for writing, closed at the end."""
    con = open_warehouse(store)
    try:
        yield con
    finally:
        con.close()


def close_to_files(con: duckdb.DuckDBPyConnection, store: Store | None) -> None:
    """Let a connection read nothing but what it is connected to."""
    if isinstance(store, Lake):
        con.execute(f"SET allowed_directories = [{literal(store.data_path)}]")
    con.execute("SET enable_external_access = false")


def snapshot(con: duckdb.DuckDBPyConnection) -> int:
    """The state of the lake that this connection sees, for others to read the same."""
    [(number,)] = con.execute(f"FROM ducklake_current_snapshot({literal(NAME)})").fetchall()
    return int(number)


LOADING, FIGURES, PIPELINE = "load", "figures", "pipeline"
"""Turns that processes take on a lake: those that load wait for each other, figures are one process's
work at a time. A file has one writer anyway."""

_WAIT_S = 900.0


@contextmanager
def turn(con: duckdb.DuckDBPyConnection, name: str, *, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Keep other processes from doing the same on the same lake; ends with the process, however it ends.

    Raises:
        WarehouseBusy: another process still does it after `wait_s`.
    """
    if not lake.is_lake(con):
        yield
        return
    with lake.turn(con, name, max(wait_s, _patience_s)):
        yield


@contextmanager
def alone(
    store: Store, name: str, *, wait_s: float = _WAIT_S
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, open for what one process at a time does: load what is compared with the store as a
    whole, compute, publish, roll up.

    Raises:
        WarehouseBusy: another process still does it after `wait_s`.
        WarehouseError: the disk failed.
    """
    with writing(store) as con, turn(con, name, wait_s=wait_s), disk_errors(store):
        yield con


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection, what: str = LOADING) -> Iterator[None]:
    """All or nothing.

    On a lake, transactions that load wait for each other, and of two that were both granted the turn (one had lost
    its connection meanwhile) the later one to commit fails.

    Raises:
        WarehouseBusy: another process has written in between, or is still writing.
    """
    if not lake.is_lake(con):
        with _atomic(con):
            yield
        return
    waiting = lake.turn(con, what, _WAIT_S) if what == LOADING else nullcontext()
    with waiting, lake.conflicts(), _atomic(con):
        con.execute(f"UPDATE turn_{what} SET taken = taken + 1")
        yield


@contextmanager
def _atomic(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
    except BaseException:
        # A connection that was lost has nothing to roll back, and says so.
        with suppress(duckdb.Error):
            con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _known() -> dict[int, Traversable]:
    return {int(f.name.split("_")[0]): f for f in _sql("migrations")}


def migrate(con: duckdb.DuckDBPyConnection, store: Store) -> list[int]:
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
    known = _known()
    if newer := sorted(set(applied) - set(known)):
        raise WarehouseError(
            f"it was written by a newer Wattledger (migration {newer[-1]}; this one knows {max(known)})",
            where=str(store),
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
                where=str(store),
                remedy="Migrations are never edited: restore the file, or use its version of Wattledger",
            )
    if waiting:
        # With their views and comments, which are not made again later.
        with _atomic(con):
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
    # A lake has no comments on the columns of views.
    for field in () if kind == "VIEW" and lake.is_lake(con) else table.fields:
        unit = f" [{field.unit}]" if field.unit else ""
        said.append(
            f"COMMENT ON COLUMN {table.name}.{field.name} IS {literal(field.description + unit)}"
        )
    con.execute(";\n".join(said))


def tidy(con: duckdb.DuckDBPyConnection) -> None:
    """Write out what is pending; of a lake, merge small files and delete what no one needs any more."""
    if lake.is_lake(con):
        lake.tidy(con)
    else:
        con.execute("CHECKPOINT")


@contextmanager
def lend(con: duckdb.DuckDBPyConnection, **frames: pl.DataFrame | pa.Table) -> Iterator[None]:
    """Let statements read frames by name."""
    for name, frame in frames.items():
        con.register(name, frame)
    try:
        yield
    finally:
        for name in frames:
            # Where the transaction failed, this can only say so again.
            with suppress(duckdb.Error):
                con.unregister(name)


def literal(text: object) -> str:
    """A text as an SQL literal, for statements that take no parameters."""
    return "'" + str(text).replace("'", "''") + "'"


def attach(con: duckdb.DuckDBPyConnection, store: Store, name: str) -> None:
    """Attach a file or lake, to be read."""
    if isinstance(store, Lake):
        lake.attach(con, store, name, read_only=True)
    else:
        con.execute(f"ATTACH {literal(store)} AS {name} (READ_ONLY)")


def beside(**stores: Store) -> duckdb.DuckDBPyConnection:
    """A connection in memory with files or lakes attached, read-only, under the names given."""
    con = connect(Path(":memory:"))
    try:
        for name, store in stores.items():
            attach(con, store, name)
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
