"""Run records: who ran what, when, on which GPUs of this host. One file per launched process.

Ranks and nodes of one training write one record each, all with the same run id. The ledger joins
them, so energy is counted once however many ranks saw a GPU.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattledger.files import read_plain, write_file
from wattledger.readings import Held
from wattledger.runs.fields import check_fields, is_plain_name

FORMAT_KEY, FORMAT = "wattledger_run_record", 1
MAX_BYTES = 1 << 20
"""How large the file of a record may be; what Wattledger writes has some 2 KB."""


@dataclass
class Record:
    """One process of a run, on one host."""

    record_id: str
    run_id: str
    name: str
    owner: str
    host: str
    started_at: str
    ended_at: str | None = None
    ended_by: str = ""
    """`exit`, `signal`, `epilog`, `pod`; or `lost`: nobody saw the end, and `ended_at` is when the run
    was last seen alive."""
    exit_code: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    gpus: list[Held] = field(default_factory=list)
    ranks: dict[str, int] = field(default_factory=dict)
    slurm: dict[str, str] = field(default_factory=dict)
    kubernetes: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    pid_started: str = ""
    pid_namespace: str = ""
    """The numbering of processes (the container) that `pid` belongs to."""
    readings: str = ""
    """Spool that holds the readings of this host."""
    notes: list[str] = field(default_factory=list)
    owner_uid: int | None = None
    """The user whose process it is, where root wrote the record; else the file's owner is."""

    @property
    def is_first_here(self) -> bool:
        """Whether this rank speaks for its host."""
        return self.ranks.get("local_rank", 0) == 0

    def save(self, folder: Path) -> Path:
        """Write the record into a folder, synced, in one step.

        Raises:
            OSError: it cannot be written.
            ValueError: its id is no name of a file.
        """
        if not is_plain_name(self.record_id):
            raise ValueError(f"the record id {self.record_id[:80]!r} is no name of a file")
        path = folder / f"{self.record_id}.json"
        write_file(path, self.as_text())
        return path

    def as_text(self) -> str:
        """The record as its file holds it."""
        fields = asdict(self)
        if self.owner_uid is None:
            del fields["owner_uid"]
        return json.dumps({FORMAT_KEY: FORMAT, **fields}, indent=2, sort_keys=True)


def load_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: the file is not a run record.
        OSError: the file cannot be read, is none, or is too large for a record.
    """
    return parse_record(read_plain(path, MAX_BYTES))


def parse_record(data: bytes) -> Record:
    """A record from the bytes of its file, whoever wrote them.

    Raises:
        ValueError: they are not a run record, or a field is not what it should be.
    """
    try:
        fields = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict) or fields.pop(FORMAT_KEY, None) != FORMAT:
        raise ValueError("not a run record of a version known here")
    check_fields(fields)
    record = make_record(fields)
    for moment in (record.started_at, record.ended_at):
        if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError("a time without zone")
    return record


def make_record(fields: Mapping[str, Any]) -> Record:
    """A record from its fields, which were checked before.

    Raises:
        ValueError: they are not the fields of a record.
    """
    try:
        record = Record(**fields)
        record.gpus = [Held(**held) for held in fields.get("gpus", [])]
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not a run record: {error}") from None
    return record


def utc_now() -> str:
    """Now, as records hold times."""
    return format_utc(time.time_ns() // 1000)


def format_utc(us: int) -> str:
    """UTC in microseconds as text, without rounding through floats."""
    moment = datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def make_slug(title: str) -> str:
    """A name as part of an id or a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title)[:80].strip("-.") or "run"
