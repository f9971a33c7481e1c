"""The registry of what came in: each file once, what the gate said of it, and the GPUs that are known."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import polars as pl
import pyarrow as pa

from expectations.checks import Verdict
from flows.errors import BadInput
from flows.files import name_for_people, open_regular
from flows.rows import RowFaults
from flows.settings import Settings
from flows.warehouse.frames import insert, load_query, query_rows
from flows.warehouse.locks import MOMENT, transaction


@dataclass
class Outcome:
    """What became of one file."""

    path: str
    segment_id: str
    verdict: Literal["loaded", "known", "quarantined", "unreachable"]
    rows_read: int = 0
    rows_loaded: int = 0
    rows_duplicate: int = 0
    rows_skipped: int = 0
    """Rows that hold nothing to load; `skipped` says why."""
    rows_quarantined: int = 0
    """Rows that cannot be believed, each in `quarantined_row`."""
    reason: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that were skipped for it."""
    understood: list[str] = field(default_factory=list)
    """What was read, as sentences for people to check: who, when, how often, how much."""
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def refuse_unread(path: Path, error: BadInput) -> Outcome:
    """What becomes of a file whose bytes nobody could read: there is nothing to keep of it."""
    return Outcome(name_for_people(path), "", "quarantined", reason=str(error))


def find_loaded(con: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> set[str]:
    """The digests whose files are loaded already; a refused file may be offered again."""
    rows = con.execute(
        "SELECT segment_id FROM segment WHERE verdict = 'loaded' "
        "AND segment_id IN (SELECT unnest($digests))",
        {"digests": list(digests)},
    )
    return {segment_id for (segment_id,) in rows.fetchall()}


@dataclass(frozen=True)
class File:
    """A file's row in the registry: the columns of `segment`, except its key and when it was loaded."""

    segment_id: str
    source_name: str
    source_format: str
    verdict: Literal["loaded", "quarantined"]
    sample: bool = False
    rows_read: int = 0
    rows_loaded: int = 0
    rows_duplicate: int = 0
    rows_skipped: int = 0
    sample_period_ms: int | None = None
    first_ts: datetime | None = None
    last_ts: datetime | None = None
    collector: str | None = None

    def as_outcome(self) -> Outcome:
        """What became of the file, as its row says."""
        return Outcome(
            self.source_name,
            self.segment_id,
            self.verdict,
            self.rows_read,
            self.rows_loaded,
            self.rows_duplicate,
            self.rows_skipped,
        )


_FILE_TYPES = pa.schema(
    [(name, pa.string()) for name in ("segment_id", "source_name", "source_format", "verdict")]
    + [("sample", pa.bool_())]
    + [(f"rows_{name}", pa.int64()) for name in ("read", "loaded", "duplicate", "skipped")]
    + [("sample_period_ms", pa.int64())]
    + [(name, pa.timestamp("us", "UTC")) for name in ("first_ts", "last_ts")]
    + [("collector", pa.string())]
)

_EXAMPLES = 10
"""Rows that break a check, as many as are kept with its verdict."""


def record_files(con: duckdb.DuckDBPyConnection, files: Sequence[File]) -> list[int]:
    """Write the rows of files (inside the caller's transaction), and give their keys, in sequence."""
    con.execute(
        "DELETE FROM segment WHERE segment_id IN (SELECT unnest($digests))",
        {"digests": [file.segment_id for file in files]},
    )
    [(newest,)] = con.execute("SELECT coalesce(max(segment_key), 0) FROM segment").fetchall()
    keys = [int(newest) + number for number in range(1, len(files) + 1)]
    rows = pa.Table.from_pylist([vars(file) for file in files], _FILE_TYPES)
    rows = rows.append_column("segment_key", pa.array(keys, pa.int32()))
    insert(con, "segment", rows, loaded_at=MOMENT)
    return keys


def record_file(con: duckdb.DuckDBPyConnection, file: File) -> int:
    """Write the row of a file (inside the caller's transaction), and give its key."""
    return record_files(con, [file])[0]


def add_row_faults(outcome: Outcome, faults: RowFaults) -> Outcome:
    """An outcome that also says which rows were skipped and set aside."""
    outcome.rows_quarantined = faults.count
    outcome.skipped = dict(faults.skipped)
    outcome.warnings = [*outcome.warnings, *faults.explain()]
    return outcome


def quarantine_rows(con: duckdb.DuckDBPyConnection, segment_id: str, rows: pl.DataFrame) -> None:
    """Write the rows of a loaded file that were set aside (inside the caller's transaction).

    Args:
        con: The warehouse.
        segment_id: The file's digest.
        rows: row_no, reason, field_name and raw_value of each.
    """
    con.execute(
        "DELETE FROM quarantined_row WHERE segment_id = $segment_id", {"segment_id": segment_id}
    )
    if rows.height:
        named = rows.select(pl.lit(segment_id).alias("segment_id"), pl.all())
        insert(con, "quarantined_row", named, recorded_at=MOMENT)


def quarantine_file(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    segment_id: str,
    suite: str,
    reason: str,
    source_format: str = "",
) -> Outcome:
    """Keep the bytes of a refused file, for nobody else to read, and the reason; offering it again adds nothing."""
    kept = settings.quarantine / f"{segment_id[:12]}-{_shorten_name(path)}"
    if not kept.exists():
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _copy_privately(path, kept)
        except BadInput as error:  # It became a link meanwhile.
            return refuse_unread(path, error)
    row = {
        "segment_id": segment_id,
        "source_name": name_for_people(path),
        "suite": suite,
        "reason": reason,
        "kept_path": str(kept.relative_to(settings.root)),
    }
    with transaction(con):
        recorded = con.execute(
            "SELECT 1 FROM quarantine WHERE segment_id = $segment_id AND reason = $reason",
            {"segment_id": segment_id, "reason": reason},
        ).fetchall()
        if not recorded:
            insert(con, "quarantine", [row], recorded_at=MOMENT)
            record_file(
                con,
                File(segment_id, name_for_people(path), source_format or "unread", "quarantined"),
            )
    return Outcome(name_for_people(path), segment_id, "quarantined", reason=reason)


def _copy_privately(path: Path, target: Path) -> None:
    """Copy a file, never what a link in its place leads to: others wrote it, and may read what lies here."""
    part = target.with_name(f"{target.name}.part")
    with open_regular(path) as source:
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(source, copy)
    part.replace(target)


def _shorten_name(path: Path) -> str:
    """The name of a file, without what other systems do not take, and short enough to put a digest before it."""
    clean = re.sub(r"[^\w.+=@ -]", "_", name_for_people(path.name))
    return clean[-_NAME_CHARS:]


_NAME_CHARS = 50
"""Four bytes each, these fit into a name of 255 with a digest and an ending."""


def record_verdict(con: duckdb.DuckDBPyConnection, verdict: Verdict) -> str:
    """Write a verdict as rows (inside the caller's transaction), and give its id."""
    identity = {"validation_id": uuid.uuid4().hex, "suite": verdict.suite.name}
    summary = {**identity, "success": verdict.success, "checked_rows": verdict.checked_rows}
    insert(con, "validation_run", [summary], recorded_at=MOMENT)
    insert(
        con,
        "validation_result",
        [
            {
                **identity,
                "check_name": result.check.name,
                "severity": result.check.severity,
                "statement": result.check.statement,
                "success": result.success,
                "unexpected_rows": result.unexpected,
                "examples": json.dumps(result.rows[:_EXAMPLES], default=str),
            }
            for result in verdict.results
        ],
    )
    return identity["validation_id"]


class Gpu(NamedTuple):
    """A GPU as the registry knows it."""

    gpu_uuid: str
    host: str
    gpu_index: int | None
    model: str | None


_GPU_ROW = {
    "gpu_key": pl.Int32,
    "gpu_uuid": pl.String,
    "host": pl.String,
    "gpu_index": pl.Int32,
    "model": pl.String,
}


def declare_gpus(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Write the GPUs of [[gpu]] in wattledger.toml, and their models, into the table `gpu`."""
    declared: list[Gpu] = []
    for entry in settings.gpu:
        declared += [Gpu(f"{entry.host}/gpu{i}", entry.host, i, entry.model) for i in entry.indices]
        declared += [Gpu(uuid, entry.host, None, entry.model) for uuid in entry.uuids]
    with transaction(con):
        add_gpus(con, declared)
        for entry in settings.gpu:
            if entry.model:
                con.execute(load_query("warehouse/set_gpu_model"), entry.model_dump())


def add_gpus(con: duckdb.DuckDBPyConnection, gpus: Sequence[Gpu]) -> None:
    """Add GPUs that are not registered yet, in order of UUID (inside the caller's transaction).

    Of several with one UUID, the first counts.
    """
    registered = {row["gpu_uuid"] for row in query_rows(con, "SELECT gpu_uuid FROM gpu")}
    new = sorted(
        {gpu.gpu_uuid: gpu for gpu in reversed(gpus) if gpu.gpu_uuid not in registered}.items()
    )
    if new:
        [(newest,)] = con.execute("SELECT coalesce(max(gpu_key), 0) FROM gpu").fetchall()
        rows = [(newest + number, *gpu) for number, (_, gpu) in enumerate(new, 1)]
        insert(con, "gpu", pl.DataFrame(rows, schema=_GPU_ROW, orient="row"))
