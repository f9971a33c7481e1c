"""Which runs of this host are alive; a run whose process is gone gets its end from here.

The records are the users' own, so a beat does a bounded amount of work on each user's folder, whatever is
in it: a folder with too much is read over many beats, and no other user waits for it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from wattledger.files import describe_kind, open_folder, open_plain, read_open, write_file
from wattledger.process import pid_namespace, start_token
from wattledger.runs.records import MAX_BYTES, format_utc, parse_record, utc_now
from wattledger.spool.spool import parse_user_folder

BEAT_S = 10.0
"""How often a launcher touches its record, for collectors that cannot see its process."""
_SILENT_S = 60.0
"""A run of another container whose record was not touched for so long has ended."""
GRACE_S = 2.0
"""How long after the end of its process a run may take to write its end itself."""
_ENTRIES, _ENTRIES_OF_ALL, _BYTES = 1000, 10_000, 2 << 20
"""Files of a user's folder, and of `runs` itself, that are looked at in one beat, and bytes of records that are
read (one record more)."""
_MOST_FOLDERS, _OF_ONE_USER = 1024, 4
"""Folders that are looked after, and those of one user."""
_MOST_FILES, _MOST_OPEN = 20_000, 500
"""Files of a folder that are remembered, and runs that are open in it."""
_TOLD_PER_HOUR, _DAY_S = 600, 86_400.0
"""Records of a folder that segments tell of, and how old they may be by then."""
_TICK_NS = 100_000_000
"""A folder that changed so lately may change again without another time of change."""


class _Open(NamedTuple):
    """What is kept of a run that has not ended: a record may be large."""

    run_id: str
    pid: int
    pid_started: str
    pid_namespace: str


@dataclass(frozen=True)
class _Seen:
    """A file as it was when it was read."""

    inode: int
    mtime_ns: int
    owner: tuple[int, int]


@dataclass
class _Folder:
    """A folder of records, read bit by bit."""

    path: Path
    uid: int | None
    """Whose records it holds; None for `runs` itself, where older versions put them."""
    mtime_ns: int = -1
    entries: Iterator[str] | None = None
    files: dict[str, _Seen] = field(default_factory=dict)
    open: dict[str, _Open] = field(default_factory=dict)
    """Name of the file -> run that has not ended."""
    present: set[str] = field(default_factory=set)
    """Files that the reading under way has come across."""
    hour: int = -1
    told: int = 0
    """Records that were told of in this hour."""

    def begin_if_changed(self) -> None:
        """Begin to read the folder if anything was added to it or replaced in it since the last time."""
        with suppress(OSError):
            mtime_ns = self.path.lstat().st_mtime_ns
            if self.entries is None and mtime_ns != self.mtime_ns:
                is_settled = abs(time.time_ns() - mtime_ns) > _TICK_NS
                self.mtime_ns = mtime_ns if is_settled else -1
                self.present, self.entries = set(), self._list()

    def may_vouch(self, mtime: float) -> bool:
        """Whether one more record of this hour is told of; those of long ago were told of before."""
        hour = int(time.monotonic() // 3600)
        if hour != self.hour:
            self.hour, self.told = hour, 0
        self.told += 1
        return self.told <= _TOLD_PER_HOUR and time.time() - mtime < _DAY_S

    def _list(self) -> Iterator[str]:
        with suppress(OSError), open_folder(self.path) as handle, os.scandir(handle) as entries:
            for entry in entries:
                yield entry.name


class ActiveRuns:
    """The runs of this host that have not ended."""

    def __init__(
        self,
        folder: Path,
        host: str,
        alive: object = None,
        note: Callable[[str], None] = lambda text: None,
        saw: Callable[[str, int], None] = lambda sha256, uid: None,
    ) -> None:
        """Know the runs of a folder of records.

        Args:
            folder: `runs` of the host's spool.
            host: the host whose runs these are.
            alive: file of a record -> when the collector before this one last saw the run alive.
            note: takes a sentence on what is left alone, once for each file.
            saw: takes the digest of a record that has ended, and whose file it is.
        """
        self._host, self._note, self._saw = host, note, saw
        self._folders = {".": _Folder(folder, None)}
        self._gone_since: dict[tuple[str, str], float] = {}
        told = alive if isinstance(alive, Mapping) else {}
        self._before = {k: v for k, v in told.items() if isinstance(k, str) and isinstance(v, str)}
        """The same as the collector before this one left it; older versions name the record."""
        self.alive = dict(self._before)
        """File of a record, from `runs` -> when the run was last seen alive."""

    def read_changes(self) -> bool:
        """Go on reading what was written since the last time; returns whether there was a record."""
        changed = False
        for name, folder in list(self._folders.items()):
            folder.begin_if_changed()
            if folder.entries is not None:
                changed |= self._read_some(name, folder)
        return changed

    def _read_some(self, name: str, folder: _Folder) -> bool:
        """Read the next files of a folder."""
        assert folder.entries is not None
        changed, left = False, _BYTES
        most = _ENTRIES_OF_ALL if folder.uid is None else _ENTRIES
        try:
            with open_folder(folder.path) as handle:
                if folder.uid is not None and os.fstat(handle).st_uid != folder.uid:
                    raise OSError("it is another user's by now")
                for count, entry in enumerate(folder.entries, 1):
                    if folder.uid is None and parse_user_folder(entry) is not None:
                        self._add_folder(entry)
                    elif entry.endswith(".json") and entry[0] != ".":
                        size = self._take_record(name, folder, entry, handle)
                        changed, left = changed or size > 0, left - size
                    if count == most or left <= 0:
                        break
                else:
                    folder.entries = None
        except OSError:
            # The folder is gone, or a link by now.
            folder.entries, folder.present = None, set()
        if folder.entries is None:
            folder.files = {k: seen for k, seen in folder.files.items() if k in folder.present}
            folder.open = {k: record for k, record in folder.open.items() if k in folder.present}
        return changed

    def _take_record(self, name: str, folder: _Folder, entry: str, handle: int) -> int:
        """Read a record, unless too many of the folder are known; returns how many bytes were read."""
        if len(folder.present) >= _MOST_FILES:
            self._note(f"{name}: more than {_MOST_FILES:,} files; the others are left alone")
            return 0
        folder.present.add(entry)
        return self._read_record(name, folder, entry, handle)

    def _add_folder(self, name: str) -> None:
        """Look after the folder of a user, whoever it is named for; a link is none."""
        path = self._folders["."].path / name
        if name in self._folders or len(self._folders) >= _MOST_FOLDERS:
            return
        with suppress(OSError):
            found = path.lstat()
            of_user = sum(folder.uid == found.st_uid for folder in self._folders.values())
            if not stat.S_ISDIR(found.st_mode):
                self._note(f"{name} is left alone: {describe_kind(found.st_mode)}, not a folder")
            elif of_user < _OF_ONE_USER:
                self._folders[name] = _Folder(path, found.st_uid)

    def _read_record(self, name: str, folder: _Folder, entry: str, handle: int) -> int:
        """Read a record if it is new or another by now; returns how many bytes were read."""
        try:
            found = os.stat(entry, dir_fd=handle, follow_symlinks=False)
        except OSError:
            return 0
        seen = _Seen(found.st_ino, found.st_mtime_ns, (found.st_uid, found.st_gid))
        if folder.files.get(entry) == seen:
            return 0
        folder.files[entry] = seen
        folder.open.pop(entry, None)
        try:
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{describe_kind(found.st_mode)}, not a run record")
            if folder.uid is not None and found.st_uid not in (folder.uid, 0):
                raise ValueError(f"a file of user {found.st_uid} in a folder of user {folder.uid}")
            with open_plain(entry, handle) as file:
                data = read_open(file, MAX_BYTES, entry)
            record = parse_record(data)
        except (OSError, ValueError) as error:
            self._note(f"{name}/{entry} is left alone: {error}")
            return min(found.st_size, MAX_BYTES)
        if record.ended_at is None and record.host == self._host:
            if len(folder.open) < _MOST_OPEN:
                folder.open[entry] = _Open(
                    record.run_id, record.pid, record.pid_started, record.pid_namespace
                )
            else:
                self._note(f"{name}: more than {_MOST_OPEN:,} open runs; the others are left alone")
        elif record.host == self._host and folder.may_vouch(found.st_mtime):
            self._saw(hashlib.sha256(data).hexdigest(), found.st_uid)
        return len(data)

    def end_lost_runs(self) -> None:
        """See which runs are alive; one that is gone ended when it was last seen."""
        open_keys = set()
        for name, folder in self._folders.items():
            for entry, record in list(folder.open.items()):
                key, file = f"{name}/{entry}", (name, entry)
                open_keys.add(key)
                if (seen_at := _last_seen_alive(record, folder.path / entry)) is not None:
                    self.alive[key] = seen_at
                    self._gone_since.pop(file, None)
                    continue
                gone_since = self._gone_since.setdefault(file, time.monotonic())
                if time.monotonic() - gone_since >= GRACE_S:
                    del folder.open[entry], self._gone_since[file]
                    self._write_end(folder, entry, self.alive.get(key))
        self.alive = {key: seen_at for key, seen_at in self.alive.items() if key in open_keys}

    def _write_end(self, folder: _Folder, entry: str, seen_at: str | None) -> None:
        """Write the end of a run into its own file, whatever its fields say."""
        with suppress(OSError, ValueError), open_folder(folder.path) as handle:
            with open_plain(entry, handle) as file:
                owner = os.fstat(file)
                # The run may have written its end itself meanwhile.
                record = parse_record(read_open(file, MAX_BYTES, entry))
            if record.ended_at is None:
                seen_at = seen_at or self._before.get(record.record_id, "")
                record.ended_at = max(seen_at, record.started_at)
                record.ended_by = "lost"
                write_file(
                    folder.path / entry, record.as_text(), owner=(owner.st_uid, owner.st_gid)
                )

    def any(self) -> bool:
        return any(folder.open for folder in self._folders.values())

    def run_ids(self) -> list[str]:
        """The ids of some runs that are open, for people."""
        ids = {r.run_id for folder in self._folders.values() for r in folder.open.values()}
        return list(islice(sorted(ids), 100))


def _last_seen_alive(record: _Open, path: Path) -> str | None:
    """When a run was last known to be alive, if it still counts as alive: mostly now."""
    if record.pid_namespace in ("", pid_namespace()):
        alive = record.pid_started and start_token(record.pid) == record.pid_started
        return utc_now() if alive else None
    # Of another container: its launcher touches the record while it lives.
    try:
        beat = path.lstat().st_mtime
    except OSError:
        return None
    now = time.time()
    # The user can set any time; none that is still to come.
    return format_utc(int(min(beat, now) * 1e6)) if now - beat < _SILENT_S else None
