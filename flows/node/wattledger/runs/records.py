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

from wattledger.files import write_file
from wattledger.readings import Held

FORMAT_KEY, FORMAT = "wattledger_run_record", 1


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

    @property
    def is_first_here(self) -> bool:
        """Whether this rank speaks for its host."""
        return self.ranks.get("local_rank", 0) == 0

    def save(self, folder: Path) -> Path:
        """Write the record, synced, in one step."""
        path = folder / f"{self.record_id}.json"
        text = json.dumps({FORMAT_KEY: FORMAT, **asdict(self)}, indent=2, sort_keys=True)
        write_file(path, text)
        return path


def load_record(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: the file is not a run record.
        OSError: the file cannot be read.
    """
    fields = json.loads(path.read_text("utf-8"))
    if not isinstance(fields, dict) or fields.pop(FORMAT_KEY, None) != FORMAT:
        raise ValueError("not a run record of a version known here")
    return make_record(fields)


def make_record(fields: Mapping[str, Any]) -> Record:
    """A record from its fields.

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
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-") or "run"
