"""A warehouse that many machines share: DuckLake, its catalogue in PostgreSQL, its rows in Parquet files.

SQL, flows and transforms are the same as with a file. What a file does by being locked, a lake does by
turns: advisory locks of PostgreSQL, which end with the connection of whoever holds them.
"""

from __future__ import annotations

import importlib.util
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from flows.errors import LakeAway, WarehouseBusy, WarehouseError
from flows.settings import Lake

_TURNS = "turns"
"""The catalogue's own database, attached for its locks."""
_CLASS = zlib.crc32(b"wattledger") & 0x7FFFFFFF
_POLL_S = 0.05
_ATTACH_S = 60.0


def attach(con: duckdb.DuckDBPyConnection, of: Lake, name: str, *, read_only: bool) -> None:
    """Attach a lake under a name; to write, with the locks that writers take turns by.

    Raises:
        WarehouseError: an extension is missing, or catalogue or data can't be reached.
    """
    try:
        for extension in ("ducklake", "postgres_scanner", *(["httpfs"] if of.is_remote else [])):
            _load(con, extension)
        if of.is_remote:
            con.execute(_secret(of))
        only = ", READ_ONLY" if read_only else ""
        if of.snapshot is not None:
            only += f", SNAPSHOT_VERSION {of.snapshot}"
        attach = f"ATTACH {_text(of.attach)} AS {name} (DATA_PATH {_text(of.data_path)}{only})"
        if read_only:
            con.execute(attach)
            return
        con.execute(f"ATTACH {_text(of.postgres)} AS {_TURNS} (TYPE postgres)")
        # The first to attach it makes the lake.
        with turn(con, "attach", _ATTACH_S):
            con.execute(attach)
            _set_options(con, name)
    except duckdb.Error as error:
        raise LakeAway(
            str(error).splitlines()[0][:300],
            where=str(of),
            remedy="Check [lake] in wattledger.toml, and that PostgreSQL and the data can be reached from here",
        ) from None


def is_lake(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether a connection writes to a lake."""
    return bool(
        con.execute(
            "FROM duckdb_databases() WHERE database_name = $name", {"name": _TURNS}
        ).fetchall()
    )


@contextmanager
def turn(con: duckdb.DuckDBPyConnection, name: str, wait_s: float) -> Iterator[None]:
    """Hold the lake's lock of a name.

    Raises:
        WarehouseBusy: another process still holds it after `wait_s`.
    """
    number = zlib.crc32(name.encode()) & 0x7FFFFFFF
    holder = con.cursor()
    try:
        # Locks belong to a transaction of PostgreSQL: one that is left open while the turn lasts.
        holder.execute("BEGIN")
        ask = f"SELECT pg_try_advisory_xact_lock({_CLASS}, {number})"
        until = time.monotonic() + wait_s
        while not holder.execute(
            f"SELECT * FROM postgres_query('{_TURNS}', {_text(ask)})"
        ).fetchall()[0][0]:
            if time.monotonic() > until:
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
def conflicts() -> Iterator[None]:
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
    # What a killed process left, too: no load takes as long.
    "delete_older_than": "2 days",
    "rewrite_delete_threshold": "0.3",
}


def _set_options(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Set what the lake's options do not say yet."""
    [(told,)] = con.execute(
        f"SELECT list(option_name) FROM ducklake_options({_text(name)})"
    ).fetchall()
    for option, value in _OPTIONS.items():
        if option not in told:
            con.execute(f"CALL ducklake_set_option({_text(name)}, {_text(option)}, {_text(value)})")


def tidy(con: duckdb.DuckDBPyConnection) -> None:
    """Merge small files, and delete what is no longer needed, as the lake's options say."""
    try:
        con.execute("CHECKPOINT")
    except duckdb.TransactionException as error:
        # Somebody loads: it is done the next time.
        if "conflict" not in str(error).lower():
            raise


def _load(con: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load an extension of DuckDB: from its Python package, else where `INSTALL` put it."""
    found = importlib.util.find_spec(f"duckdb_extension_{extension}")
    for folder in (found and found.submodule_search_locations) or ():
        for path in Path(folder).rglob(f"v{duckdb.__version__}/*.duckdb_extension"):
            con.execute(f"LOAD {_text(path)}")
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


def _secret(of: Lake) -> str:
    given = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", ""),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN", ""),
        "REGION": of.s3_region,
        "ENDPOINT": of.s3_endpoint,
        "URL_STYLE": "path" if of.s3_endpoint else "",
    }
    options = ", ".join(f"{name} {_text(value)}" for name, value in given.items() if value)
    return (
        "CREATE OR REPLACE SECRET wattledger (TYPE s3, USE_SSL "
        f"{str(of.s3_use_ssl).lower()}{', ' if options else ''}{options})"
    )


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
