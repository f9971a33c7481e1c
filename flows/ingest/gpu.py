"""GPU readings: stage, profile, gate, promote - each file exactly once, or to quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from expectations import readings as readings_suite
from expectations.checks import Result
from flows.errors import BadInput, locate
from flows.files import expand_paths, hash_file, is_in_spool
from flows.ingest import gpu_profile, host
from flows.settings import Settings
from flows.sources.gpu import reader as gpu_source
from flows.sources.gpu import segments
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import EXTRA, VALUES, Staged
from flows.warehouse import registry
from flows.warehouse.frames import escape_glob, query_rows, quote_literal
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome
from flows.warehouse.store import explain_disk_errors, open_for_writing, store_of
from transforms.constants import POWER_SOURCES

Progress = Callable[[Path], None]


def no_progress(_: Path) -> None:
    """Say nothing about files as they are loaded."""


_BATCH, _BYTES = 2048, 1 << 30
"""Files that go through the gate together, and how large they may be in all: one validation costs the same for one
or many."""

_THREADS = 3
"""Files that are looked at side by side."""


def ingest_gpu(
    settings: Settings,
    paths: Iterable[str | Path],
    options: Options | None = None,
    source: str = "",
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Load files of GPU readings (docs/formats.md).

    Of a collector's spool, only finished segments are taken. Good files are loaded, bad ones go to quarantine with their reason, files already loaded
    (by content, whatever their name) are left alone. Returns what became of each.

    Raises:
        UsageError: an option or setting is missing or wrong; nothing was loaded from that file on.
        WarehouseError: the disk or the warehouse failed; what was reported loaded is stored.
    """
    files = [
        path for path in expand_paths(paths) if path.suffix == ".parquet" or not is_in_spool(path)
    ]
    outcomes: list[Outcome] = []
    with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
        registry.declare_gpus(con, settings)
        for batch in _batches(files):
            outcomes += _load(con, settings, batch, options or Options(), source, progress)
    return outcomes


def _batches(files: Iterable[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in files:
        batch.append(path)
        size += path.stat().st_size
        if len(batch) == _BATCH or size > _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _load(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    files: Sequence[Path],
    options: Options,
    source: str,
    progress: Progress,
    *,
    again: bool = False,
) -> list[Outcome]:
    """Load a batch of files; `again`: these had to wait for others once already."""
    outcomes: dict[Path, Outcome] = {}
    staged: dict[str, Staged] = {}
    hosts: dict[str, Path] = {}
    later: set[Path] = set()
    [(seen,)] = con.execute("SELECT coalesce(max(segment_key), 0) FROM segment").fetchall()

    def refuse(path: Path, digest: str, suite: str, reason: str, kind: str = "") -> None:
        outcomes[path] = registry.quarantine_file(con, settings, path, digest, suite, reason, kind)

    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = list(pool.map(hash_file, files))
            loaded = registry.find_loaded(con, digests)
            for path, digest in zip(files, digests, strict=True):
                progress(path)
                if digest in loaded:
                    outcomes[path] = Outcome(str(path), digest, "known")
                elif digest in staged or digest in hosts:
                    later.add(path)
                elif path.suffix == ".parquet" and not source and segments.is_host_segment(path):
                    hosts[digest] = path
                else:
                    try:
                        staged[digest] = gpu_source.stage(path, settings, options, source, digest)
                    except BadInput as error:
                        refuse(path, digest, "reader", str(error))
            groups = list(gpu_profile.groups(list(staged.values())))
            looked_at: list[tuple[Staged, pl.DataFrame]] = []
            for group, read in zip(groups, pool.map(gpu_profile.read, groups), strict=True):
                for one, facts in zip(group, read, strict=True):
                    if isinstance(facts, BadInput):
                        refuse(one.source, one.segment_id, "reader", str(facts))
                    else:
                        looked_at.append((one, facts))
        if looked_at:
            profiled = gpu_profile.profile(con, looked_at, gpu_profile.Limits(settings))
            for digest, fault in profiled.refused.items():
                refuse(staged[digest].source, digest, "reader", str(fault))
            later |= {staged[digest].source for digest in profiled.later}
            faults, warnings = _gate(con, settings)
            for digest in faults:
                one = staged[digest]
                refuse(
                    one.source, digest, "readings", _reason(con, one, faults[digest]), one.format
                )
            out = {*profiled.refused, *profiled.later, *faults}
            good = [one for one, _ in looked_at if one.segment_id not in out]
            for one, outcome in _promote_all(con, good, seen):
                if isinstance(outcome, BadInput):
                    refuse(one.source, one.segment_id, "reader", str(outcome))
                    continue
                if outcome is None:
                    later.add(one.source)
                    continue
                outcomes[one.source] = outcome
                outcome.warnings = warnings.get(one.segment_id, [])
        if hosts:
            outcomes |= host.load(con, settings, hosts)
    finally:
        for one in staged.values():
            _drop(one)
    waiting = [path for path in files if path in later]
    # Of files that overlap even then (a log that grows, kept every hour), each waits for the one before.
    for part in [[path] for path in waiting] if again else [waiting] if waiting else []:
        found = _load(con, settings, part, options, source, no_progress, again=True)
        outcomes |= dict(zip(part, found, strict=True))
    return [outcomes[path] for path in files]


def _drop(staged: Staged) -> None:
    """Remove what was written for staging; a segment is read where it is."""
    if not staged.own:
        staged.path.unlink(missing_ok=True)


_STEPS = """
    SELECT *,
        gpu_uuid = lag(gpu_uuid) OVER () AS same_gpu,
        epoch_us(ts) - lag(epoch_us(ts)) OVER () AS step_us,
        energy_mj - lag(energy_mj) OVER () AS rise_mj
    FROM {relation}
"""
"""Staged readings with the step from the row before: same GPU, microseconds, millijoules."""


def _gate(
    con: duckdb.DuckDBPyConnection, settings: Settings
) -> tuple[dict[str, list[Result]], dict[str, list[str]]]:
    """Run the suite on all staged profiles: failed checks and warnings by segment."""
    from expectations.gate import Gate

    suite = readings_suite.suite(
        future_tolerance_s=settings.readings.future_tolerance_s,
        max_gap_s=settings.readings.max_gap_s,
        counter_power_tolerance=settings.gate.counter_power_tolerance,
    )
    verdict = Gate(con).run(suite)
    with transaction(con):
        registry.record_verdict(con, verdict)
    faults: dict[str, list[Result]] = {}
    warnings: dict[str, list[str]] = {}
    for result in verdict.failures:
        for segment, broken in _by_segment(result).items():
            one = Result(result.check, False, len(broken), broken)
            faults.setdefault(segment, []).append(one)
    for result in verdict.warnings:
        for segment, broken in _by_segment(result).items():
            more = f" and {len(broken) - 1} more GPUs" if len(broken) > 1 else ""
            said = f"{result.check.statement}: not so for {broken[0]['gpu_uuid']}{more}"
            warnings.setdefault(segment, []).append(said)
    return faults, warnings


def _by_segment(result: Result) -> dict[str, list[dict[str, Any]]]:
    """The rows that break a check, by segment."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result.rows:
        found.setdefault(row["segment_id"], []).append(row)
    return found


def _reason(con: duckdb.DuckDBPyConnection, staged: Staged, faults: list[Result]) -> str:
    """Why a segment was refused: file, row, column, value and what to do."""
    said = []
    for fault in faults:
        first = fault.rows[0]
        place = locate(staged.source)
        if fault.check.name in readings_suite.ROWS_WHERE:
            column, predicate = readings_suite.ROWS_WHERE[fault.check.name]
            example = _example(con, staged, first, column, predicate)
            if example:
                place = locate(staged.source, example["row_no"], column, example["value"])
        gpu = first["gpu_uuid"]
        said.append(f"{place}: {fault.check.statement}, but {gpu} breaks it. {fault.check.remedy}")
    return "; ".join(said)


def _example(
    con: duckdb.DuckDBPyConnection,
    staged: Staged,
    profile_row: dict[str, Any],
    column: str,
    predicate: str,
) -> dict[str, Any] | None:
    uuid = profile_row["gpu_uuid"]
    if column == "ts" and uuid in staged.steps_back:
        return {"row_no": staged.steps_back[uuid][1], "value": None}
    query = predicate.format(limit_mw=profile_row.get("limit_mw", 0) or 0)
    found = query_rows(
        con,
        f"WITH staged AS ({_STEPS.format(relation=gpu_profile.relation(staged))}) "
        f"SELECT row_no, {column} AS value FROM staged "
        f"WHERE gpu_uuid = $uuid AND {query} ORDER BY row_no LIMIT 1",
        {"uuid": uuid},
    )
    return found[0] if found else None


POWER_SOURCE_CODE = (
    "CASE s.power_source "
    + " ".join(f"WHEN '{name}' THEN {code}" for code, name in enumerate(POWER_SOURCES))
    + " ELSE 0 END"
)
"""SQL: the code of the power source of staged readings `s`."""


def _named(staged: Staged) -> list[registry.Gpu]:
    """The GPUs that a collector lists, also those without a reading."""
    if staged.collector is None:
        return []
    said = json.loads(staged.collector)
    return [
        registry.Gpu(gpu["uuid"], said["host"], gpu["index"], gpu["model"]) for gpu in said["gpus"]
    ]


def _add_collected(
    con: duckdb.DuckDBPyConnection, together: Sequence[Staged], keys: Sequence[int]
) -> None:
    """Write the events and MIG instances of collectors' segments."""
    events: list[tuple[Any, ...]] = []
    instances: dict[str, tuple[str, int]] = {}
    for staged, key in zip(together, keys, strict=True):
        said = json.loads(staged.collector or '{"gpus": []}')
        events += [
            (said["host"], e.get("gpu_uuid"), e["ts_us"], e["event"], e.get("detail", ""), key)
            for e in staged.events
        ]
        for gpu in said["gpus"]:
            for instance in gpu["instances"]:
                instances[instance["uuid"]] = (gpu["uuid"], instance["share_ppm"])
    if events:
        con.executemany(
            "INSERT INTO collector_event VALUES (?, ?, make_timestamptz(?), ?, ?, ?)", events
        )
    if instances:
        con.execute(
            "DELETE FROM gpu_instance WHERE instance_uuid IN (SELECT unnest(?))", [list(instances)]
        )
        con.executemany(
            "INSERT INTO gpu_instance VALUES (?, ?, ?)",
            [(uuid, *of) for uuid, of in instances.items()],
        )


_AT_ONCE = 32_000_000
"""Readings of one transaction: many files together are written twice as fast as one by one."""


Settled = tuple[Staged, Outcome | BadInput | None]
"""A segment and what became of it: None where another process has loaded a part of it since."""


def _promote_all(
    con: duckdb.DuckDBPyConnection, good: Sequence[Staged], seen: int
) -> Iterator[Settled]:
    """Move staged segments into the warehouse, several in one transaction where they are small.

    `seen`: the last file that they were compared with.
    """
    stored = dict(
        con.execute(
            "SELECT segment_id, sum(duplicates)::BIGINT FROM staging.segment_profile GROUP BY ALL"
        ).fetchall()
    )
    waiting: list[Staged] = []
    size = 0
    for one in good:
        # What is stored already in part is looked up row by row, so it goes by itself.
        apart = bool(stored.get(one.segment_id))
        if waiting and (apart or size + one.rows_read > _AT_ONCE):
            yield from _promote(con, waiting, seen)
            waiting, size = [], 0
        waiting.append(one)
        size += one.rows_read
        if apart:
            yield from _promote(con, waiting, seen, new_only=True)
            waiting, size = [], 0
    if waiting:
        yield from _promote(con, waiting, seen)


def _overtaken(con: duckdb.DuckDBPyConnection, seen: int) -> set[str]:
    """Staged segments that another process has loaded, or of whose GPUs and time it has loaded readings, since."""
    profile = "staging.segment_profile"
    since = con.execute(
        f"SELECT DISTINCT p.segment_id FROM {profile} AS p "
        f"JOIN segment_profile AS s ON {gpu_profile.SHARED} JOIN segment AS g "
        f"ON g.segment_id = s.segment_id AND g.verdict = 'loaded' AND g.segment_key > {seen} "
        f"WHERE {gpu_profile.near(con, profile)}"
    )
    return {row[0] for row in since.fetchall()}


def _promote(
    con: duckdb.DuckDBPyConnection, waiting: Sequence[Staged], seen: int, *, new_only: bool = False
) -> list[Settled]:
    """Readings, profiles and catalogue of some segments, in one transaction."""
    try:
        with transaction(con):
            overtaken = _overtaken(con, seen)
            together = [one for one in waiting if one.segment_id not in overtaken]
            done = _store(con, together, new_only=new_only) if together else {}
    except duckdb.Error:
        # A file that can't be read must not keep others out.
        faults = {one.segment_id: fault for one in waiting if (fault := gpu_profile.damage(one))}
        if not faults:
            raise
        rest = [one for one in waiting if one.segment_id not in faults]
        settled = _promote(con, rest, seen, new_only=new_only) if rest else []
        return [
            *settled,
            *((one, faults[one.segment_id]) for one in waiting if one.segment_id in faults),
        ]
    return [(one, done.get(one.segment_id)) for one in waiting]


def _store(
    con: duckdb.DuckDBPyConnection, segments: Sequence[Staged], *, new_only: bool
) -> dict[str, Outcome]:
    """Write what was staged of some segments (inside the caller's transaction)."""
    wanted = [one.segment_id for one in segments]
    mine = "WHERE segment_id IN (SELECT unnest(?))"
    gpus = con.execute(
        f"SELECT gpu_uuid, host, gpu_index, model FROM staging.segment_gpu {mine} ORDER BY place",
        [wanted],
    ).fetchall()
    registry.add_gpus(
        con,
        [*(registry.Gpu(*gpu) for gpu in gpus), *(gpu for one in segments for gpu in _named(one))],
    )
    totals = query_rows(
        con,
        f"""
        SELECT segment_id, min(first_ts) AS first_ts, max(last_ts) AS last_ts,
            sum(duplicates)::BIGINT AS stored,
            median(coalesce(usual_step_ms, (epoch_ms(last_ts) - epoch_ms(first_ts)) //
                greatest(rows_read - 1, 1)))::BIGINT AS period
        FROM staging.segment_profile {mine} GROUP BY ALL
        """,
        [wanted],
    )
    of = {row["segment_id"]: row for row in totals}
    files = []
    for one in segments:
        # A collector may have only events to tell.
        facts = of.get(one.segment_id, {})
        duplicates = one.rows_duplicate + facts.get("stored", 0)
        files.append(
            registry.File(
                one.segment_id,
                str(one.source),
                one.format,
                "loaded",
                sample=one.sample,
                rows_read=one.rows_read,
                rows_loaded=one.rows_read - duplicates,
                rows_duplicate=duplicates,
                rows_skipped=one.rows_skipped,
                # What the recorder was told, if it says so: else what it did most of the time.
                sample_period_ms=json.loads(one.collector or "{}").get("period_ms")
                or facts.get("period"),
                first_ts=facts.get("first_ts"),
                last_ts=facts.get("last_ts"),
                collector=one.collector,
            )
        )
    keys = registry.record_files(con, files)
    _add_collected(con, segments, keys)
    inserted = _insert(con, segments, keys[0], new_only=new_only)
    expected = sum(file.rows_loaded for file in files)
    if inserted != expected:
        names = ", ".join(str(one.source) for one in segments)
        raise RuntimeError(f"{names}: {inserted} rows stored, {expected} expected")
    con.execute(f"DELETE FROM segment_profile {mine}", [wanted])
    con.execute(
        f"INSERT INTO segment_profile BY NAME FROM staging.segment_profile {mine}", [wanted]
    )
    return {file.segment_id: file.as_outcome() for file in files}


def _insert(
    con: duckdb.DuckDBPyConnection,
    files: Sequence[Staged],
    first: int,
    *,
    new_only: bool,
) -> int:
    """Copy the readings of some files, whose keys begin with `first`; `new_only` leaves out what is stored already."""
    listing = ", ".join(quote_literal(escape_glob(staged.path)) for staged in files)
    # Columns of nulls cost a tenth more to write.
    given = {name for staged in files for name in staged.columns}
    values = ", ".join(f"s.{name}" for name in [*VALUES, *EXTRA] if name in given)
    unknown = "ANTI JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts"
    [(inserted,)] = con.execute(
        f"""
        INSERT INTO gpu_reading BY NAME
        SELECT g.gpu_key, s.ts, {values}{"," * bool(values)} {POWER_SOURCE_CODE} AS power_source_code,
            (s.file_index + {first})::INTEGER AS segment_key
        FROM read_parquet([{listing}], union_by_name = true) AS s
        JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid {unknown if new_only else ""}
        """
    ).fetchall()
    return int(inserted)
