"""The catalogue of files and verdicts: what came in, once, and what the gate said of it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars as pl
import pyarrow as pa

from expectations.checks import Verdict
from flows.settings import Settings
from flows.warehouse.frames import query_rows, register
from flows.warehouse.locks import transaction


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
    reason: str = ""
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def find_loaded(con: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> set[str]:
    """Those of some digests whose files are loaded; a refused file may be offered again."""
    found = con.execute(
        "SELECT segment_id FROM segment WHERE verdict = 'loaded' "
        "AND segment_id IN (SELECT unnest(?))",
        [list(digests)],
    )
    return {row[0] for row in found.fetchall()}


@dataclass(frozen=True)
class File:
    """A file's row in the catalogue: the columns of `segment`, but for its key and when it was loaded."""

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

    def outcome(self) -> Outcome:
        """What became of the file, by its row."""
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


def record_files(con: duckdb.DuckDBPyConnection, files: Sequence[File]) -> list[int]:
    """Write files' catalogue rows (inside the caller's transaction); returns their keys, one after the other."""
    con.execute(
        "DELETE FROM segment WHERE segment_id IN (SELECT unnest(?))",
        [[file.segment_id for file in files]],
    )
    [(top,)] = con.execute("SELECT coalesce(max(segment_key), 0) FROM segment").fetchall()
    keys = [int(top) + place for place in range(1, len(files) + 1)]
    fresh = pa.Table.from_pylist([vars(file) for file in files], _FILE_TYPES)
    with register(con, recorded=fresh.append_column("segment_key", pa.array(keys, pa.int32()))):
        con.execute("INSERT INTO segment BY NAME SELECT *, now() AS loaded_at FROM recorded")
    return keys


def record_file(con: duckdb.DuckDBPyConnection, file: File) -> int:
    """Write a file's catalogue row (inside the caller's transaction); returns its key."""
    return record_files(con, [file])[0]


def quarantine_file(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    path: Path,
    segment_id: str,
    suite: str,
    reason: str,
    source_format: str = "",
) -> Outcome:
    """Keep a refused file's bytes and the reason; offering it again adds nothing."""
    kept = settings.quarantine / f"{segment_id[:12]}-{path.name}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_name(kept.name + ".part")
        shutil.copyfile(path, half)
        half.replace(kept)
    with transaction(con):
        seen = con.execute(
            "SELECT 1 FROM quarantine WHERE segment_id = ? AND reason = ?", [segment_id, reason]
        ).fetchall()
        if not seen:
            con.execute(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, now())",
                [segment_id, str(path), suite, reason, str(kept.relative_to(settings.root))],
            )
            record_file(con, File(segment_id, str(path), source_format or "unread", "quarantined"))
    return Outcome(str(path), segment_id, "quarantined", reason=reason)


def record_verdict(con: duckdb.DuckDBPyConnection, verdict: Verdict) -> str:
    """Write a verdict as rows (inside the caller's transaction); returns its id."""
    validation_id = uuid.uuid4().hex
    con.execute(
        "INSERT INTO validation_run VALUES (?, ?, now(), ?, ?)",
        [validation_id, verdict.suite.name, verdict.success, verdict.checked_rows],
    )
    con.executemany(
        "INSERT INTO validation_result VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            [
                validation_id,
                verdict.suite.name,
                result.check.name,
                result.check.severity,
                result.check.statement,
                result.success,
                result.unexpected,
                json.dumps(result.rows[:10], default=str),
            ]
            for result in verdict.results
        ],
    )
    return validation_id


def declare_gpus(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Write the GPUs of [[gpu]] in wattledger.toml, and their models, into the table `gpu`."""
    declared: list[Gpu] = []
    for entry in settings.gpu:
        declared += [(f"{entry.host}/gpu{i}", entry.host, i, entry.model) for i in entry.indices]
        declared += [(given, entry.host, None, entry.model) for given in entry.uuids]
    with transaction(con):
        add_gpus(con, declared)
        for entry in settings.gpu:
            if entry.model:
                con.execute(
                    "UPDATE gpu SET model = ? WHERE host GLOB ? AND model IS DISTINCT FROM ? "
                    "AND (len(?) = 0 OR list_contains(?, gpu_index)) "
                    "AND (len(?) = 0 OR list_contains(?, gpu_uuid))",
                    [
                        entry.model,
                        entry.host,
                        entry.model,
                        entry.indices,
                        entry.indices,
                        entry.uuids,
                        entry.uuids,
                    ],
                )


Gpu = tuple[str, str, int | None, str | None]
"""UUID, host, index, model."""

_GPU = {
    "gpu_key": pl.Int32,
    "gpu_uuid": pl.String,
    "host": pl.String,
    "gpu_index": pl.Int32,
    "model": pl.String,
}


def add_gpus(con: duckdb.DuckDBPyConnection, found: Sequence[Gpu]) -> None:
    """Add GPUs that are not known yet, in order of UUID; of several of one UUID, the first counts."""
    stored = {row["gpu_uuid"] for row in query_rows(con, "SELECT gpu_uuid FROM gpu")}
    fresh = sorted({gpu[0]: gpu for gpu in reversed(found) if gpu[0] not in stored}.items())
    if fresh:
        [(top,)] = con.execute("SELECT coalesce(max(gpu_key), 0) FROM gpu").fetchall()
        new = pl.DataFrame(
            [[top + i, *gpu] for i, (_, gpu) in enumerate(fresh, 1)],
            schema=_GPU,
            orient="row",
        )
        with register(con, new_gpu=new):
            con.execute("INSERT INTO gpu BY NAME FROM new_gpu")
