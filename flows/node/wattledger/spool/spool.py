"""The spool: where a node keeps its readings until somebody fetches them.

    SPOOL/HOST/collector.lock      held by the collector that runs
    SPOOL/HOST/collector.json      what it says of itself, written anew at every flush
    SPOOL/HOST/open/*.sqlite       journals: the readings of the segment that is being written
    SPOOL/HOST/*.parquet           finished segments
    SPOOL/HOST/runs/*.json         run records

A journal is an SQLite database, every flush synced: what was flushed survives a kill and a power
cut, and others can read it meanwhile. `wattledger.spool.seal` turns it into a Parquet segment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import QUANTITIES, Gpu

SYSTEM_SPOOL = Path("/var/lib/wattledger/spool")
JOURNALS, RUNS = "open", "runs"

SAMPLE_KEY, COLLECTOR_KEY, EVENTS_KEY = (
    "wattledger.sample",
    "wattledger.collector",
    "wattledger.events",
)
"""Parquet metadata of segments: `true` for readings of the generator; who recorded and with what
abilities; what happened (docs/collector.md)."""

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE gpu (no INTEGER PRIMARY KEY, uuid TEXT NOT NULL, info TEXT NOT NULL);
CREATE TABLE reading (gpu INTEGER NOT NULL, ts_us INTEGER NOT NULL, {", ".join(QUANTITIES)});
CREATE TABLE event (ts_us INTEGER NOT NULL, gpu_uuid TEXT, event TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE clock (ts_us INTEGER NOT NULL, offset_us INTEGER NOT NULL);
CREATE TABLE host (ts_us INTEGER NOT NULL, span_us INTEGER NOT NULL, component TEXT NOT NULL,
    energy_mj INTEGER NOT NULL, is_modelled INTEGER NOT NULL, method TEXT NOT NULL);
"""

Event = tuple[int, str | None, str, str]
"""UTC in microseconds, GPU (None: the host), what, detail."""

HostEnergy = tuple[int, int, str, int, bool, str]
"""UTC in microseconds at the end, length in microseconds, component, energy_mj, modelled, method."""


def hostname() -> str:
    """The name under which this host's readings are kept: `WATTLEDGER_HOST`, or its short name."""
    return os.environ.get("WATTLEDGER_HOST") or socket.gethostname().split(".")[0] or "localhost"


def default_root() -> Path:
    """`WATTLEDGER_SPOOL`, else the system's spool where it may be written, else the user's."""
    if given := os.environ.get("WATTLEDGER_SPOOL"):
        return Path(given)
    if os.access(SYSTEM_SPOOL, os.W_OK):
        return SYSTEM_SPOOL
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "wattledger" / "spool"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_NETWORK = ("nfs", "cifs", "smb", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "9p", "fuse")


def on_network(folder: Path) -> bool:
    """Whether a folder lies on a file system of another machine, as far as this one can tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return False
    real = folder.resolve()
    fitting = [m for m in mounts if len(m) > 2 and real.is_relative_to(m[1].replace("\\040", " "))]
    kind = max(fitting, key=lambda mount: len(mount[1]), default=["", "", ""])[2]
    return kind.startswith(_NETWORK)


def write_file(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a file in one step: a reader sees the old or the new one, whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


class Journal:
    """The readings of a segment that is being written."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self._numbers: dict[str, int] = {}
        self._con = sqlite3.connect(path, isolation_level=None, timeout=5)
        try:
            # SQLite's write-ahead log needs shared memory, which network file systems lack.
            mode = "TRUNCATE" if on_network(path.parent) else "WAL"
            self._con.execute(f"PRAGMA journal_mode = {mode}")
            self._con.execute("PRAGMA synchronous = FULL")
            self._con.execute("PRAGMA cache_size = -512")
            self._con.executescript(f"BEGIN; {_SCHEMA}")
            self._con.executemany(
                "INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
            )
            self._con.execute("COMMIT")
            sync_folder(path.parent)
        except BaseException:
            self._con.close()
            raise

    def add(
        self,
        gpus: Iterable[Gpu],
        readings: Sequence[tuple[Gpu, int, tuple[int | None, ...]]],
        events: Sequence[Event],
        host: Sequence[HostEnergy],
        clock: tuple[int, int],
    ) -> None:
        """Store all of it, or nothing: on return it is on the disk.

        Raises:
            sqlite3.Error: the disk is full or failed.
        """
        numbers = dict(self._numbers)
        self._con.execute("BEGIN IMMEDIATE")
        try:
            for gpu in gpus:
                info = json.dumps(gpu.as_json())
                if info not in numbers:
                    numbers[info] = len(numbers)
                    self._con.execute(
                        "INSERT INTO gpu VALUES (?, ?, ?)", (numbers[info], gpu.uuid, info)
                    )
            of = {id(gpu): numbers[json.dumps(gpu.as_json())] for gpu in gpus}
            marks = ", ".join("?" * (2 + len(QUANTITIES)))
            self._con.executemany(
                f"INSERT INTO reading VALUES ({marks})",
                ((of[id(gpu)], ts, *values) for gpu, ts, values in readings),
            )
            self._con.executemany("INSERT INTO event VALUES (?, ?, ?, ?)", events)
            self._con.executemany("INSERT INTO host VALUES (?, ?, ?, ?, ?, ?)", host)
            self._con.execute("INSERT INTO clock VALUES (?, ?)", clock)
            self._con.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._con.execute("ROLLBACK")
            raise
        self._numbers = numbers

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._con.close()


class Spool:
    """The folder of one host in a spool."""

    def __init__(self, root: Path, host: str) -> None:
        self.root, self.host = root, host
        self.folder = root / host
        self.journals = self.folder / JOURNALS
        self.runs = self.folder / RUNS
        self._lock: Any = None

    def create(self) -> None:
        """Make the folders.

        Raises:
            OSError: they can't be made or written.
        """
        self.journals.mkdir(parents=True, exist_ok=True)
        if not self.runs.exists():
            self.runs.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                # Like /tmp: every user of the host may leave run records, nobody another's.
                self.runs.chmod(0o1777)

    def take(self) -> bool:
        """Become this host's collector; False where another one is."""
        # Opened and kept: the lock lives as long as the process, however it ends.
        lock = (self.folder / "collector.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def running(self) -> dict[str, Any] | None:
        """What the collector that runs here says of itself; None where none runs."""
        try:
            with (self.folder / "collector.lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return self.status()
        except OSError:
            pass
        return None

    def status(self) -> dict[str, Any]:
        """The last collector.json; empty where there is none."""
        try:
            found = json.loads((self.folder / "collector.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def say(self, status: dict[str, Any]) -> None:
        """Write collector.json. A full disk is no reason to stop."""
        with contextlib.suppress(OSError):
            write_file(self.folder / "collector.json", json.dumps(status, indent=2), sync=False)

    def left_over(self) -> list[Path]:
        """Journals in the folder, oldest first."""
        return sorted(self.journals.glob("*.sqlite"))

    def begin(self, meta: dict[str, Any], at_us: int) -> Journal:
        """Start a journal.

        Raises:
            sqlite3.Error, OSError: the disk is full or failed.
        """
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(at_us / 1e6))
        path = self.journals / f"{self.host}-{moment}.{at_us % 1_000_000:06d}Z.sqlite"
        try:
            return Journal(path, meta)
        except BaseException:
            discard(path)
            raise

    def bytes(self) -> int:
        """Size of all that is kept here."""
        total = 0
        for folder in (self.folder, self.journals):
            with contextlib.suppress(OSError), os.scandir(folder) as found:
                for entry in found:
                    with contextlib.suppress(OSError):
                        if entry.is_file():
                            total += entry.stat().st_size
        return total


def discard(journal: Path) -> None:
    """Delete a journal and the files SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        Path(f"{journal}{suffix}").unlink(missing_ok=True)
