"""What can go wrong for a user, one exception per kind of mistake, each with its exit code.

A message says what happened, where, and what to do. `docs/cli.md` lists the codes.
"""

from __future__ import annotations

from typing import Any


class WattledgerError(Exception):
    """Base: something the user can act on."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}. {self.remedy}" if self.remedy else head


class UsageError(WattledgerError):
    """A command or setting that makes no sense."""

    exit_code = 1


class SettingsError(UsageError):
    """wattledger.toml cannot be read, or says something impossible."""


class BadInput(WattledgerError):
    """Data that cannot be used. `where` names file, row, column and value."""

    exit_code = 2


class SourceError(WattledgerError):
    """An outside system does not answer, refuses, or answers nonsense.

    Attributes:
        transient: It may help to ask again.
        retry_after_s: When, if the system said so.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.transient, self.retry_after_s = transient, retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_source_error, (
            self.what,
            self.where,
            self.remedy,
            self.transient,
            self.retry_after_s,
        )


def _rebuild_source_error(
    what: str, where: str, remedy: str, transient: bool, retry_after_s: float | None
) -> SourceError:
    """A `SourceError` again, after it was pickled on its way through Prefect."""
    return SourceError(
        what, where=where, remedy=remedy, transient=transient, retry_after_s=retry_after_s
    )


class GateFailed(WattledgerError):
    """A check refused to let figures be published; what was published stands."""

    exit_code = 3


class NotAsPublished(WattledgerError):
    """What is read, or what figures would be computed from, is not what Wattledger wrote."""

    exit_code = 3


class WarehouseBusy(WattledgerError):
    """Another process is writing the warehouse."""

    exit_code = 4


class WarehouseError(WattledgerError):
    """A database cannot be opened, read or written. What follows says why; waiting helps with none of it."""

    exit_code = 5


class WarehouseDamaged(WarehouseError):
    """A database's bytes are not what was written, or it is no database at all."""


class WarehouseNewer(WarehouseError):
    """A newer Wattledger, or a newer DuckDB, wrote it."""


class WarehouseOlder(WarehouseError):
    """An older Wattledger wrote it, or none did."""


class WarehouseForbidden(WarehouseError):
    """This user may not read or write it, or nobody may: a read-only file system."""


class DiskFailed(WarehouseError):
    """The disk is full, a quota or limit is reached, or the device fails."""


class OutOfMemory(WattledgerError):
    """A computation needs more memory than it may have. It says nothing about figures."""

    exit_code = 8


class OutOfTime(WattledgerError):
    """A computation takes longer than it may. It says nothing about figures."""

    exit_code = 8


class LakeAway(WarehouseError):
    """The lake's PostgreSQL or its data cannot be reached, or were lost during the work."""


class PipelineFailed(WattledgerError):
    """A part of a flow failed for a reason that is not the input's."""

    exit_code = 6


def locate(path: object, row: int | None = None, column: str = "", value: object = None) -> str:
    """The name of a place in a file: `log.csv, row 17, column power.draw, value '12x W'`."""
    parts = [str(path)]
    if row is not None:
        parts.append(f"row {row}")
    if column:
        parts.append(f"column {column!r}")
    if value is not None:
        parts.append(f"value {str(value)[:80]!r}")
    return ", ".join(parts)
