"""What staged files of readings say: each reading is looked at once, and each GPU of a file becomes a row of facts.

Files are small (ten minutes of one host) and many, so small ones are looked at together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from flows.errors import BadInput
from flows.factors import find_for_model, is_of_board, read_factors
from flows.files import name_for_people
from flows.rows import count_of
from flows.settings import Settings
from flows.sources.gpu.staged import STAGED, Staged
from flows.times import describe_span
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import escape_glob, quote_literal
from transforms.profile import PROFILED, merge_profiles, profile_rows

_SMALL_FILE, _GROUP = 1 << 16, 1 << 20
"""Readings of a file up to which it is looked at with others, and how many these may have together."""
_AT_A_TIME = 1 << 22
"""Readings of a large file that are looked at together."""


class PowerBounds:
    """The largest and the smallest believable power of GPU models, in milliwatts."""

    def __init__(self, settings: Settings) -> None:
        self._factors = read_factors(settings)
        self._tolerance = settings.readings.limit_tolerance
        self._most_mw = round(settings.readings.max_power_w * 1000)

    def add(self, profiles: pl.DataFrame) -> pl.DataFrame:
        """Add the bounds of each GPU: from the limit that its own readings tell, else by its model.

        Args:
            profiles: Facts with `model` and `board_limit_mw`, the largest power limit that the file tells.

        Returns:
            The same with `limit_mw`; `floor_mw`, half of what the model draws idle; and `limit_from`: what the limit
            is of (`readings`, `board`, `class` of boards, or `default`).
        """
        by_model = pl.DataFrame(
            [self._look_up(model) for model in profiles["model"].unique().to_list()],
            schema={
                "model": pl.String,
                "limit_mw": pl.Int64,
                "floor_mw": pl.Int64,
                "limit_from": pl.String,
            },
            orient="row",
        )
        told = (pl.col("board_limit_mw") * self._tolerance).cast(pl.Int64)
        is_told = pl.col("board_limit_mw").is_not_null()
        return profiles.join(by_model, on="model", nulls_equal=True, validate="m:1").with_columns(
            limit_mw=pl.when(is_told)
            .then(pl.min_horizontal(told, pl.lit(self._most_mw)))
            .otherwise("limit_mw"),
            limit_from=pl.when(is_told).then(pl.lit("readings")).otherwise("limit_from"),
        )

    def drop_unbelievable(self, profiles: pl.DataFrame) -> pl.DataFrame:
        """Take power limits for unknown that no board has."""
        limit = pl.col("board_limit_mw")
        return profiles.with_columns(
            board_limit_mw=pl.when(limit.is_between(_LEAST_LIMIT_MW, self._most_mw)).then(limit)
        )

    def _look_up(self, model: str | None) -> tuple[str | None, int, int, str]:
        limit = find_for_model(self._factors, "gpu_limit_w", model)
        idle = find_for_model(self._factors, "gpu_idle_w", model)
        floor_mw = int(idle.low * 500)
        if limit.scope == "default":
            return model, self._most_mw, floor_mw, "default"
        limit_mw = min(int(limit.high * self._tolerance * 1000), self._most_mw)
        return model, limit_mw, floor_mw, "board" if is_of_board(limit) else "class"


_LEAST_LIMIT_MW = 5_000
"""No board can be held below 5 W: a smaller number is no limit."""


def group_files(files: Sequence[Staged]) -> Iterator[list[Staged]]:
    """Group files for `read_profiles`: large ones alone, small ones many at a time, which is ten times as fast."""
    group: list[Staged] = []
    readings = 0
    for staged in files:
        if staged.readings > _SMALL_FILE:
            yield [staged]
            continue
        group.append(staged)
        readings += staged.readings
        if readings > _GROUP:
            yield group
            group, readings = [], 0
    if group:
        yield group


def read_profiles(files: Sequence[Staged]) -> list[pl.DataFrame | BadInput]:
    """Look at every reading of some staged files.

    Args:
        files: Staged files, few enough to be held in memory together unless there is only one.

    Returns:
        For each file its profile (`transforms.profile.merge_profiles`, one row per GPU), or what is wrong with it.
    """
    try:
        profiles = _read_together(files) if len(files) > 1 else [_read_alone(files[0])]
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        if len(files) > 1:
            # One is damaged, or they have columns of other types.
            return [profile for staged in files for profile in read_profiles([staged])]
        return [_describe_damage(files[0], error)]
    return [
        _refuse_missing(staged, profile) for staged, profile in zip(files, profiles, strict=True)
    ]


def _refuse_missing(staged: Staged, profile: pl.DataFrame) -> pl.DataFrame | BadInput:
    """The profile, unless a column that every reading needs has gaps."""
    for name, missing in (
        ("gpu_uuid", pl.col("gpu_uuid").is_null()),
        ("host", pl.col("host").is_null()),
        ("ts", pl.col("no_time") > 0),
    ):
        if profile.select(missing.any()).item():
            return BadInput(
                f"column {name!r} has no value in some rows",
                where=str(staged.source),
                remedy="Every reading needs gpu_uuid, host and ts",
            )
    return profile


def _read_together(files: Sequence[Staged]) -> list[pl.DataFrame]:
    numbers = {str(staged.path): number for number, staged in enumerate(files)}
    readings = (
        pl.scan_parquet(
            list(numbers),
            schema={name: STAGED[name] for name in PROFILED},
            glob=False,
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths="path",
        )
        .with_columns(segment=pl.col("path").replace_strict(numbers, return_dtype=pl.Int32))
        .drop("path")
        .collect()
    )
    by_file = merge_profiles([profile_rows(readings)]).partition_by(
        "segment", include_key=False, as_dict=True
    )
    empty = merge_profiles([profile_rows(readings.drop("segment").clear())])
    return [by_file.get((number,), empty) for number in range(len(files))]


def _read_alone(staged: Staged) -> pl.DataFrame:
    texts = [n for n in PROFILED if STAGED[n] == pl.String and n in staged.columns]
    file = pq.ParquetFile(staged.path, read_dictionary=texts)
    columns = [name for name in PROFILED if name in file.schema_arrow.names]
    parts: list[pl.DataFrame] = []
    last_row: pa.Table | None = None
    for row_groups in _group_row_groups(file.metadata):
        # Reading batch by batch takes seven times as long.
        table = file.read_row_groups(row_groups, columns=columns)
        readings = table if last_row is None else pa.concat_tables([last_row, table])
        parts.append(_profile_table(readings.unify_dictionaries(), goes_on=last_row is not None))
        last_row = table.take([table.num_rows - 1])
    return merge_profiles(
        parts or [profile_rows(pl.DataFrame(schema={n: STAGED[n] for n in PROFILED}))]
    )


def _profile_table(table: pa.Table, *, goes_on: bool) -> pl.DataFrame:
    """Facts about the readings of a table, whose texts stay the numbers that they are in the file until each GPU is a row."""
    columns: list[pl.Series] = []
    texts: dict[str, pl.Series] = {}
    for name in PROFILED:
        if name not in table.column_names:
            columns.append(pl.Series(name, [None], STAGED[name]).new_from_index(0, table.num_rows))
            continue
        column = table[name]
        if pa.types.is_dictionary(column.type):
            texts[name] = pl.Series(name, column.chunk(0).dictionary, STAGED[name])
            column = pa.chunked_array(chunk.indices for chunk in column.chunks)
        columns.append(pl.Series(name, column))
    readings = pl.DataFrame(columns).select(
        name if name in texts else pl.col(name).cast(STAGED[name]) for name in PROFILED
    )
    facts = profile_rows(readings, goes_on=goes_on)
    return facts.with_columns(
        values.gather(facts[name]).alias(name) for name, values in texts.items()
    )


def _group_row_groups(metadata: Any) -> Iterator[list[int]]:
    """Row groups of a Parquet file, as many at a time as have some millions of rows."""
    row_groups: list[int] = []
    rows = 0
    for number in range(metadata.num_row_groups):
        row_groups.append(number)
        rows += metadata.row_group(number).num_rows
        if rows >= _AT_A_TIME:
            yield row_groups
            row_groups, rows = [], 0
    if rows:
        yield row_groups


def describe_readings(profile: pl.DataFrame, blanks: Mapping[str, int]) -> list[str]:
    """What a file was understood to hold, a sentence for each of its hosts.

    Args:
        profile: As `read_profiles` gives it.
        blanks: GPU -> values that stood for missing ones.
    """
    counted = profile.with_columns(
        blank_values=pl.col("gpu_uuid").replace_strict(blanks, default=0, return_dtype=pl.Int64)
    )
    hosts = counted.group_by("host", maintain_order=True).agg(
        pl.len().alias("gpus"),
        pl.col("model").drop_nulls().unique().sort().alias("models"),
        pl.col("first_ts").min(),
        pl.col("last_ts").max(),
        pl.col("usual_step_ms").median(),
        pl.col("min_power_mw").min(),
        pl.col("max_power_mw").max(),
        pl.col("rows_read", "null_power", "null_energy", "power_sum_mw", "blank_values").sum(),
        pl.col("board_limit_mw").max(),
    )
    return [_describe_host(row) for row in hosts.iter_rows(named=True)]


def _describe_host(row: dict[str, Any]) -> str:
    models = ", ".join(row["models"]) or "model not said"
    sentence = (
        f"host {row['host']}: {count_of(row['gpus'], 'GPU')} ({models}), "
        f"{describe_span(row['first_ts'], row['last_ts'])}"
    )
    if row["usual_step_ms"] is not None:
        sentence += f", every {row['usual_step_ms'] / 1000:.3g} s"
    powered = row["rows_read"] - row["null_power"]
    if powered:
        low, mean, high = (
            value / 1000
            for value in (row["min_power_mw"], row["power_sum_mw"] / powered, row["max_power_mw"])
        )
        sentence += f"; {mean:.4g} W on average ({low:.4g} to {high:.4g} W)"
    if row["board_limit_mw"] is not None:
        sentence += f"; power limit {row['board_limit_mw'] / 1000:.4g} W, as the readings say"
    if row["null_power"]:
        sentence += f"; {row['null_power']:,} of {row['rows_read']:,} readings without a power"
    if row["null_energy"] < row["rows_read"]:
        with_counter = row["rows_read"] - row["null_energy"]
        sentence += f"; {with_counter:,} readings with an energy counter, which is used first"
    if row["blank_values"]:
        sentence += f"; {row['blank_values']:,} values stand for missing ones and are unknown"
    return sentence


def find_damage(staged: Staged) -> BadInput | None:
    """Find out what is wrong with a file in columns that `read_profiles` does not read, or with its being there."""
    if staged.has_changed:
        return BadInput(
            "it was changed, or taken away, while it was read",
            where=name_for_people(staged.source),
            remedy="Load it again; nothing but a collector writes into its folder",
        )
    with closing(connect_in_memory()) as con:
        try:
            con.execute(f"SELECT max(COLUMNS(*)) FROM {relation_of(staged)}")
        except duckdb.Error as error:
            return _describe_damage(staged, error)
    return None


def _describe_damage(staged: Staged, error: Exception) -> BadInput:
    return BadInput(
        f"damaged Parquet: {str(error).splitlines()[0]}",
        where=str(staged.source),
        remedy="Copy the file again",
    )


def leave_out(
    con: duckdb.DuckDBPyConnection, staged: Staged, row_numbers: Sequence[int], folder: Path
) -> None:
    """Write a staged file again without some rows; the source itself is left as it is."""
    target = folder / f"{staged.segment_id}-clean.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    con.execute(
        f"COPY (FROM {relation_of(staged)} WHERE row_no NOT IN (SELECT unnest($rows))) "
        f"TO {quote_literal(str(target))} (FORMAT parquet)",
        {"rows": list(row_numbers)},
    )
    if not staged.own:
        staged.path.unlink()
    staged.path, staged.own = target, False
    staged.readings -= len(row_numbers)


_SQL_TYPES = {"String": "VARCHAR", "Int16": "SMALLINT", "Int32": "INTEGER", "Int64": "BIGINT"}


def relation_of(staged: Staged) -> str:
    """The staged file as an SQL relation, in STAGED columns and file order."""
    path = quote_literal(escape_glob(staged.path))
    if not staged.own:
        return f"read_parquet({path})"
    present = set(pl.scan_parquet(staged.path, glob=False).collect_schema())
    columns = []
    for name, dtype in STAGED.items():
        kind = _SQL_TYPES.get(str(dtype), "TIMESTAMPTZ")
        if name == "row_no":
            columns.append("file_row_number + 1 AS row_no")
        elif name in present:
            columns.append(f"{name}::{kind} AS {name}")
        else:
            columns.append(f"NULL::{kind} AS {name}")
    return f"(SELECT {', '.join(columns)} FROM read_parquet({path}, file_row_number = true))"
