"""Staged readings that passed the gate, moved into the warehouse: each file in one transaction, with its row in the registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from flows.errors import BadInput
from flows.ingest.gpu_compare import span_of
from flows.ingest.gpu_profile import find_damage
from flows.sources.gpu.staged import EXTRA, VALUES, Staged
from flows.warehouse import registry
from flows.warehouse.frames import escape_glob, insert, load_query, query_rows, quote_literal
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Gpu, Outcome
from transforms.constants import POWER_SOURCES
from wattledger.spool.spool import RECORD_SEEN

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 32_000_000
"""Readings of one transaction: many files together are written twice as fast as one by one."""

POWER_SOURCE_CODE = (
    "CASE s.power_source "
    + " ".join(f"WHEN '{name}' THEN {code}" for code, name in enumerate(POWER_SOURCES))
    + " ELSE 0 END"
)
"""SQL: the code of the power source of staged readings `s`."""

Settled = tuple[Staged, Outcome | BadInput | None]
"""A segment and what became of it: None where another process has loaded some of its time since."""


def store_segments(
    con: duckdb.DuckDBPyConnection, segments: Sequence[Staged], newest_key: int
) -> Iterator[Settled]:
    """Move staged segments into the warehouse, several in one transaction where they are small.

    Args:
        con: The warehouse, open for writing, with staging.segment_profile and staging.segment_gpu.
        segments: Segments that passed the gate.
        newest_key: The last file that they were compared with.
    """
    duplicates = dict(
        con.execute(
            "SELECT segment_id, sum(duplicates)::BIGINT FROM staging.segment_profile GROUP BY ALL"
        ).fetchall()
    )
    together: list[Staged] = []
    readings = 0
    for staged in segments:
        # What is stored already in part is looked up row by row, so it goes by itself.
        alone = bool(duplicates.get(staged.segment_id))
        if together and (alone or readings + staged.readings > _AT_ONCE):
            yield from _settle(con, together, newest_key)
            together, readings = [], 0
        if alone:
            yield from _settle(con, [staged], newest_key, new_only=True)
        else:
            together.append(staged)
            readings += staged.readings
    if together:
        yield from _settle(con, together, newest_key)


def _settle(
    con: duckdb.DuckDBPyConnection,
    segments: Sequence[Staged],
    newest_key: int,
    *,
    new_only: bool = False,
) -> list[Settled]:
    """Store some segments in one transaction, without those that are damaged or overtaken."""
    try:
        with transaction(con):
            overtaken = _find_overtaken(con, newest_key)
            current = [staged for staged in segments if staged.segment_id not in overtaken]
            outcomes = _store(con, current, new_only=new_only) if current else {}
            if any(staged.has_changed for staged in current):
                raise duckdb.IOException("a file changed while it was read")
    except duckdb.Error:
        # A file that cannot be read must not keep others out.
        faults = {staged.segment_id: fault for staged in segments if (fault := find_damage(staged))}
        if not faults:
            raise
        damaged = [staged for staged in segments if staged.segment_id in faults]
        sound = [staged for staged in segments if staged.segment_id not in faults]
        settled = _settle(con, sound, newest_key, new_only=new_only) if sound else []
        return [*settled, *((staged, faults[staged.segment_id]) for staged in damaged)]
    return [(staged, outcomes.get(staged.segment_id)) for staged in segments]


def _find_overtaken(con: duckdb.DuckDBPyConnection, newest_key: int) -> set[str]:
    """Find staged segments that another process has loaded since, or of whose GPUs and time it has loaded readings."""
    span = span_of(con, "staging.segment_profile")
    rows = con.execute(
        load_query("ingest/overtaken_segments"), {**span, "newest_key": newest_key}
    ).fetchall()
    return {segment_id for (segment_id,) in rows}


def _store(
    con: duckdb.DuckDBPyConnection, segments: Sequence[Staged], *, new_only: bool
) -> dict[str, Outcome]:
    """Write what was staged of some segments (inside the caller's transaction)."""
    parameters = {"segments": [staged.segment_id for staged in segments]}
    gpus = con.execute(
        "SELECT gpu_uuid, host, gpu_index, model FROM staging.segment_gpu "
        "WHERE segment_id IN (SELECT unnest($segments)) ORDER BY place",
        parameters,
    ).fetchall()
    listed = [gpu for staged in segments for gpu in _list_collector_gpus(staged)]
    registry.add_gpus(con, [*(Gpu(*gpu) for gpu in gpus), *listed])
    totals = {
        row["segment_id"]: row
        for row in query_rows(con, load_query("ingest/segment_totals"), parameters)
    }
    # A collector may have only events to tell.
    files = [_describe_file(staged, totals.get(staged.segment_id, {})) for staged in segments]
    keys = registry.record_files(con, files)
    for staged in segments:
        registry.quarantine_rows(con, staged.segment_id, staged.faults.rows)
    _insert_events(con, segments, keys)
    _insert_instances(con, segments)
    stored = _insert_readings(con, segments, keys[0], new_only=new_only)
    expected = sum(file.rows_loaded for file in files)
    if stored != expected:
        names = ", ".join(str(staged.source) for staged in segments)
        raise RuntimeError(f"{names}: {stored} rows stored, {expected} expected")
    con.execute(
        "DELETE FROM segment_profile WHERE segment_id IN (SELECT unnest($segments))", parameters
    )
    con.execute(
        "INSERT INTO segment_profile BY NAME FROM staging.segment_profile "
        "WHERE segment_id IN (SELECT unnest($segments))",
        parameters,
    )
    return {
        staged.segment_id: registry.add_row_faults(file.as_outcome(), staged.faults)
        for staged, file in zip(segments, files, strict=True)
    }


def _describe_file(staged: Staged, totals: dict[str, Any]) -> registry.File:
    duplicates = staged.rows_duplicate + totals.get("duplicates", 0)
    return registry.File(
        staged.segment_id,
        str(staged.source),
        staged.format,
        "loaded",
        sample=staged.sample,
        rows_read=staged.rows_read,
        rows_loaded=staged.readings - duplicates,
        rows_duplicate=duplicates,
        rows_skipped=staged.rows_skipped,
        # The period that the recorder was told, if it says so; else the step that it made most of the time.
        sample_period_ms=_read_collector(staged).get("period_ms") or totals.get("period_ms"),
        first_ts=totals.get("first_ts"),
        last_ts=totals.get("last_ts"),
        collector=staged.collector,
    )


def _read_collector(staged: Staged) -> dict[str, Any]:
    """What the collector says of itself and its GPUs; nothing where another recorder wrote the file."""
    collector: dict[str, Any] = json.loads(staged.collector or '{"gpus": []}')
    return collector


def _list_collector_gpus(staged: Staged) -> list[Gpu]:
    """The GPUs that a collector lists, also those without a reading."""
    collector = _read_collector(staged)
    return [
        Gpu(gpu["uuid"], collector["host"], gpu["index"], gpu["model"]) for gpu in collector["gpus"]
    ]


def _insert_events(
    con: duckdb.DuckDBPyConnection, segments: Sequence[Staged], keys: Sequence[int]
) -> None:
    """Write the events of collectors' segments, and the run records that signed ones tell of."""
    events: list[dict[str, Any]] = []
    _insert_seen_records(con, segments)
    for staged, key in zip(segments, keys, strict=True):
        host = _read_collector(staged).get("host")
        events += [
            {
                "host": host,
                "gpu_uuid": event.get("gpu_uuid"),
                "ts": _EPOCH + timedelta(microseconds=event["ts_us"]),
                "event": event["event"],
                "detail": event.get("detail", ""),
                "segment_key": key,
            }
            for event in staged.events
            if event["event"] != RECORD_SEEN
        ]
    insert(con, "collector_event", events)


def _insert_seen_records(con: duckdb.DuckDBPyConnection, segments: Sequence[Staged]) -> None:
    """Write which finished run records the collector saw, as far as it signed that."""
    told = {staged.segment_id: staged for staged in segments if staged.events}
    if not told:
        return
    signed = con.execute(
        "SELECT segment_id FROM signed_segment WHERE segment_id IN (SELECT unnest($ids))",
        {"ids": list(told)},
    ).fetchall()
    rows = [
        {
            **seen,
            "host": _read_collector(told[segment_id])["host"],
            "seen_at": _EPOCH + timedelta(microseconds=event["ts_us"]),
            "segment_id": segment_id,
        }
        for (segment_id,) in signed
        for event in told[segment_id].events
        if event["event"] == RECORD_SEEN and (seen := _read_seen(event.get("detail", "")))
    ]
    if rows:
        insert(con, "seen_record", rows)


def _read_seen(detail: str) -> dict[str, Any]:
    """The digest and owner of a record that an event tells of; nothing where it tells of none."""
    found = re.fullmatch(r'\{"sha256": "([0-9a-f]{64})", "owner_uid": ([0-9]{1,10})\}', detail)
    return {"record_sha256": found[1], "owner_uid": int(found[2])} if found else {}


def _insert_instances(con: duckdb.DuckDBPyConnection, segments: Sequence[Staged]) -> None:
    """Write the MIG instances that collectors list, in place of what was known of them."""
    instances = {
        instance["uuid"]: {
            "instance_uuid": instance["uuid"],
            "gpu_uuid": gpu["uuid"],
            "share_ppm": instance["share_ppm"],
        }
        for staged in segments
        for gpu in _read_collector(staged)["gpus"]
        for instance in gpu["instances"]
    }
    if instances:
        con.execute(
            "DELETE FROM gpu_instance WHERE instance_uuid IN (SELECT unnest($instances))",
            {"instances": list(instances)},
        )
        insert(con, "gpu_instance", list(instances.values()))


def _insert_readings(
    con: duckdb.DuckDBPyConnection,
    segments: Sequence[Staged],
    first_key: int,
    *,
    new_only: bool,
) -> int:
    """Copy the readings of some segments, and count them.

    Args:
        con: The warehouse, inside the caller's transaction.
        segments: Staged segments.
        first_key: Key of the first; the others follow.
        new_only: Leave out readings that are stored already.
    """
    files = ", ".join(quote_literal(escape_glob(staged.path)) for staged in segments)
    # Columns of nulls cost a tenth more to write.
    present = {name for staged in segments for name in staged.columns}
    values = "".join(f"s.{name}, " for name in [*VALUES, *EXTRA] if name in present)
    unknown = "ANTI JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts"
    [(count,)] = con.execute(
        f"""
        INSERT INTO gpu_reading BY NAME
        SELECT g.gpu_key, s.ts, {values}{POWER_SOURCE_CODE} AS power_source_code,
            (s.file_index + {first_key})::INTEGER AS segment_key
        FROM read_parquet([{files}], union_by_name = true) AS s
        JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid {unknown if new_only else ""}
        """
    ).fetchall()
    return int(count)
