"""From memory to the disk: the journal that is being written, and the processes that seal finished ones."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from wattledger.collect.buffer import Batch
from wattledger.config import Config
from wattledger.process import child_environment, module_command
from wattledger.readings import Gpu
from wattledger.spool.journal import Journal
from wattledger.spool.spool import Spool


class Storage:
    """Writes batches into a journal, and has it sealed when its segment is long enough."""

    def __init__(self, spool: Spool, config: Config) -> None:
        self.spool_bytes = 0
        """Size of the spool when it was last looked at."""
        self._spool, self._config = spool, config
        self._journal: Journal | None = None
        self._journal_began = 0.0
        self._sealers: list[subprocess.Popen[bytes]] = []

    def store(
        self, batch: Batch, gpus: Sequence[Gpu], clock: tuple[int, int], meta: dict[str, Any]
    ) -> None:
        """Store all of a batch, or nothing; a journal that fails is closed.

        Args:
            batch: what to store.
            gpus: at least the GPUs of its readings.
            clock: UTC in microseconds now, and how far the wall clock is off.
            meta: who records, for a journal that begins.

        Raises:
            sqlite3.Error, OSError: the disk is full or failed, or the spool is over its limit.
        """
        try:
            self._check_limit()
            if self._journal is None:
                self._journal = self._spool.begin_journal(meta, clock[0])
                self._journal_began = time.monotonic()
            self._journal.add(gpus, batch.readings, batch.events, batch.host, clock)
        except (sqlite3.Error, OSError):
            self.close_journal()
            raise

    def share_recent(self) -> None:
        """Let other users read what the journal holds, without opening it: for summaries of their runs."""
        if self._journal is not None and os.geteuid() == 0:
            with suppress(sqlite3.Error, OSError):
                self._journal.copy_to(self._spool.recent)

    def _check_limit(self) -> None:
        self.spool_bytes = self._spool.sum_bytes()
        if self.spool_bytes > self._config.max_spool_mib << 20:
            raise OSError(
                f"the spool {self._spool.folder} holds {self.spool_bytes >> 20} MiB, its limit is "
                f"{self._config.max_spool_mib} MiB: fetch and delete finished segments"
            )

    def seal_if_due(self) -> None:
        """Finish the segment that is being written if it is long enough."""
        if (
            self._journal is not None
            and time.monotonic() - self._journal_began >= self._config.segment_s
        ):
            self.close_journal()
            self.seal()

    def close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def seal(self) -> None:
        """Start sealing all journals but the one that is being written, unless a sealer runs."""
        current = self._journal.path if self._journal else None
        journals = [str(path) for path in self._spool.list_journals() if path != current]
        if journals and not self._sealers:
            command = module_command("wattledger.spool.seal", *journals)
            self._sealers.append(subprocess.Popen(command, env=child_environment()))

    def reap_sealers(self, *, wait: bool = False) -> list[int]:
        """Exit codes of the sealers that have ended and failed; `wait` for those that run."""
        if wait:
            for sealer in self._sealers:
                sealer.wait()
        ended = [sealer for sealer in self._sealers if sealer.poll() is not None]
        self._sealers = [sealer for sealer in self._sealers if sealer not in ended]
        return [sealer.returncode for sealer in ended if sealer.returncode]
