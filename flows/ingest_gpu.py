"""GPU readings: stage, profile, gate, promote - each file exactly once, or to quarantine."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from expectations import readings as readings_suite
from expectations.checks import Result
from flows import catalogue, ingest_host
from flows.catalogue import Outcome
from flows.errors import BadInput, where
from flows.factors import effective, for_model
from flows.settings import Settings
from flows.sources import gpu as gpu_source
from flows.sources import segments
from flows.sources.files import expand, in_spool, sha256
from flows.sources.nvidia_smi import Options
from flows.sources.staged import EXTRA, STAGED, VALUES, Staged
from flows.warehouse import disk_errors, literal, one_file, rows, transaction, writing
from transforms.profile import PROFILED, pieces
from transforms.profile import profile as profile_of
from transforms.schemas import POWER_SOURCES

Progress = Callable[[Path], None]


def no_progress(_: Path) -> None:
    """Say nothing about files as they are loaded."""


_BATCH = 256
"""Files that go through the gate together: one validation costs the same for one or many."""


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
    files = [path for path in expand(paths) if path.suffix == ".parquet" or not in_spool(path)]
    outcomes: list[Outcome] = []
    with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
        catalogue.declare_gpus(con, settings)
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            outcomes += _load(con, settings, batch, options or Options(), source, progress)
    return outcomes


def _load(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    files: Sequence[Path],
    options: Options,
    source: str,
    progress: Progress,
) -> list[Outcome]:
    outcomes: dict[Path, Outcome] = {}
    staged: dict[str, Staged] = {}
    hosts: dict[str, Path] = {}
    later: list[Path] = []
    [(seen,)] = con.execute("SELECT coalesce(max(segment_key), 0) FROM segment").fetchall()
    loaded = catalogue.known(con)
    _empty_staging(con)
    limits = _Limits(settings)
    waiting: deque[tuple[Staged, Future[pl.DataFrame]]] = deque()

    def settle() -> None:
        one, facts = waiting.popleft()
        try:
            if not profile(con, one, limits, facts):
                later.append(one.source)
                _drop(staged.pop(one.segment_id))
        except BadInput as error:
            outcomes[one.source] = catalogue.quarantine(
                con, settings, one.source, one.segment_id, "reader", str(error)
            )
            _drop(staged.pop(one.segment_id))

    try:
        # Files are read and looked at side by side; what becomes of them is decided in their order.
        with ThreadPoolExecutor(_THREADS) as pool:
            for path, digest in zip(files, pool.map(sha256, files), strict=True):
                progress(path)
                if digest in loaded:
                    outcomes[path] = Outcome(str(path), digest, "known")
                elif digest in staged or digest in hosts:
                    later.append(path)
                elif path.suffix == ".parquet" and not source and segments.is_host(path):
                    hosts[digest] = path
                else:
                    try:
                        one = gpu_source.stage(path, settings, options, source, digest)
                    except BadInput as error:
                        outcomes[path] = catalogue.quarantine(
                            con, settings, path, digest, "reader", str(error)
                        )
                        continue
                    staged[digest] = one
                    waiting.append((one, pool.submit(_facts, one)))
                    if len(waiting) > _THREADS:
                        settle()
            while waiting:
                settle()
        if staged:
            faults, warnings = _gate(con, settings)
            for digest in faults:
                one = staged[digest]
                reason = _reason(con, one, faults[digest])
                outcomes[one.source] = catalogue.quarantine(
                    con, settings, one.source, digest, "readings", reason, one.format
                )
            good = [one for digest, one in staged.items() if digest not in faults]
            for one, outcome in _promote_all(con, good, seen):
                if outcome is None:
                    later.append(one.source)
                    continue
                outcomes[one.source] = outcome
                outcome.warnings = warnings.get(one.segment_id, [])
        if hosts:
            outcomes |= ingest_host.load(con, settings, hosts)
    finally:
        for one in staged.values():
            _drop(one)
    if later:
        found = _load(con, settings, later, options, source, no_progress)
        outcomes |= dict(zip(later, found, strict=True))
    return [outcomes[path] for path in files]


def _drop(staged: Staged) -> None:
    """Remove what was written for staging; a segment is read where it is."""
    if not staged.own:
        staged.path.unlink(missing_ok=True)


def _empty_staging(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE OR REPLACE TABLE staging.segment_profile AS FROM segment_profile LIMIT 0")
    con.execute(
        "CREATE OR REPLACE TABLE staging.segment_gpu "
        "(segment_id VARCHAR, gpu_uuid VARCHAR, host VARCHAR, gpu_index INTEGER, model VARCHAR)"
    )


class _Limits:
    """The largest believable power per GPU model, in milliwatts."""

    def __init__(self, settings: Settings) -> None:
        self._factors = effective(settings)
        self._tolerance = settings.readings.limit_tolerance
        self._most = settings.readings.max_power_w

    def milliwatts(self, model: str | None) -> int:
        factor = for_model(self._factors, "gpu_limit_w", model)
        if factor.scope == "default":
            return int(self._most * 1000)
        return int(min(factor.high * self._tolerance, self._most) * 1000)

    def floor_mw(self, model: str | None) -> int:
        """Half of what the model draws idle: less is a sensor that fails."""
        return int(for_model(self._factors, "gpu_idle_w", model).low * 500)


def _relation(staged: Staged) -> str:
    """The staged file as SQL, in STAGED columns and file order."""
    path = literal(one_file(staged.path))
    if not staged.own:
        return f"read_parquet({path})"
    have = set(pl.scan_parquet(staged.path, glob=False).collect_schema())
    types = {"String": "VARCHAR", "Int16": "SMALLINT", "Int32": "INTEGER", "Int64": "BIGINT"}
    columns = []
    for name, dtype in STAGED.items():
        kind = types.get(str(dtype), "TIMESTAMPTZ")
        if name == "row_no":
            columns.append("file_row_number + 1 AS row_no")
        elif name in have:
            columns.append(f"{name}::{kind} AS {name}")
        else:
            columns.append(f"NULL::{kind} AS {name}")
    listing = ", ".join(columns)
    return f"(SELECT {listing} FROM read_parquet({path}, file_row_number = true))"


_STEPS = """
    SELECT *,
        gpu_uuid = lag(gpu_uuid) OVER () AS same_gpu,
        epoch_us(ts) - lag(epoch_us(ts)) OVER () AS step_us,
        energy_mj - lag(energy_mj) OVER () AS rise_mj
    FROM {relation}
"""
"""Staged readings with the step from the row before: same GPU, microseconds, millijoules."""


_THREADS = 3
"""Files that are looked at side by side."""

_AT_A_TIME = 1 << 22
"""Readings of a staged file that are looked at together."""


def _row_groups(metadata: Any) -> Iterator[list[int]]:
    """Row groups of a Parquet file, as many at a time as have some millions of rows."""
    groups: list[int] = []
    rows = 0
    for number in range(metadata.num_row_groups):
        groups.append(number)
        rows += metadata.row_group(number).num_rows
        if rows >= _AT_A_TIME:
            yield groups
            groups, rows = [], 0
    if groups:
        yield groups


def _facts(staged: Staged) -> pl.DataFrame:
    """`transforms.profile.profile` of a staged file.

    Texts are read as what they are in the file, numbers of a dictionary: that takes a third of the time.
    """
    texts = [name for name in PROFILED if STAGED[name] == pl.String]
    file = pq.ParquetFile(staged.path, read_dictionary=texts)
    have = [name for name in PROFILED if name in file.schema_arrow.names]
    parts: list[pl.DataFrame] = []
    last: pl.DataFrame | None = None
    for groups in _row_groups(file.metadata):
        # Reading batch by batch takes seven times as long.
        read = pl.from_arrow(file.read_row_groups(groups, columns=have).unify_dictionaries())
        assert isinstance(read, pl.DataFrame)
        frame = read.select(
            pl.lit(None, STAGED[name]).alias(name)
            if name not in have
            else pl.col(name)
            if name in texts
            else pl.col(name).cast(STAGED[name])
            for name in PROFILED
        )
        given = frame if last is None else pl.concat([last, frame])
        parts.append(pieces(given, goes_on=last is not None))
        last = frame.tail(1)
    return profile_of(parts or [pieces(pl.DataFrame(schema={n: STAGED[n] for n in PROFILED}))])


def profile(
    con: duckdb.DuckDBPyConnection, staged: Staged, limits: _Limits, found: Future[pl.DataFrame]
) -> bool:
    """Write one row per GPU of a staged file into staging.segment_profile: what the gate sees.

    False, and nothing is written, where another staged file has readings of the same GPUs in the same time: only
    when that one is loaded can it be told which readings are new.

    Raises:
        BadInput: the file is damaged, or a value is missing where it may not be.
    """
    relation = _relation(staged)
    try:
        facts = found.result()
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise BadInput(
            f"damaged Parquet: {str(error).splitlines()[0]}",
            where=str(staged.source),
            remedy="Copy the file again",
        ) from None
    con.register("facts", facts.to_arrow())
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE profile AS
        SELECT *, $segment AS segment_id, $source AS source_name, NULL::BIGINT AS limit_mw,
            NULL::BIGINT AS floor_mw,
            0::BIGINT AS duplicates,
            greatest(epoch(last_ts) - epoch(now()), 0)::BIGINT AS future_s
        FROM facts
        """,
        {"segment": staged.segment_id, "source": str(staged.source)},
    )
    con.unregister("facts")
    for row in rows(con, "FROM profile WHERE gpu_uuid IS NULL OR host IS NULL OR no_time > 0"):
        empty = next(n for n in ("gpu_uuid", "host", "ts") if row.get(n) is None or n == "ts")
        raise BadInput(
            f"column {empty!r} has no value in some rows",
            where=str(staged.source),
            remedy="Every reading needs gpu_uuid, host and ts",
        )
    for row in rows(con, "SELECT DISTINCT model FROM profile"):
        con.execute(
            "UPDATE profile SET limit_mw = ?, floor_mw = ? WHERE model IS NOT DISTINCT FROM ?",
            [limits.milliwatts(row["model"]), limits.floor_mw(row["model"]), row["model"]],
        )
    for uuid, (count, _) in staged.steps_back.items():
        con.execute("UPDATE profile SET steps_back = ? WHERE gpu_uuid = ?", [count, uuid])
    if con.execute(f"{_OVERLAP.format(other='staging.segment_profile')} LIMIT 1").fetchall():
        return False
    _check_rolled_up(con, staged)
    _compare_with_store(con, relation)
    con.execute(
        "INSERT INTO staging.segment_profile BY NAME "
        "SELECT * EXCLUDE (host, gpu_index, model, no_time) FROM profile"
    )
    con.execute(
        "INSERT INTO staging.segment_gpu "
        "SELECT segment_id, gpu_uuid, host, gpu_index, model FROM profile"
    )
    return True


_OVERLAP = """
    SELECT DISTINCT p.segment_id FROM profile AS p
    JOIN {other} AS s ON s.gpu_uuid = p.gpu_uuid
        AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts
"""
_LOADED = " JOIN segment AS g ON g.segment_id = s.segment_id AND g.verdict = 'loaded'"


def _check_rolled_up(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Refuse readings in time of which only sums are left: whether they are new can't be told.

    Raises:
        BadInput: some lie there.
    """
    found = rows(
        con,
        "SELECT p.gpu_uuid, s.first_ts, s.last_ts, r.rolled_up_at FROM profile AS p "
        "JOIN segment_profile AS s ON s.gpu_uuid = p.gpu_uuid "
        "AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts "
        "JOIN rolled_up AS r ON r.segment_id = s.segment_id ORDER BY ALL LIMIT 1",
    )
    for row in found:
        raise BadInput(
            f"readings of {row['gpu_uuid']} from {row['first_ts']:%Y-%m-%dT%H:%M:%SZ} to "
            f"{row['last_ts']:%Y-%m-%dT%H:%M:%SZ} were rolled up {row['rolled_up_at']:%Y-%m-%d}",
            where=str(staged.source),
            remedy="Leave out that time of that GPU",
        )


def _compare_with_store(con: duckdb.DuckDBPyConnection, relation: str) -> None:
    """Count readings that are stored already, and those that contradict a stored one.

    Only looks at the store where segments of one GPU overlap in time (a log that grew, say).
    """
    if not con.execute(_OVERLAP.format(other="segment_profile") + _LOADED).fetchall():
        return
    same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM s.{name}" for name in VALUES)
    con.execute(
        f"""
        UPDATE profile SET duplicates = c.same, conflicts = profile.conflicts + c.different
        FROM (
            SELECT s.gpu_uuid, count(*) FILTER (WHERE {same}) AS same, count_if(NOT ({same})) AS different
            FROM {relation} AS s
            JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid
            JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts
            GROUP BY s.gpu_uuid
        ) AS c WHERE c.gpu_uuid = profile.gpu_uuid
        """
    )


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
        catalogue.record_verdict(con, verdict)
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
        place = where(staged.source)
        if fault.check.name in readings_suite.ROWS_WHERE:
            column, predicate = readings_suite.ROWS_WHERE[fault.check.name]
            example = _example(con, staged, first, column, predicate)
            if example:
                place = where(staged.source, example["row_no"], column, example["value"])
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
    found = rows(
        con,
        f"WITH staged AS ({_STEPS.format(relation=_relation(staged))}) "
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


def _given(staged: Sequence[Staged]) -> list[str]:
    """Which of EXTRA these files have any value of; columns of nulls cost a tenth more to write."""
    found = set()
    for one in staged:
        metadata = pq.ParquetFile(one.path).metadata
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                known = column.statistics
                empty = known is not None and known.has_null_count and not known.num_values
                if column.path_in_schema in EXTRA and not empty:
                    found.add(column.path_in_schema)
    return sorted(found)


def _named(staged: Staged) -> list[tuple[str, str, int | None, str | None]]:
    """The GPUs that a collector lists, also those without a reading: uuid, host, index, model."""
    if staged.collector is None:
        return []
    said = json.loads(staged.collector)
    return [(gpu["uuid"], said["host"], gpu["index"], gpu["model"]) for gpu in said["gpus"]]


def _add_collected(con: duckdb.DuckDBPyConnection, staged: Staged, key: int) -> None:
    """Write the events and MIG instances of a collector's segment."""
    if staged.collector is None:
        return
    said = json.loads(staged.collector)
    if staged.events:
        con.executemany(
            "INSERT INTO collector_event VALUES (?, ?, make_timestamptz(?), ?, ?, ?)",
            [
                [said["host"], e.get("gpu_uuid"), e["ts_us"], e["event"], e.get("detail", ""), key]
                for e in staged.events
            ],
        )
    for gpu in said["gpus"]:
        for instance in gpu["instances"]:
            con.execute("DELETE FROM gpu_instance WHERE instance_uuid = ?", [instance["uuid"]])
            con.execute(
                "INSERT INTO gpu_instance VALUES (?, ?, ?)",
                [instance["uuid"], gpu["uuid"], instance["share_ppm"]],
            )


_AT_ONCE = 32_000_000
"""Readings of one transaction: many files together are written twice as fast as one by one."""


def _promote_all(
    con: duckdb.DuckDBPyConnection, good: Sequence[Staged], seen: int
) -> Iterator[tuple[Staged, Outcome | None]]:
    """Move staged segments into the warehouse, several in one transaction where they are small.

    `seen`: the last file that they were compared with. None for those of which another process has
    loaded a part since.
    """
    waiting: list[tuple[Staged, dict[str, Any]]] = []
    for one in good:
        facts = _totals(con, one)
        # What is stored already in part is looked up row by row, so it goes by itself.
        apart = bool(facts["stored"])
        size = sum(each.rows_read for each, _ in waiting)
        if waiting and (apart or size + one.rows_read > _AT_ONCE):
            yield from _promote(con, waiting, seen)
            waiting = []
        waiting.append((one, facts))
        if apart:
            yield from _promote(con, waiting, seen)
            waiting = []
    if waiting:
        yield from _promote(con, waiting, seen)


def _totals(con: duckdb.DuckDBPyConnection, staged: Staged) -> dict[str, Any]:
    return rows(
        con,
        "SELECT min(first_ts) AS first_ts, max(last_ts) AS last_ts, "
        "coalesce(sum(duplicates), 0)::BIGINT AS stored, "
        "median(coalesce(usual_step_ms, (epoch_ms(last_ts) - epoch_ms(first_ts)) // "
        "greatest(rows_read - 1, 1)))::BIGINT AS period "
        "FROM staging.segment_profile WHERE segment_id = $segment",
        {"segment": staged.segment_id},
    )[0]


def _overtaken(con: duckdb.DuckDBPyConnection, seen: int) -> set[str]:
    """Staged segments that another process has loaded, or of whose GPUs and time it has loaded readings, since."""
    profile = _OVERLAP.replace("FROM profile", "FROM staging.segment_profile")
    since = f"{profile.format(other='segment_profile')}{_LOADED} AND g.segment_key > {seen}"
    return {row[0] for row in con.execute(since).fetchall()}


def _promote(
    con: duckdb.DuckDBPyConnection, waiting: Sequence[tuple[Staged, dict[str, Any]]], seen: int
) -> list[tuple[Staged, Outcome | None]]:
    """Readings, profiles and catalogue of some segments, in one transaction."""
    with transaction(con):
        overtaken = _overtaken(con, seen)
        done: list[tuple[Staged, Outcome | None]] = [
            (one, None) for one, _ in waiting if one.segment_id in overtaken
        ]
        together = [(one, facts) for one, facts in waiting if one.segment_id not in overtaken]
        if not together:
            return done
        keys, expected = [], 0
        for staged, facts in together:
            gpus = con.execute(
                "SELECT gpu_uuid, host, gpu_index, model FROM staging.segment_gpu "
                "WHERE segment_id = ?",
                [staged.segment_id],
            ).fetchall()
            catalogue.add_gpus(con, [*gpus, *_named(staged)])
            duplicates = staged.rows_duplicate + facts["stored"]
            loaded = staged.rows_read - duplicates
            key = catalogue.record_file(
                con,
                segment_id=staged.segment_id,
                source_name=str(staged.source),
                source_format=staged.format,
                verdict="loaded",
                sample=staged.sample,
                rows_read=staged.rows_read,
                rows_loaded=loaded,
                rows_duplicate=duplicates,
                rows_skipped=staged.rows_skipped,
                # What the recorder was told, if it says so: else what it did most of the time.
                sample_period_ms=json.loads(staged.collector or "{}").get("period_ms")
                or facts["period"],
                first_ts=facts["first_ts"],
                last_ts=facts["last_ts"],
                collector=staged.collector,
            )
            _add_collected(con, staged, key)
            keys.append(key)
            expected += loaded
            done.append(
                (
                    staged,
                    Outcome(
                        str(staged.source),
                        staged.segment_id,
                        "loaded",
                        staged.rows_read,
                        loaded,
                        duplicates,
                        staged.rows_skipped,
                    ),
                )
            )
        stored = any(facts["stored"] for _, facts in together)
        inserted = _insert(con, [staged for staged, _ in together], keys, new_only=stored)
        if inserted != expected:
            names = ", ".join(str(staged.source) for staged, _ in together)
            raise RuntimeError(f"{names}: {inserted} rows stored, {expected} expected")
        for staged, _ in together:
            segment = {"segment": staged.segment_id}
            con.execute("DELETE FROM segment_profile WHERE segment_id = $segment", segment)
            con.execute(
                "INSERT INTO segment_profile BY NAME "
                "FROM staging.segment_profile WHERE segment_id = $segment",
                segment,
            )
    return done


def _insert(
    con: duckdb.DuckDBPyConnection, files: Sequence[Staged], keys: Sequence[int], *, new_only: bool
) -> int:
    """Copy the readings of some files; `new_only` leaves out those that are stored already."""
    extra = _given(files)
    listing = ", ".join(literal(one_file(staged.path)) for staged in files)
    have = {
        row[0]
        for row in con.execute(
            f"DESCRIBE FROM read_parquet([{listing}], union_by_name = true)"
        ).fetchall()
    }
    values = [f"s.{name}" if name in have else f"NULL AS {name}" for name in [*VALUES, *extra]]
    con.register("file_key", pa.table({"file": range(len(keys)), "segment_key": list(keys)}))
    unknown = "ANTI JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts"
    [(inserted,)] = con.execute(
        f"""
        INSERT INTO gpu_reading BY NAME
        SELECT g.gpu_key, s.ts, {", ".join(values)}, {POWER_SOURCE_CODE} AS power_source_code,
            f.segment_key
        FROM read_parquet([{listing}], union_by_name = true) AS s
        JOIN file_key AS f ON f.file = s.file_index
        JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid {unknown if new_only else ""}
        """
    ).fetchall()
    con.unregister("file_key")
    return int(inserted)
