"""The spool: where a node keeps its readings until somebody fetches them.

SPOOL/HOST/collector.lock      held by the collector that runs
SPOOL/HOST/collector.json      its state, written anew at every flush
SPOOL/HOST/open/*.sqlite       journals: the readings of the segment that is being written
SPOOL/HOST/*.parquet           finished segments
SPOOL/HOST/runs/*.json         run records
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from wattledger.files import write_file
from wattledger.spool.journal import Journal, delete_journal

SYSTEM_SPOOL = Path("/var/lib/wattledger/spool")
JOURNALS, RUNS = "open", "runs"

SAMPLE_KEY, COLLECTOR_KEY, EVENTS_KEY = (
    "wattledger.sample",
    "wattledger.collector",
    "wattledger.events",
)
"""Parquet metadata of segments: `true` for generated readings; who recorded, and what each GPU can
answer; what happened (docs/collector.md)."""


def hostname() -> str:
    """The name under which this host's readings are kept: `WATTLEDGER_HOST`, or its short name."""
    return os.environ.get("WATTLEDGER_HOST") or socket.gethostname().split(".")[0] or "localhost"


def default_root() -> Path:
    """`WATTLEDGER_SPOOL`, else the system's spool where it may be written, else the user's."""
    if spool := os.environ.get("WATTLEDGER_SPOOL"):
        return Path(spool)
    if os.access(SYSTEM_SPOOL, os.W_OK):
        return SYSTEM_SPOOL
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "wattledger" / "spool"


class Spool:
    """The folder of one host in a spool."""

    def __init__(self, root: Path, host: str) -> None:
        self.root, self.host = root, host
        self.folder = root / host
        self.journals = self.folder / JOURNALS
        self.runs = self.folder / RUNS
        self._lock_path = self.folder / "collector.lock"
        self._status_path = self.folder / "collector.json"
        self._lock: Any = None

    def create(self) -> None:
        """Make the folders.

        Raises:
            OSError: they cannot be made or written.
        """
        self.journals.mkdir(parents=True, exist_ok=True)
        if not self.runs.exists():
            self.runs.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                # Like /tmp: every user of the host may add run records, and change only their own.
                self.runs.chmod(0o1777)

    def lock(self) -> bool:
        """Become this host's collector; False where another one is."""
        # Opened and kept: the lock lives as long as the process, however it ends.
        lock = self._lock_path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def read_running_status(self) -> dict[str, Any] | None:
        """The state of the collector that runs here; None where none runs."""
        try:
            with self._lock_path.open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return self.read_status()
        except OSError:
            pass
        return None

    def read_status(self) -> dict[str, Any]:
        """The last collector.json; empty where there is none."""
        try:
            status = json.loads(self._status_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, status: dict[str, Any]) -> None:
        """Write collector.json. A full disk is no reason to stop."""
        with contextlib.suppress(OSError):
            write_file(self._status_path, json.dumps(status, indent=2), sync=False)

    def list_journals(self) -> list[Path]:
        """Journals in the folder, oldest first."""
        return sorted(self.journals.glob("*.sqlite"))

    def begin_journal(self, meta: dict[str, Any], at_us: int) -> Journal:
        """Start a journal.

        Raises:
            sqlite3.Error, OSError: the disk is full or failed.
        """
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(at_us / 1e6))
        path = self.journals / f"{self.host}-{moment}.{at_us % 1_000_000:06d}Z.sqlite"
        try:
            return Journal(path, meta)
        except BaseException:
            delete_journal(path)
            raise

    def sum_bytes(self) -> int:
        """Size of all that is kept here."""
        total = 0
        for folder in (self.folder, self.journals):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_file():
                            total += entry.stat().st_size
        return total
