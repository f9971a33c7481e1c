"""A journal: the readings of the segment that is being written, as an SQLite database.

Every flush is a synced transaction: what was flushed survives a kill and a power cut, and its user can
read it meanwhile; others are given copies, as whoever may read a database may also lock it. `wattledger.spool.seal` turns a journal into a Parquet segment.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wattledger.files import is_on_network, sync_folder
from wattledger.readings import QUANTITIES, Gpu, Values

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE gpu (no INTEGER PRIMARY KEY, uuid TEXT NOT NULL, info TEXT NOT NULL);
CREATE TABLE reading (gpu INTEGER NOT NULL, ts_us INTEGER NOT NULL, {", ".join(QUANTITIES)});
CREATE TABLE event (ts_us INTEGER NOT NULL, gpu_uuid TEXT, event TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE clock (ts_us INTEGER NOT NULL, offset_us INTEGER NOT NULL);
CREATE TABLE host (ts_us INTEGER NOT NULL, span_us INTEGER NOT NULL, component TEXT NOT NULL,
    energy_mj INTEGER NOT NULL, is_modelled INTEGER NOT NULL, method TEXT NOT NULL);
"""

Reading = tuple[Gpu, int, Values]
"""GPU, UTC in microseconds, values."""

Event = tuple[int, str | None, str, str]
"""UTC in microseconds, GPU (None: the host), what, detail."""

HostEnergy = tuple[int, int, str, int, bool, str]
"""UTC in microseconds at the end, length in microseconds, component, energy_mj, modelled, method."""

_SIDE_FILES = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps beside a database."""


class Journal:
    """The readings of a segment that is being written."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self._numbers: dict[str, int] = {}
        """Identity and abilities of a GPU, as JSON -> its number in this journal."""
        self._con = sqlite3.connect(path, isolation_level=None, timeout=5)
        try:
            # SQLite's write-ahead log needs shared memory, which network file systems lack.
            mode = "TRUNCATE" if is_on_network(path.parent) else "WAL"
            self._con.execute(f"PRAGMA journal_mode = {mode}")
            self._con.execute("PRAGMA synchronous = FULL")
            self._con.execute("PRAGMA cache_size = -512")
            self._con.executescript(f"BEGIN; {_SCHEMA}")
            self._con.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in meta.items()],
            )
            self._con.execute("COMMIT")
            sync_folder(path.parent)
        except BaseException:
            self._con.close()
            raise

    def add(
        self,
        gpus: Iterable[Gpu],
        readings: Sequence[Reading],
        events: Sequence[Event],
        host: Sequence[HostEnergy],
        clock: tuple[int, int],
    ) -> None:
        """Store all of it, or nothing: on return it is on the disk.

        Args:
            gpus: at least the GPUs of the readings.
            readings: readings of GPUs.
            events: what happened.
            host: energy of CPU and memory.
            clock: UTC in microseconds, and how far the wall clock is off.

        Raises:
            sqlite3.Error: the disk is full or failed.
        """
        numbers = dict(self._numbers)
        self._con.execute("BEGIN IMMEDIATE")
        try:
            number_of = self._number(gpus, numbers)
            marks = ", ".join("?" * (2 + len(QUANTITIES)))
            self._con.executemany(
                f"INSERT INTO reading (gpu, ts_us, {', '.join(QUANTITIES)}) VALUES ({marks})",
                ((number_of[id(gpu)], ts, *values) for gpu, ts, values in readings),
            )
            self._con.executemany(
                "INSERT INTO event (ts_us, gpu_uuid, event, detail) VALUES (?, ?, ?, ?)", events
            )
            self._con.executemany(
                "INSERT INTO host (ts_us, span_us, component, energy_mj, is_modelled, method) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                host,
            )
            self._con.execute("INSERT INTO clock (ts_us, offset_us) VALUES (?, ?)", clock)
            self._con.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._con.execute("ROLLBACK")
            raise
        self._numbers = numbers

    def _number(self, gpus: Iterable[Gpu], numbers: dict[str, int]) -> dict[int, int]:
        """Number the GPUs that are new to `numbers`; the number of each by its Python id."""
        number_of = {}
        for gpu in gpus:
            info = json.dumps(gpu.as_json())
            if info not in numbers:
                numbers[info] = len(numbers)
                self._con.execute(
                    "INSERT INTO gpu (no, uuid, info) VALUES (?, ?, ?)",
                    (numbers[info], gpu.uuid, info),
                )
            number_of[id(gpu)] = numbers[info]
        return number_of

    def copy_to(self, path: Path) -> None:
        """Write a copy of what is stored into a file that others may open, in one step.

        Raises:
            sqlite3.Error, OSError: the disk is full or failed.
        """
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        try:
            self._con.execute("VACUUM INTO ?", (str(part),))
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._con.close()


def list_files(journal: Path) -> list[Path]:
    """Where a journal's files may lie; its database comes last."""
    return [Path(f"{journal}{ending}") for ending in (*_SIDE_FILES, "")]


def delete_journal(journal: Path) -> None:
    """Delete a journal and the files that SQLite keeps beside it."""
    for path in list_files(journal):
        path.unlink(missing_ok=True)
