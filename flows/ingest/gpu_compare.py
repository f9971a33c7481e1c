"""Profiles of staged readings, compared with each other and with what is stored, as the gate sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.ingest.gpu_profile import PowerBounds, find_damage, relation_of
from flows.sources.gpu.staged import VALUES, Staged
from flows.warehouse.frames import load_query, query_rows, register, stage, temporary


@dataclass(frozen=True)
class Comparison:
    """Segments of a batch that do not go on to the gate."""

    refused: Mapping[str, BadInput]
    """Segments that cannot be loaded, and why."""
    waiting: frozenset[str]
    """Segments that have to wait until others of the batch are loaded."""


@contextmanager
def stage_profiles(
    con: duckdb.DuckDBPyConnection,
    files: Sequence[tuple[Staged, pl.DataFrame]],
    bounds: PowerBounds,
) -> Iterator[Comparison]:
    """Keep staging.segment_profile, what the gate sees, and staging.segment_gpu for the length of a `with` block.

    A file with readings of the same GPUs in the same time as one before it is left out, and waits: only when
    that one is loaded can it be told which readings are new.

    Args:
        con: The warehouse, open for writing.
        files: Staged files with their profiles (`read_profiles`), in the order of the batch.
        bounds: Believable power of the models.
    """
    profiles = _join_profiles(files, bounds)
    segments = [staged for staged, _ in files]
    with register(con, facts=profiles), temporary(con, profile=_PROFILE):
        refused = _refuse_rolled_up(con, segments)
        _leave_out(con, refused)
        told_twice = _refuse_told_twice(con, segments)
        _leave_out(con, told_twice)
        waiting = _find_waiting(con)
        _leave_out(con, waiting)
        damaged = _count_stored(con, segments)
        _leave_out(con, damaged)
        with stage(con, segment_profile="FROM segment_profile LIMIT 0", segment_gpu=_SEGMENT_GPU):
            con.execute(
                "INSERT INTO staging.segment_profile BY NAME "
                "SELECT * EXCLUDE (host, gpu_index, model, no_time, place, power_sum_mw, still_us, max_energy_mj) FROM profile"
            )
            yield Comparison(refused | told_twice | damaged, frozenset(waiting))


_PROFILE = """
    SELECT *, 0::BIGINT AS duplicates,
        greatest(epoch(last_ts) - epoch(now()), 0)::BIGINT AS future_s
    FROM facts
"""
"""The temporary table `profile`: columns of segment_profile, who the GPUs are, and `place`, the file's in the batch."""
_SEGMENT_GPU = "SELECT place, segment_id, gpu_uuid, host, gpu_index, model FROM profile"


def _join_profiles(
    files: Sequence[tuple[Staged, pl.DataFrame]], bounds: PowerBounds
) -> pl.DataFrame:
    frames = []
    for place, (staged, facts) in enumerate(files):
        steps_back = pl.col("steps_back")
        if staged.steps_back:
            counts = {gpu: count for gpu, (count, _) in staged.steps_back.items()}
            steps_back = pl.col("gpu_uuid").replace_strict(counts, default=steps_back)
        blanks = pl.DataFrame(
            list(staged.blanks.items()),
            schema={"gpu_uuid": pl.String, "blank_values": pl.Int64},
            orient="row",
        )
        facts = facts.join(blanks, on="gpu_uuid", how="left", validate="1:1")
        frames.append(
            facts.with_columns(
                pl.col("blank_values").fill_null(0),
                steps_back=steps_back,
                place=pl.lit(place),
                segment_id=pl.lit(staged.segment_id),
                source_name=pl.lit(str(staged.source)),
            )
        )
    return bounds.add(bounds.drop_unbelievable(pl.concat(frames)))


def _leave_out(con: duckdb.DuckDBPyConnection, segments: Iterable[str]) -> None:
    con.execute(
        "DELETE FROM profile WHERE segment_id IN (SELECT unnest($segments))",
        {"segments": list(segments)},
    )


def span_of(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, Any]:
    """The time of the profiles in a table, as parameters of a query: `first` and `last`, null where there are none."""
    [(first, last)] = con.execute(f"SELECT min(first_ts), max(last_ts) FROM {table}").fetchall()
    return {"first": first, "last": last}


def _refuse_rolled_up(
    con: duckdb.DuckDBPyConnection, files: Sequence[Staged]
) -> dict[str, BadInput]:
    """Refuse files with readings in time of which only sums are left: nobody can tell whether they are new."""
    sources = {staged.segment_id: str(staged.source) for staged in files}
    query = load_query("ingest/rolled_up_readings")
    return {
        row["segment_id"]: BadInput(
            f"readings of {row['gpu_uuid']} from {row['first_ts']:%Y-%m-%dT%H:%M:%SZ} to "
            f"{row['last_ts']:%Y-%m-%dT%H:%M:%SZ} were rolled up {row['rolled_up_at']:%Y-%m-%d}",
            where=sources[row["segment_id"]],
            remedy="Leave out that time of that GPU",
        )
        for row in query_rows(con, query, span_of(con, "profile"))
    }


def _refuse_told_twice(
    con: duckdb.DuckDBPyConnection, files: Sequence[Staged]
) -> dict[str, BadInput]:
    """Refuse files about GPUs that another file tells of at the same time under another name: they would count twice."""
    query = load_query("ingest/told_twice")
    return {
        files[row["place"]].segment_id: BadInput(
            f"{row['gpu_uuid']} is the same GPU as {row['other_uuid']}, of which {row['other_source']} tells from "
            f"{row['first_ts']:%Y-%m-%dT%H:%M:%SZ} to {row['last_ts']:%Y-%m-%dT%H:%M:%SZ}",
            where=str(files[row["place"]].source),
            remedy="Two recorders read this host: load the files of one of them, or record index and uuid in both",
        )
        for row in query_rows(con, query, span_of(con, "profile"))
    }


def _find_waiting(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Find files that share time of a GPU with one that is before them and does not wait itself."""
    waiting: set[str] = set()
    for before, after, *_ in con.execute(load_query("ingest/overlapping_files")).fetchall():
        if before not in waiting:
            waiting.add(after)
    return waiting


def _count_stored(con: duckdb.DuckDBPyConnection, files: Sequence[Staged]) -> dict[str, BadInput]:
    """Count readings that are stored already, and those that contradict a stored one; give files that are damaged.

    The store is only read where segments of one GPU overlap in time (a log that grew, say).
    """
    damaged: dict[str, BadInput] = {}
    places = con.execute(load_query("ingest/overlapping_stored"), span_of(con, "profile"))
    for (place,) in places.fetchall():
        staged = files[place]
        try:
            con.execute(_COUNT_STORED.format(relation=relation_of(staged)), {"place": place})
        except duckdb.Error:
            fault = find_damage(staged)
            if fault is None:
                raise
            damaged[staged.segment_id] = fault
    return damaged


_SAME = " AND ".join(f"r.{name} IS NOT DISTINCT FROM s.{name}" for name in VALUES)
_COUNT_STORED = f"""
    UPDATE profile
    SET duplicates = c.same, conflicts = profile.conflicts + c.different
    FROM (
        SELECT s.gpu_uuid, count_if({_SAME}) AS same, count_if(NOT ({_SAME})) AS different
        FROM {{relation}} AS s
        JOIN gpu AS g ON g.gpu_uuid = s.gpu_uuid
        JOIN gpu_reading AS r ON r.gpu_key = g.gpu_key AND r.ts = s.ts
        GROUP BY s.gpu_uuid
    ) AS c
    WHERE c.gpu_uuid = profile.gpu_uuid AND profile.place = $place
"""
