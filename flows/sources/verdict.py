"""Whatever goes wrong while one file is read is that file's verdict, and never the end of the others."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

import polars as pl

from flows.errors import BadInput, SettingsError, UsageError, WattledgerError
from flows.files import hash_file, name_for_people, refuse_unreadable_name

_log = logging.getLogger(__name__)

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
"""Errors that say nothing of the file: a full or read-only disk, no more open files."""


@contextmanager
def judge_file(path: Path) -> Iterator[None]:
    """Make a verdict on a file of whatever its reader raises.

    Args:
        path: The file.

    Raises:
        BadInput: the reader refused the file, or failed on it; then the log has the place of the failure.
        WattledgerError: what says nothing of the file, as it came.
    """
    try:
        refuse_unreadable_name(path)
        yield
    except SettingsError:
        raise
    except UsageError as error:
        # What this file lacks, another one of the same call may have.
        raise BadInput(error.what, where=error.where, remedy=error.remedy) from None
    except WattledgerError:
        raise
    except RecursionError:
        raise BadInput(
            "nested too deeply", where=name_for_people(path), remedy="Fetch it again"
        ) from None
    except MemoryError:
        raise BadInput(
            "too large for the memory of this machine",
            where=name_for_people(path),
            remedy="Split the file, or load it on a larger machine",
        ) from None
    except (Exception, pl.exceptions.PanicException) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        _log.debug("%s cannot be read", name_for_people(path), exc_info=True)
        frames = extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if "flows" in Path(f.filename).parts), frames[-1])
        first = (str(error).strip() or "no message").splitlines()[0]
        raise BadInput(
            f"cannot be read: {type(error).__name__}: {first[:200]} "
            f"({Path(place.filename).name}, line {place.lineno})",
            where=name_for_people(path),
            remedy="Check the file; if it is sound, please report this with its first lines",
        ) from None


def identify_file(path: Path) -> str:
    """The digest of a file.

    Raises:
        BadInput: it cannot be read at all, or is none.
    """
    try:
        return hash_file(path)
    except OSError as error:
        raise BadInput(
            f"cannot be read: {error.strerror or error}",
            where=name_for_people(path),
            remedy="Check who may read it",
        ) from None
