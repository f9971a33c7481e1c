"""Values of staged readings that stand for missing ones: taken for unknown, and counted.

A blank, a counter that stands still while its GPU draws, 0 W of a busy GPU: as numbers they would
make energy or hide it. Where power or counter is left, it counts; where neither is, the time is a gap.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import polars as pl

from flows.ingest.gpu_profile import leave_out, relation_of
from flows.sources.gpu.staged import Staged
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import load_query, quote_literal
from wattledger.meters.dcgm import BLANKS

_LARGEST_POWER_MW = 2_147_483_632
"""DCGM's blank of 32 bits: no power is larger, whatever is wrong with its unit."""
_LARGEST_COUNTER_MJ = 140_737_488_355_328
"""DCGM's blank of a float, as millijoules: 700 W for six years."""
_STILL_US = 1_000_000
"""Counters move several times a second (docs/method.md, "What a reading means")."""


def set_nameless_aside(staged: Staged, folder: Path) -> bool:
    """Set aside the readings of a segment without a GPU, a host or a time, if they are few.

    Args:
        staged: The file; its path is then a copy without them.
        folder: Where to write it.

    Returns:
        Whether there were any.

    Raises:
        BadInput: there are too many.
    """
    with closing(connect_in_memory()) as con:
        for name in ("gpu_uuid", "host", "ts"):
            query = f"SELECT row_no FROM {relation_of(staged)} WHERE {name} IS NULL LIMIT {_MOST_NAMELESS}"
            for (row_no,) in con.execute(query).fetchall():
                staged.faults.add(
                    row_no,
                    f"column {name!r} has no value",
                    name,
                    remedy="Every reading needs gpu_uuid, host and ts",
                )
        if not staged.faults.count:
            return False
        staged.faults.check(staged.readings)
        leave_out(con, staged, staged.faults.rows["row_no"].to_list(), folder)
    return True


_MOST_NAMELESS = 10_000
"""Rows that are looked for; a file with more is of millions, or is refused."""


def needs_cleaning(profile: pl.DataFrame) -> bool:
    """Whether the facts of a file leave it open that some value stands for a missing one.

    Args:
        profile: As `gpu_profile.read_profiles` gives it.
    """
    doubtful = (
        (pl.col("min_power_mw") <= 0)
        | (pl.col("max_power_mw") >= _LARGEST_POWER_MW)
        | (pl.col("still_us") >= _STILL_US)
        | (pl.col("max_energy_mj") >= _LARGEST_COUNTER_MJ)
        | (pl.col("negative_energy") > 0)
        | (pl.col("counter_resets") > 0)
    )
    return bool(profile.select(doubtful.any()).item())


def clean_values(staged: Staged, folder: Path) -> bool:
    """Write a staged file again with null in place of values that stand for missing ones.

    Args:
        staged: The file; its path is then the new one, and its `blanks` count the values by GPU.
        folder: Where to write it.

    Returns:
        Whether there were any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{staged.segment_id}-known.parquet"
    blanks = {
        # DCGM's blanks of watts come as milliwatts.
        "blank_powers": [round(x) for v in BLANKS for x in (v, v * 1000) if abs(x) < 2**62],
        "blank_counters": [round(v) for v in BLANKS if abs(v) < 2**62],
    }
    with closing(connect_in_memory()) as con:
        con.execute(f"CREATE TEMP VIEW staged AS FROM {relation_of(staged)}")
        con.execute(f"CREATE TEMP TABLE known AS {load_query('ingest/known_values')}", blanks)
        counts = con.execute(
            "SELECT gpu_uuid, sum(blanks)::BIGINT FROM known GROUP BY ALL HAVING sum(blanks) > 0"
        ).fetchall()
        if not counts:
            return False
        con.execute(
            "COPY (SELECT * EXCLUDE (blanks) FROM known ORDER BY gpu_uuid, ts, row_no) "
            f"TO {quote_literal(str(target))} (FORMAT parquet)"
        )
    if not staged.own:
        staged.path.unlink()
    staged.path, staged.own = target, False
    for uuid, count in counts:
        staged.blanks[uuid] = staged.blanks.get(uuid, 0) + count
    return True
