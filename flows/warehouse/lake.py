"""A warehouse that many machines share: DuckLake, its catalogue in PostgreSQL, its rows in Parquet files.

SQL, flows and transforms are the same as with a file. Where a file is locked by its one writer, processes on a lake take
advisory locks of PostgreSQL, which end with the connection of whoever holds them.
"""

from __future__ import annotations

import importlib.util
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows.errors import LakeAway, WarehouseBusy, WarehouseError, WattledgerError
from flows.settings import Lake
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.failures import explain_failure, first_line
from flows.warehouse.frames import quote_literal

NAME = "warehouse"
"""What the warehouse is called inside a connection, whatever it is."""
_LOCKS = "locks"
"""The catalogue's own database, attached for its locks."""
_CLASS = zlib.crc32(b"wattledger") & 0x7FFFFFFF
_POLL_S = 0.05
_ATTACH_S = 60.0
_QUERY_ERRORS = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
"""Mistakes in a query: ours, whatever the warehouse is."""


@dataclass(frozen=True)
class LakeStore:
    """A lake, as [lake] in wattledger.toml names it (`flows.warehouse.store.Store`)."""

    settings: Lake
    root: Path
    """The project folder: a data folder that is no URL is relative to it."""
    wait_s: float = 0.0
    snapshot: int | None = None
    """State of the lake to read; None: the latest."""

    def __str__(self) -> str:
        return str(self.settings)

    @property
    def work(self) -> Path:
        return self.root / ".wattledger"

    @property
    def data_path(self) -> str:
        """Where the rows are, as DuckDB takes it."""
        data = self.settings.data
        path = data if self.settings.is_remote else str((self.root / data).resolve())
        return path.rstrip("/") + "/"

    def exists(self) -> bool:
        return True

    def connect(self, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
        con = connect_in_memory()
        try:
            self._attach(con, NAME, read_only=read_only)
            con.execute(f"USE {NAME}")
        except duckdb.Error as error:
            con.close()
            raise self._explain_absence(error) from None
        except BaseException:
            con.close()
            raise
        return con

    def attach(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        self._attach(con, name, read_only=True)

    def restrict(self, con: duckdb.DuckDBPyConnection) -> None:
        con.execute(f"SET allowed_directories = [{quote_literal(self.data_path)}]")
        con.execute("SET enable_external_access = false")

    def explain_failure(self, error: Exception) -> WattledgerError | None:
        if isinstance(error, OSError | MemoryError | duckdb.OutOfMemoryException):
            return explain_failure(error, self)
        # Where the catalogue cannot be asked, DuckDB reports it as an error of the query.
        if isinstance(error, _QUERY_ERRORS) and "from DuckLake" not in str(error):
            return None
        return self._explain_absence(error)

    def _explain_absence(self, error: Exception) -> LakeAway:
        return LakeAway(
            f"it went away: {first_line(error)}",
            where=str(self),
            remedy="Check that PostgreSQL and the data can be reached and run it again: what was "
            "acknowledged is stored, nothing is half done",
        )

    def _attach(self, con: duckdb.DuckDBPyConnection, name: str, *, read_only: bool) -> None:
        """Attach the lake under a name; to write, with the catalogue's database for its locks.

        Raises:
            WarehouseError: an extension is missing, or catalogue or data cannot be reached.
        """
        remote = self.settings.is_remote
        try:
            for extension in ("ducklake", "postgres_scanner", *(["httpfs"] if remote else [])):
                _load_extension(con, extension)
            if remote:
                con.execute(_create_secret(self.settings))
            options = [f"DATA_PATH {quote_literal(self.data_path)}"]
            options += ["READ_ONLY"] if read_only else []
            options += [] if self.snapshot is None else [f"SNAPSHOT_VERSION {self.snapshot}"]
            target = quote_literal(self.settings.attach)
            attach = f"ATTACH {target} AS {name} ({', '.join(options)})"
            if read_only:
                con.execute(attach)
                return
            postgres = quote_literal(self.settings.postgres)
            con.execute(f"ATTACH {postgres} AS {_LOCKS} (TYPE postgres)")
            # The first to attach it makes the lake.
            with hold_lock(con, "attach", _ATTACH_S):
                con.execute(attach)
                _set_options(con, name)
        except duckdb.Error as error:
            raise LakeAway(
                first_line(error),
                where=str(self),
                remedy="Check [lake] in wattledger.toml, and that PostgreSQL and the data can be reached from here",
            ) from None


def read_snapshot(con: duckdb.DuckDBPyConnection) -> int:
    """The state of the lake that this connection sees, for others to read the same."""
    [(number,)] = con.execute(f"FROM ducklake_current_snapshot({quote_literal(NAME)})").fetchall()
    return int(number)


def is_lake(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether a connection writes to a lake."""
    return bool(
        con.execute(
            "FROM duckdb_databases() WHERE database_name = $name", {"name": _LOCKS}
        ).fetchall()
    )


@contextmanager
def hold_lock(con: duckdb.DuckDBPyConnection, name: str, wait_s: float) -> Iterator[None]:
    """Hold the lake's lock of a name.

    Raises:
        WarehouseBusy: another process still holds it after `wait_s`.
    """
    number = zlib.crc32(name.encode()) & 0x7FFFFFFF
    holder = con.cursor()
    try:
        # Locks belong to a transaction of PostgreSQL: one that is left open while the lock is held.
        holder.execute("BEGIN")
        ask = quote_literal(f"SELECT pg_try_advisory_xact_lock({_CLASS}, {number})")
        deadline = time.monotonic() + wait_s
        while not holder.execute(f"SELECT * FROM postgres_query('{_LOCKS}', {ask})").fetchall()[0][
            0
        ]:
            if time.monotonic() > deadline:
                raise WarehouseBusy(
                    f"another process is at it ({name})",
                    where="the lake",
                    remedy="Wait for it to end",
                )
            time.sleep(_POLL_S)
        yield
    finally:
        with suppress(duckdb.Error):
            holder.execute("ROLLBACK")
        holder.close()


@contextmanager
def explain_conflicts() -> Iterator[None]:
    """Turn a commit that came too late into a sentence."""
    try:
        yield
    except duckdb.Error as error:
        if "conflict" not in str(error).lower():
            raise
        raise WarehouseBusy(
            f"another process has written in between: {str(error).splitlines()[-1][:200]}",
            where="the lake",
            remedy="Run it again: nothing of this was written",
        ) from None


_OPTIONS = {
    # Differences of numbers rather than numbers: a third smaller, and faster to write.
    "parquet_version": "2",
    # Workers read a snapshot for the length of a computation; nothing else asks for an old one.
    "expire_older_than": "2 days",
    # Files that a killed process left go, too: no load takes as long.
    "delete_older_than": "2 days",
    "rewrite_delete_threshold": "0.3",
}


def _set_options(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Set the options that the lake does not have yet."""
    lake = quote_literal(name)
    [(present,)] = con.execute(f"SELECT list(option_name) FROM ducklake_options({lake})").fetchall()
    for option, value in _OPTIONS.items():
        if option not in present:
            con.execute(
                f"CALL ducklake_set_option({lake}, {quote_literal(option)}, {quote_literal(value)})"
            )


def merge_files(con: duckdb.DuckDBPyConnection) -> None:
    """Merge small files, and delete what is no longer needed, as the lake's options say."""
    try:
        con.execute("CHECKPOINT")
    except duckdb.TransactionException as error:
        # Another process loads: it is done the next time.
        if "conflict" not in str(error).lower():
            raise


def _load_extension(con: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load an extension of DuckDB: from its Python package, else where `INSTALL` put it."""
    package = importlib.util.find_spec(f"duckdb_extension_{extension}")
    for folder in (package and package.submodule_search_locations) or ():
        for path in Path(folder).rglob(f"v{duckdb.__version__}/*.duckdb_extension"):
            con.execute(f"LOAD {quote_literal(path)}")
            return
    try:
        con.execute(f"LOAD {extension}")
    except duckdb.Error:
        raise WarehouseError(
            f"DuckDB {duckdb.__version__} has no extension {extension} here",
            where="[lake]",
            remedy="Install wattledger[cluster], or run INSTALL "
            f"{extension} in DuckDB where there is internet",
        ) from None


def _create_secret(settings: Lake) -> str:
    """SQL that gives DuckDB the keys of the object store, from the environment."""
    values = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", ""),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN", ""),
        "REGION": settings.s3_region,
        "ENDPOINT": settings.s3_endpoint,
        "URL_STYLE": "path" if settings.s3_endpoint else "",
    }
    options = ["TYPE s3", f"USE_SSL {str(settings.s3_use_ssl).lower()}"]
    options += [f"{name} {quote_literal(value)}" for name, value in values.items() if value]
    return f"CREATE OR REPLACE SECRET wattledger ({', '.join(options)})"
