"""Turn journals into Parquet segments: `python -m wattledger.spool.seal JOURNAL...`.

It runs as a process of its own, so that the collector needs no pyarrow and never waits. The same
journal always gives the same bytes: a seal that was killed is simply done again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wattledger.files import sync_folder, write_file
from wattledger.readings import QUANTITIES
from wattledger.spool.attest import Signer, attestation_of, keys_folder, open_signer
from wattledger.spool.journal import delete_journal, list_files
from wattledger.spool.spool import COLLECTOR_KEY, EVENTS_KEY, SAMPLE_KEY

_TIME = pa.timestamp("us", "UTC")
_TYPES = {
    "util_pct": pa.int16(),
    "temp_c": pa.int16(),
    "mem_temp_c": pa.int16(),
    "sm_clock_mhz": pa.int16(),
    "energy_mj": pa.int64(),
    "throttle_reasons": pa.int64(),
}
_SCHEMA = pa.schema(
    [
        ("gpu_uuid", pa.string()),
        ("host", pa.string()),
        ("gpu_index", pa.int32()),
        ("model", pa.string()),
        ("ts", _TIME),
        *((name, _TYPES.get(name, pa.int32())) for name in QUANTITIES),
        ("power_source", pa.string()),
    ]
)
_HOST_SCHEMA = pa.schema(
    [
        ("host", pa.string()),
        ("ts", _TIME),
        ("span_us", pa.int64()),
        ("component", pa.string()),
        ("energy_mj", pa.int64()),
        ("is_modelled", pa.bool_()),
        ("method", pa.string()),
    ]
)
_CHUNK_ROWS = 1 << 16
_Columns = list[Sequence[Any]]


class _NoPandas(MetaPathFinder):
    """Hides pandas: pyarrow would import it to convert Python values, a second for nothing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


def seal(journal: Path, signer: Signer | None = None) -> list[Path]:
    """Write a journal's segments beside the folder of journals, then delete the journal.

    Args:
        journal: an SQLite database of `wattledger.spool.journal`.
        signer: signs the segments; without one, they are not signed.

    Returns:
        The segments: `*.parquet` of GPU readings, `*.host.parquet` of CPU and memory.

    Raises:
        sqlite3.DatabaseError: the journal is damaged.
        sqlite3.OperationalError, OSError: the disk is full or failed; the journal stays.
    """
    con = sqlite3.connect(journal, timeout=10)
    try:
        # Opening replays what SQLite's log holds after a kill or a power cut.
        # A journal without tables was killed while it was being made: it never held anything.
        segments = _write_segments(con, journal, signer) if _count(con, "sqlite_master") else []
    finally:
        con.close()
    delete_journal(journal)
    return segments


def _write_segments(con: sqlite3.Connection, journal: Path, signer: Signer | None) -> list[Path]:
    meta = {key: json.loads(value) for key, value in con.execute("SELECT key, value FROM meta")}
    folder = journal.parent.parent
    segments = []
    if _count(con, "reading") or _count(con, "event"):
        path = folder / f"{journal.stem}.parquet"
        schema = _SCHEMA.with_metadata(_metadata(con, meta))
        _write(path, schema, _gpu_columns(con, meta["host"]), signer)
        segments.append(path)
    if _count(con, "host"):
        path = folder / f"{journal.stem}.host.parquet"
        _write(path, _HOST_SCHEMA, _host_columns(con, meta["host"]), signer)
        segments.append(path)
    return segments


def _count(con: sqlite3.Connection, table: str) -> int:
    return int(con.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _metadata(con: sqlite3.Connection, meta: dict[str, Any]) -> dict[str, str]:
    first, last, largest = con.execute(
        "SELECT (SELECT offset_us FROM clock ORDER BY ts_us LIMIT 1), "
        "(SELECT offset_us FROM clock ORDER BY ts_us DESC LIMIT 1), max(abs(offset_us)) FROM clock"
    ).fetchone()
    gpus = [json.loads(row[0]) for row in con.execute("SELECT info FROM gpu ORDER BY no")]
    events = [
        {"ts_us": ts, "gpu_uuid": gpu, "event": event, "detail": detail}
        for ts, gpu, event, detail in con.execute(
            "SELECT ts_us, gpu_uuid, event, detail FROM event ORDER BY ts_us, rowid"
        )
    ]
    collector = {
        **meta,
        "clock_offset_us": {"first": first, "last": last, "largest": largest},
        "gpus": gpus,
    }
    return {
        SAMPLE_KEY: "false",
        COLLECTOR_KEY: json.dumps(collector),
        EVENTS_KEY: json.dumps(events),
    }


def _gpu_columns(con: sqlite3.Connection, host: str) -> Iterator[_Columns]:
    """The columns of a segment, chunk after chunk."""
    gpus = {
        number: (uuid, host, info["index"], info["model"], info["power_source"])
        for number, uuid, info in (
            (number, uuid, json.loads(text))
            for number, uuid, text in con.execute("SELECT no, uuid, info FROM gpu")
        )
    }
    readings = con.execute(
        f"SELECT gpu, ts_us, {', '.join(QUANTITIES)} FROM reading JOIN gpu ON gpu.no = reading.gpu "
        "ORDER BY gpu.uuid, ts_us"
    )
    while rows := readings.fetchmany(_CHUNK_ROWS):
        numbers, times, *values = zip(*rows, strict=True)
        uuid, hosts, index, model, source = zip(*(gpus[no] for no in numbers), strict=True)
        yield [uuid, hosts, index, model, times, *values, source]


def _host_columns(con: sqlite3.Connection, host: str) -> Iterator[_Columns]:
    """The columns of a host segment, chunk after chunk."""
    intervals = con.execute(
        "SELECT ts_us, span_us, component, energy_mj, is_modelled, method FROM host "
        "ORDER BY component, ts_us"
    )
    while rows := intervals.fetchmany(_CHUNK_ROWS):
        ts, span, component, energy, modelled, method = zip(*rows, strict=True)
        yield [[host] * len(rows), ts, span, component, energy, list(map(bool, modelled)), method]


def _write(
    path: Path, schema: pa.Schema, chunks: Iterable[_Columns], signer: Signer | None
) -> None:
    """Write under a temporary name, sync, sign, rename, sync the folder."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for columns in chunks:
                    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))
            file.flush()
            os.fsync(file.fileno())
        if signer is not None:
            write_file(attestation_of(path), signer.sign(path.name, part).as_text())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def main(journals: list[str]) -> int:
    """Seal journals of one host, signed; a damaged one is moved to `damaged` and named, the others go on."""
    paths = [Path(journal) for journal in journals]
    if not paths:
        return 0
    folder = paths[0].parent.parent
    try:
        with open_signer(folder.parent, folder.name) as signer:
            return _seal_all(paths, signer)
    except (OSError, ValueError) as error:
        keys = keys_folder(folder.parent)
        if os.path.lexists(keys / f"{folder.name}.json"):
            # A host that has a key signs; what it cannot sign waits.
            print(f"{keys}: the key cannot be used ({error}); journals stay", file=sys.stderr)
            return 5
        print(f"{keys}: no key can be made ({error}); segments are not signed", file=sys.stderr)
        return _seal_all(paths, None)


def _seal_all(journals: Sequence[Path], signer: Signer | None) -> int:
    """Seal each journal; returns the exit code."""
    status = 0
    for path in journals:
        try:
            seal(path, signer)
        except (OSError, sqlite3.OperationalError) as error:
            print(f"{path}: not sealed yet ({error}); it stays, to be tried again", file=sys.stderr)
            status = 5
        except sqlite3.DatabaseError as error:
            folder = _set_aside(path)
            print(f"{path}: damaged ({error}); kept in {folder}", file=sys.stderr)
            status = 2
    return status


def _set_aside(journal: Path) -> Path:
    """Move a damaged journal where no seal finds it again; returns the folder."""
    folder = journal.parent.parent / "damaged"
    folder.mkdir(exist_ok=True)
    for path in reversed(list_files(journal)):
        if path.exists():
            path.replace(folder / path.name)
    return folder


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoPandas())
    sys.exit(main(sys.argv[1:]))
