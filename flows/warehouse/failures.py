"""What an error of DuckDB, or of the disk below it, means for whoever meets it.

DuckDB says so by the type of its exception and by how the sentence begins or ends; names of files, which may say
anything, are taken out before.
"""

from __future__ import annotations

import errno
import os
import re

import duckdb

from flows.errors import (
    DiskFailed,
    OutOfMemory,
    WarehouseBusy,
    WarehouseDamaged,
    WarehouseError,
    WarehouseForbidden,
    WarehouseNewer,
    WattledgerError,
)
from flows.settings import PUBLISHED_DATABASE

_SAFE = "what was acknowledged is stored, nothing is half done"
_RESTORE = (
    "Restore it from a copy, or load its files into a new one; publications are files of their own"
)

_BY_ERRNO: dict[int, tuple[type[WarehouseError], str, str]] = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        (DiskFailed, "cannot write: {}", f"Free some space and run it again: {_SAFE}"),
    ),
    errno.EIO: (DiskFailed, "the disk fails: {}", f"Check the disk: {_SAFE}"),
    errno.EROFS: (
        WarehouseForbidden,
        "cannot write: {}",
        f"Mount it for writing and run it again: {_SAFE}",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        (
            WarehouseForbidden,
            "this user may not: {}",
            f"Fix the permissions of the file and its folder and run it again: {_SAFE}",
        ),
    ),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
        (WarehouseError, "it cannot be opened: {}", "Check the path"),
    ),
}
_DISK = _BY_ERRNO.keys() - {
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
"""What of these is the disk's fault also where Python met it: it opens other files, too."""
_BY_STRERROR = {os.strerror(number): number for number in _BY_ERRNO}

_BUSY = "Could not set lock on file"
_NEWER = re.compile(r"Trying to read a database file with version number (\d+)")
_NO_DATABASE = re.compile(
    r'(The file .*is not a valid DuckDB database file|Extension ".*\.duckdb_extension" not found)',
    re.DOTALL,
)
"""DuckDB takes a file of another engine (SQLite) for one that an extension reads."""
_DAMAGED = re.compile(
    r"(Corrupt|Could not read enough bytes|Failure while replaying|Failed to deserialize)",
    re.IGNORECASE,
)
_FROM_STORAGE = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.FatalException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.ConnectionException,
)
"""Types of errors that a statement cannot be to blame for."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of bounded length."""
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__


def explain_failure(error: BaseException, where: object = "") -> WattledgerError | None:
    """The sentence for a database that failed; None where the statement is at fault.

    Args:
        error: What was raised.
        where: The database.
    """
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return _explain_memory(error, where)
    if isinstance(error, OSError):
        number = error.errno if error.errno in _DISK else 0
        return _explain_errno(number or 0, error.strerror or "", error.filename or where)
    if not isinstance(error, _FROM_STORAGE):
        return None
    text = str(error).replace(str(where), "it") if str(where) else str(error)
    kind, _, said = text.partition("Error: ")
    said = said if kind else text
    if said.startswith(_BUSY):
        return _explain_busy(said, where)
    if "Out of Memory Error: " in said:
        return _explain_memory(error, where)
    if found := _NEWER.match(said):
        return WarehouseNewer(
            f"a newer DuckDB wrote it (storage version {found[1]})",
            where=str(where),
            remedy="Upgrade Wattledger; this version leaves the file untouched",
        )
    if _NO_DATABASE.match(said):
        return WarehouseDamaged(
            "it is not a DuckDB file", where=str(where), remedy=f"Check the path. {_RESTORE}"
        )
    for line in text.splitlines():
        reason = line.rpartition(": ")[2].strip('"')
        if reason in _BY_STRERROR:
            return _explain_errno(_BY_STRERROR[reason], reason, where)
    if isinstance(error, duckdb.InternalException):
        return WarehouseError(
            f"DuckDB failed inside: {first_line(error)}", where=str(where), remedy=_RESTORE
        )
    if _DAMAGED.match(said) or isinstance(
        error, duckdb.SerializationException | duckdb.FatalException
    ):
        return WarehouseDamaged(
            f"it is damaged: {first_line(error)}", where=str(where), remedy=_RESTORE
        )
    return None


def _explain_memory(error: BaseException, where: object) -> OutOfMemory:
    return OutOfMemory(
        f"not enough memory: {first_line(error).removeprefix('Out of Memory Error: ')}",
        where=str(where),
        remedy="Figures were neither confirmed nor changed. Free memory, or space for what is set aside "
        "on disk meanwhile (.wattledger/spill), and run it again",
    )


def _explain_busy(said: str, where: object) -> WarehouseBusy:
    holder = re.search(r"\(PID (\d+)\)", said)
    return WarehouseBusy(
        "another process is writing it" + (f" (process {holder[1]})" if holder else ""),
        where=str(where),
        remedy=f"Wait for it to end, or query published/{PUBLISHED_DATABASE}, which is never locked",
    )


def _explain_errno(number: int, reason: str, where: object) -> WarehouseError | None:
    if number not in _BY_ERRNO:
        return None
    kind, sentence, remedy = _BY_ERRNO[number]
    return kind(sentence.format(reason), where=str(where), remedy=remedy)
