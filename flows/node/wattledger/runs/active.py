"""Which runs of this host are alive; a run whose process is gone gets its end from here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from wattledger.process import pid_namespace, start_token
from wattledger.runs.records import Record, format_utc, load_record, utc_now

BEAT_S = 10.0
"""How often a launcher touches its record, for collectors that cannot see its process."""
_SILENT_S = 60.0
"""A run of another container whose record was not touched for so long has ended."""
GRACE_S = 2.0
"""How long after the end of its process a run may take to write its end itself."""


class ActiveRuns:
    """The runs of this host that have not ended."""

    def __init__(self, folder: Path, host: str, alive: Mapping[str, str] | None = None) -> None:
        """Know the runs of a folder of records.

        Args:
            folder: folder of the records.
            host: the host whose runs these are.
            alive: record id -> when the collector before this one last saw it alive.
        """
        self._folder, self._host = folder, host
        self._folder_mtime_ns = 0
        self._ended: set[Path] = set()
        self._open: dict[Path, Record] = {}
        self._gone_since: dict[Path, float] = {}
        self.alive: dict[str, str] = dict(alive or {})

    def read_changes(self) -> bool:
        """Read the records if any was written since the last time; returns whether one was."""
        try:
            mtime_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return False
        if mtime_ns == self._folder_mtime_ns:
            return False
        self._folder_mtime_ns = mtime_ns
        self._open = {}
        for path in set(self._folder.glob("*.json")) - self._ended:
            with suppress(OSError, ValueError):
                record = load_record(path)
                if record.ended_at is None and record.host == self._host:
                    self._open[path] = record
                else:
                    self._ended.add(path)
        return True

    def end_lost_runs(self) -> None:
        """See which runs are alive; one that is gone ended when it was last seen."""
        for path, record in list(self._open.items()):
            if (seen_at := _last_seen_alive(record, path)) is not None:
                self.alive[record.record_id] = seen_at
                continue
            gone_since = self._gone_since.setdefault(path, time.monotonic())
            if time.monotonic() - gone_since >= GRACE_S:
                del self._open[path], self._gone_since[path]
                self._write_end(path)
        open_ids = {record.record_id for record in self._open.values()}
        self.alive = {key: seen_at for key, seen_at in self.alive.items() if key in open_ids}

    def _write_end(self, path: Path) -> None:
        with suppress(OSError, ValueError):
            # The run may have written its end itself meanwhile.
            record = load_record(path)
            if record.ended_at is None:
                seen_at = self.alive.get(record.record_id, record.started_at)
                record.ended_at, record.ended_by = max(seen_at, record.started_at), "lost"
                record.save(self._folder)

    def any(self) -> bool:
        return bool(self._open)

    def run_ids(self) -> set[str]:
        return {record.run_id for record in self._open.values()}


def _last_seen_alive(record: Record, path: Path) -> str | None:
    """When a run was last known to be alive, if it still counts as alive: mostly now."""
    if record.pid_namespace in ("", pid_namespace()):
        alive = record.pid_started and start_token(record.pid) == record.pid_started
        return utc_now() if alive else None
    # Of another container: its launcher touches the record while it lives.
    try:
        beat = path.stat().st_mtime
    except OSError:
        return None
    return format_utc(int(beat * 1e6)) if time.time() - beat < _SILENT_S else None
