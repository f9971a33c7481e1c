"""Where a warehouse is: a DuckDB file with one writer, or a lake that many machines share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb

from flows.errors import WattledgerError
from flows.settings import Settings
from flows.warehouse.connection import connect, connect_in_memory
from flows.warehouse.failures import explain_failure
from flows.warehouse.frames import quote_literal
from flows.warehouse.lake import LakeStore
from flows.warehouse.locks import WAIT_S, hold_lock
from flows.warehouse.schema import migrate


class Store(Protocol):
    """A warehouse that can be opened, attached to other connections, and asked what its errors mean."""

    @property
    def work(self) -> Path:
        """Folder for what a process needs while it works."""

    @property
    def wait_s(self) -> float:
        """Seconds to wait while another process writes: flows on a schedule do, a person wants to know."""

    def exists(self) -> bool:
        """Whether there is anything to read."""

    def connect(self, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
        """Open it: UTC, no extension loading.

        Raises:
            WarehouseBusy: another process holds it for writing.
            WarehouseError: it cannot be read or reached.
        """

    def attach(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        """Attach it to a connection under a name, to be read."""

    def restrict(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let a connection read nothing but this store."""

    def explain_failure(self, error: Exception) -> WattledgerError | None:
        """The sentence where disk, memory or lake failed, with what is safe; None where we are at fault."""


@dataclass(frozen=True)
class FileStore:
    """A DuckDB file (`Store`)."""

    path: Path
    wait_s: float = 0.0

    def __str__(self) -> str:
        return str(self.path)

    @property
    def work(self) -> Path:
        return self.path.parent / ".wattledger"

    def exists(self) -> bool:
        return self.path.exists()

    def connect(self, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
        wait_s = self.wait_s if read_only else max(self.wait_s, _LOOK_UP_S)
        return connect(self.path, read_only=read_only, wait_s=wait_s)

    def attach(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        try:
            con.execute(f"ATTACH {quote_literal(self.path)} AS {name} (READ_ONLY)")
        except duckdb.Error as error:
            failure = explain_failure(error, self.path)
            if failure is None:
                raise
            raise failure from None

    def restrict(self, con: duckdb.DuckDBPyConnection) -> None:
        con.execute("SET enable_external_access = false")

    def explain_failure(self, error: Exception) -> WattledgerError | None:
        return explain_failure(error, self.path)


_LOOK_UP_S = 1.0
"""Readers of figures open the warehouse for some hundredths of a second, to look up the last publication."""


def store_of(settings: Settings) -> Store:
    """The store of a project: its working file, or the lake in its place."""
    if settings.lake is not None:
        return LakeStore(settings.lake, settings.root, settings.wait_s)
    return FileStore(settings.root / "warehouse.duckdb", settings.wait_s)


@contextmanager
def explain_disk_errors(store: Store) -> Iterator[None]:
    """Turn a failing disk, too little memory, or a lake that went away, into a sentence that says what is safe."""
    try:
        yield
    except (OSError, MemoryError, duckdb.Error) as error:
        failure = store.explain_failure(error)
        if failure is None:
            raise
        raise failure from None


def open_warehouse(store: Store) -> duckdb.DuckDBPyConnection:
    """Open (and if need be create and migrate) the warehouse for writing."""
    work = store.work
    work.parent.mkdir(parents=True, exist_ok=True)
    con = store.connect()
    try:
        con.execute("SET temp_directory = $path", {"path": str(work / "spill")})
        with explain_disk_errors(store):
            # DuckDB makes only the last folder of that path.
            work.mkdir(exist_ok=True)
            with hold_lock(con, "migrate"):
                migrate(con, str(store))
            # What a process prepares is nobody else's, and gone with it.
            con.execute("DETACH DATABASE IF EXISTS staging")
            con.execute("ATTACH ':memory:' AS staging")
    except BaseException:
        con.close()
        raise
    return con


@contextmanager
def open_for_writing(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, open for writing, closed at the end."""
    con = open_warehouse(store)
    try:
        yield con
    finally:
        con.close()


@contextmanager
def open_exclusively(
    store: Store, lock: str, *, wait_s: float = WAIT_S
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, open for what one process at a time does.

    That is: to load what is compared with the store as a whole, to compute, publish or roll up.

    Args:
        store: The warehouse.
        lock: Name of the lock that keeps other processes from doing the same on a lake.
        wait_s: Seconds to wait for it; at least those of the store.

    Raises:
        WarehouseBusy: another process still does it after `wait_s`.
        WarehouseError: the disk failed.
    """
    with (
        open_for_writing(store) as con,
        hold_lock(con, lock, wait_s=max(wait_s, store.wait_s)),
        explain_disk_errors(store),
    ):
        yield con


def attach_read_only(**stores: Store) -> duckdb.DuckDBPyConnection:
    """A connection in memory with stores attached, to be read, under the names given.

    It can read nothing but these, and nothing that they hold has a name that statements use unasked: a macro
    called `sha256` is not found where the database is not the connection's own.

    Args:
        stores: A lake comes first: what it allows cannot be allowed later.
    """
    con = connect_in_memory()
    try:
        for name, store in stores.items():
            store.attach(con, name)
        con.execute("SET python_enable_replacements = false")
        work = next(iter(stores.values())).work
        if work.is_dir():
            con.execute("SET temp_directory = $path", {"path": str(work / "spill")})
        for store in stores.values():
            store.restrict(con)
        con.execute("SET lock_configuration = true")
    except BaseException:
        con.close()
        raise
    return con
