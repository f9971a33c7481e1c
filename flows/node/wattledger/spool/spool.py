"""The spool: where a node keeps its readings until somebody fetches them.

SPOOL/HOST/collector.lock      held by the collector that runs
SPOOL/HOST/collector.json      its state, written anew at every flush
SPOOL/HOST/open/*.sqlite       journals: the readings of the segment that is being written
SPOOL/HOST/recent.sqlite       a copy of the journal, for users who may not open it
SPOOL/HOST/*.parquet           finished segments
SPOOL/HOST/runs/UID/*.json     run records of a user, in a folder of that user

Only the collector writes into SPOOL/HOST. Every user of the host may add a folder to `runs`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import time
from pathlib import Path
from typing import Any

from wattledger.files import make_own_folder, open_plain, read_plain, write_file
from wattledger.process import pid_namespace, start_token
from wattledger.spool.journal import Journal, delete_journal

SYSTEM_SPOOL = Path("/var/lib/wattledger/spool")
JOURNALS, RUNS = "open", "runs"
RECORD_SEEN = "record_seen"
"""Event of a segment: a finished run record, by digest and owner, that the collector saw."""
_MOST_STATUS = 16 << 20
"""Bytes that collector.json may have."""
_SILENT_S = 60.0
"""A collector whose process cannot be seen from here still runs while its state is no older."""
_USER_FOLDER = re.compile(r"(0|[1-9][0-9]{0,9})(-[0-9a-f]{8})?")

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


def parse_user_folder(name: str) -> int | None:
    """The user whose records a folder in `runs` holds, by its name; None where it is no such folder."""
    found = _USER_FOLDER.fullmatch(name)
    return int(found[1]) if found else None


class Spool:
    """The folder of one host in a spool."""

    def __init__(self, root: Path, host: str) -> None:
        if "/" in host or "\0" in host or host in ("", ".", ".."):
            raise OSError(errno.EINVAL, "not the name of a host (WATTLEDGER_HOST)", host)
        self.root, self.host = root, host
        self.folder = root / host
        self.journals = self.folder / JOURNALS
        self.runs = self.folder / RUNS
        self.recent = self.folder / "recent.sqlite"
        self._lock_path = self.folder / "collector.lock"
        self._status_path = self.folder / "collector.json"
        self._lock: Any = None

    def create(self) -> None:
        """Make the folders of a collector.

        Raises:
            OSError: they cannot be made or written, or are another user's.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.journals, self.runs):
            make_own_folder(folder)
        # Whoever may open a journal may lock it, and keep the collector from writing.
        self.journals.chmod(0o700)
        if os.geteuid() == 0:
            # Like /tmp: every user of the host may add a folder, and change only their own.
            self.runs.chmod(0o1777)
            self.make_own_runs()

    def make_own_runs(self) -> Path:
        """The folder in `runs` where this user's records go, made if it is not there.

        Where another user has taken its name, ours has a name with a random ending.

        Raises:
            OSError: it cannot be made.
        """
        uid = os.geteuid()
        folder = self.runs / str(uid)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o755)
            return folder
        with contextlib.suppress(OSError):
            make_own_folder(folder)
            if folder.lstat().st_uid != 0 or uid == 0:
                return folder
        folder = self.runs / f"{uid}-{secrets.token_hex(4)}"
        folder.mkdir(0o755)
        return folder

    def lock(self) -> bool:
        """Become this host's collector; False where another one is."""
        # Opened and kept: the lock lives as long as the process, however it ends. Only its owner may open it:
        # whoever could read it could hold it, and keep the collector from starting.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.fdopen(os.open(self._lock_path, flags, 0o600), "r+b", buffering=0)
        try:
            os.fchmod(lock.fileno(), 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def read_running_status(self) -> dict[str, Any] | None:
        """The state of the collector that runs here; None where none runs."""
        try:
            with open_plain(self._lock_path) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return self.read_status()
        except PermissionError:
            # Another user's collector: its lock is closed to us, its state is not.
            status = self.read_status()
            return status if self._is_alive(status) else None
        except OSError:
            pass
        return None

    def _is_alive(self, status: dict[str, Any]) -> bool:
        """Whether the process of a state runs, as far as can be seen without its lock."""
        pid = status.get("pid")
        if status.get("state") != "collecting" or not isinstance(pid, int):
            return False
        if status.get("pid_namespace") == pid_namespace():
            return pid > 0 and start_token(pid) == status.get("pid_started")
        with contextlib.suppress(OSError):
            return time.time() - self._status_path.lstat().st_mtime < _SILENT_S
        return False

    def read_status(self) -> dict[str, Any]:
        """The last collector.json; empty where there is none."""
        try:
            status = json.loads(read_plain(self._status_path, _MOST_STATUS))
        except (OSError, ValueError, RecursionError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, status: dict[str, Any]) -> None:
        """Write collector.json. A full disk is no reason to stop."""
        with contextlib.suppress(OSError):
            write_file(self._status_path, json.dumps(status, indent=2), sync=False)

    def list_journals(self) -> list[Path]:
        """Journals in the folder, oldest first; what is no regular file is none."""
        return [
            path
            for path in sorted(self.journals.glob("*.sqlite"))
            if stat.S_ISREG(path.lstat().st_mode)
        ]

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
                        if entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
        return total
