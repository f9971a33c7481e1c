"""What the gate sees of staged readings: one row of facts per file and GPU, and what is stored of them already.

Files are small (ten minutes of one host) and many, so all that is asked of the warehouse is asked for a batch of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from flows.errors import BadInput
from flows.factors import effective, for_model
from flows.settings import Settings
from flows.sources.gpu.staged import STAGED, VALUES, Staged
from flows.warehouse.connection import connect
from flows.warehouse.frames import escape_glob, query_rows, quote_literal, register
from transforms.profile import PROFILED, pieces
from transforms.profile import profile as profile_of


class Limits:
    """The largest and the smallest believable power per GPU model, in milliwatts."""

    def __init__(self, settings: Settings) -> None:
        self._factors = effective(settings)
        self._tolerance = settings.readings.limit_tolerance
        self._most = settings.readings.max_power_w

    def of(self, models: pl.Series) -> pl.DataFrame:
        """One row per model: limit_mw and floor_mw, half of what the model draws idle."""
        known = models.unique().to_list()
        return pl.DataFrame(
            [(model, self._limit_mw(model), self._floor_mw(model)) for model in known],
            schema={"model": pl.String, "limit_mw": pl.Int64, "floor_mw": pl.Int64},
            orient="row",
        )

    def _limit_mw(self, model: str | None) -> int:
        factor = for_model(self._factors, "gpu_limit_w", model)
        if factor.scope == "default":
            return int(self._most * 1000)
        return int(min(factor.high * self._tolerance, self._most) * 1000)

    def _floor_mw(self, model: str | None) -> int:
        return int(for_model(self._factors, "gpu_idle_w", model).low * 500)


def read(files: Sequence[Staged]) -> list[pl.DataFrame | BadInput]:
    """Look at every reading of some staged files: `transforms.profile.profile` of each, or what is wrong with it."""
    try:
        found = _together(files) if len(files) > 1 else [_alone(files[0])]
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        if len(files) > 1:
            # One is damaged, or they have columns of other types.
            return [one for file in files for one in read([file])]
        return [_damaged(files[0], error)]
    return [_whole(staged, facts) for staged, facts in zip(files, found, strict=True)]


def _whole(staged: Staged, facts: pl.DataFrame) -> pl.DataFrame | BadInput:
    for name, missing in (
        ("gpu_uuid", pl.col("gpu_uuid").is_null()),
        ("host", pl.col("host").is_null()),
        ("ts", pl.col("no_time") > 0),
    ):
        if facts.select(missing.any()).item():
            return BadInput(
                f"column {name!r} has no value in some rows",
                where=str(staged.source),
                remedy="Every reading needs gpu_uuid, host and ts",
            )
    return facts


_SMALL, _SOME = 1 << 16, 1 << 20
"""Readings of a file up to which it is looked at with others, and how many these may have together."""


def groups(files: Sequence[Staged]) -> Iterator[list[Staged]]:
    """Files as they are looked at: large ones alone, small ones many at a time, which is ten times as fast."""
    group: list[Staged] = []
    size = 0
    for one in files:
        if one.rows_read > _SMALL:
            yield [one]
            continue
        group.append(one)
        size += one.rows_read
        if size > _SOME:
            yield group
            group, size = [], 0
    if group:
        yield group


def _together(files: Sequence[Staged]) -> list[pl.DataFrame]:
    schema = {name: STAGED[name] for name in PROFILED}
    place = {str(one.path): number for number, one in enumerate(files)}
    frame = (
        pl.scan_parquet(
            list(place),
            schema=schema,
            glob=False,
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths="path",
        )
        .with_columns(segment=pl.col("path").replace_strict(place, return_dtype=pl.Int32))
        .drop("path")
        .collect()
    )
    by_file = profile_of([pieces(frame)]).partition_by("segment", include_key=False, as_dict=True)
    none = profile_of([pieces(frame.drop("segment").clear())])
    return [by_file.get((number,), none) for number in range(len(files))]


def _alone(staged: Staged) -> pl.DataFrame:
    texts = [n for n in PROFILED if STAGED[n] == pl.String and n in staged.columns]
    file = pq.ParquetFile(staged.path, read_dictionary=texts)
    have = [name for name in PROFILED if name in file.schema_arrow.names]
    parts: list[pl.DataFrame] = []
    last: pa.Table | None = None
    for numbers in _row_groups(file.metadata):
        # Reading batch by batch takes seven times as long.
        table = file.read_row_groups(numbers, columns=have)
        given = table if last is None else pa.concat_tables([last, table])
        parts.append(_pieces(given.unify_dictionaries(), goes_on=last is not None))
        last = table.take([table.num_rows - 1])
    return profile_of(parts or [pieces(pl.DataFrame(schema={n: STAGED[n] for n in PROFILED}))])


def _pieces(table: pa.Table, *, goes_on: bool) -> pl.DataFrame:
    """`pieces` of a table: its texts stay the numbers of a dictionary, that they are in the file, until each GPU is one row."""
    columns: list[pl.Series] = []
    texts: dict[str, pl.Series] = {}
    for name in PROFILED:
        if name not in table.column_names:
            columns.append(pl.Series(name, [None], STAGED[name]).new_from_index(0, table.num_rows))
            continue
        given = table[name]
        if pa.types.is_dictionary(given.type):
            texts[name] = pl.Series(name, given.chunk(0).dictionary, STAGED[name])
            given = pa.chunked_array(chunk.indices for chunk in given.chunks)
        columns.append(pl.Series(name, given))
    frame = pl.DataFrame(columns).select(
        name if name in texts else pl.col(name).cast(STAGED[name]) for name in PROFILED
    )
    found = pieces(frame, goes_on=goes_on)
    return found.with_columns(
        values.gather(found[name]).alias(name) for name, values in texts.items()
    )


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
    if rows:
        yield groups


@dataclass(frozen=True)
class Profiled:
    """What became of a batch: segments that are refused, and those that have to wait for others of it."""

    refused: dict[str, BadInput]
    later: set[str]


def profile(
    con: duckdb.DuckDBPyConnection, files: Sequence[tuple[Staged, pl.DataFrame]], limits: Limits
) -> Profiled:
    """Write staging.segment_profile, what the gate sees, and staging.segment_gpu.

    Nothing is written of a file that has readings of the same GPUs in the same time as one before it: only when that one
    is loaded can it be told which readings are new.
    """
    _write(con, files, limits)
    refused = _in_rolled_up_time(con, {one.segment_id: one for one, _ in files})
    _leave_out(con, refused)
    later = _overlapping(con)
    _leave_out(con, later)
    damaged = _compare_with_store(con, [one for one, _ in files])
    _leave_out(con, damaged)
    con.execute(
        "CREATE OR REPLACE TABLE staging.segment_profile AS FROM segment_profile LIMIT 0; "
        "INSERT INTO staging.segment_profile BY NAME "
        "SELECT * EXCLUDE (host, gpu_index, model, no_time, place) FROM profile; "
        "CREATE OR REPLACE TABLE staging.segment_gpu AS "
        "SELECT place, segment_id, gpu_uuid, host, gpu_index, model FROM profile"
    )
    con.execute("DROP TABLE profile")
    return Profiled(refused | damaged, later)


def _write(
    con: duckdb.DuckDBPyConnection, files: Sequence[tuple[Staged, pl.DataFrame]], limits: Limits
) -> None:
    """The temporary table `profile`: segment_profile, and who the GPUs are; `place` is the file's in the batch."""
    frames = []
    for place, (staged, facts) in enumerate(files):
        back = {gpu: count for gpu, (count, _) in staged.steps_back.items()}
        frames.append(
            facts.with_columns(
                steps_back=pl.col("gpu_uuid").replace_strict(back, default=pl.col("steps_back"))
                if back
                else pl.col("steps_back"),
                place=pl.lit(place),
                segment_id=pl.lit(staged.segment_id),
                source_name=pl.lit(str(staged.source)),
            )
        )
    found = pl.concat(frames)
    with register(con, facts=found.join(limits.of(found["model"]), on="model", nulls_equal=True)):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE profile AS SELECT *, 0::BIGINT AS duplicates, "
            "greatest(epoch(last_ts) - epoch(now()), 0)::BIGINT AS future_s FROM facts"
        )


def _leave_out(con: duckdb.DuckDBPyConnection, segments: Iterable[str]) -> None:
    con.execute("DELETE FROM profile WHERE segment_id IN (SELECT unnest(?))", [list(segments)])


SHARED = "s.gpu_uuid = p.gpu_uuid AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts"
"""SQL: the profiles p and s are of one GPU in the same time."""


def near(con: duckdb.DuckDBPyConnection, table: str = "profile") -> str:
    """SQL: the stored profile s is of the time of a batch, so that blocks of other times are passed over."""
    [(first, last)] = con.execute(f"SELECT min(first_ts), max(last_ts) FROM {table}").fetchall()
    if first is None:
        return "false"
    return f"s.first_ts <= TIMESTAMPTZ '{last}' AND s.last_ts >= TIMESTAMPTZ '{first}'"


def _in_rolled_up_time(
    con: duckdb.DuckDBPyConnection, files: dict[str, Staged]
) -> dict[str, BadInput]:
    """Files with readings in time of which only sums are left: whether they are new can't be told."""
    found = query_rows(
        con,
        f"""
        SELECT p.segment_id, p.gpu_uuid, s.first_ts, s.last_ts, r.rolled_up_at FROM profile AS p
        JOIN segment_profile AS s ON {SHARED} JOIN rolled_up AS r ON r.segment_id = s.segment_id
        WHERE {near(con)}
        QUALIFY row_number() OVER (PARTITION BY p.segment_id ORDER BY p.gpu_uuid, s.first_ts) = 1
        """,
    )
    return {
        row["segment_id"]: BadInput(
            f"readings of {row['gpu_uuid']} from {row['first_ts']:%Y-%m-%dT%H:%M:%SZ} to "
            f"{row['last_ts']:%Y-%m-%dT%H:%M:%SZ} were rolled up {row['rolled_up_at']:%Y-%m-%d}",
            where=str(files[row["segment_id"]].source),
            remedy="Leave out that time of that GPU",
        )
        for row in found
    }


def _overlapping(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Files that share time of a GPU with one that is before them and not itself left for later."""
    pairs = con.execute(
        "SELECT DISTINCT s.segment_id, p.segment_id, s.place, p.place FROM profile AS p "
        f"JOIN profile AS s ON s.place < p.place AND {SHARED} ORDER BY p.place, s.place"
    ).fetchall()
    later: set[str] = set()
    for before, after, *_ in pairs:
        if before not in later:
            later.add(after)
    return later


def _compare_with_store(
    con: duckdb.DuckDBPyConnection, files: Sequence[Staged]
) -> dict[str, BadInput]:
    """Count readings that are stored already, and those that contradict a stored one; files that turn out damaged.

    Only looks at the store where segments of one GPU overlap in time (a log that grew, say).
    """
    damaged: dict[str, BadInput] = {}
    overlapping = con.execute(
        f"SELECT DISTINCT p.place FROM profile AS p JOIN segment_profile AS s ON {SHARED} "
        "JOIN segment AS g ON g.segment_id = s.segment_id AND g.verdict = 'loaded' "
        f"WHERE {near(con)}"
    ).fetchall()
    same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM s.{name}" for name in VALUES)
    for (place,) in overlapping:
        one = files[place]
        try:
            con.execute(
                f"""
                UPDATE profile SET duplicates = c.same, conflicts = profile.conflicts + c.different
                FROM (
                    SELECT s.gpu_uuid, count(*) FILTER (WHERE {same}) AS same,
                        count_if(NOT ({same})) AS different
                    FROM {relation(one)} AS s
                    JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid
                    JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts
                    GROUP BY s.gpu_uuid
                ) AS c WHERE c.gpu_uuid = profile.gpu_uuid AND profile.place = {place}
                """
            )
        except duckdb.Error:
            fault = damage(one)
            if fault is None:
                raise
            damaged[one.segment_id] = fault
    return damaged


def damage(staged: Staged) -> BadInput | None:
    """What is wrong with a file in columns that `read` passes over."""
    with closing(connect(Path(":memory:"))) as con:
        try:
            con.execute(f"SELECT max(COLUMNS(*)) FROM {relation(staged)}")
        except duckdb.Error as error:
            return _damaged(staged, error)
    return None


def _damaged(staged: Staged, error: Exception) -> BadInput:
    return BadInput(
        f"damaged Parquet: {str(error).splitlines()[0]}",
        where=str(staged.source),
        remedy="Copy the file again",
    )


def relation(staged: Staged) -> str:
    """The staged file as SQL, in STAGED columns and file order."""
    path = quote_literal(escape_glob(staged.path))
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
