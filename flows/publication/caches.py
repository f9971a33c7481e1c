"""What is kept from one computation to the next: it is what was left there, and follows from the readings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import duckdb

from flows.accounting.fingerprints import find_changed_tables, has_fingerprints
from flows.accounting.stretches import find_wrong_stretches
from flows.errors import WarehouseError
from flows.publication.findings import Finding
from flows.publication.shapes import explain_damage
from flows.warehouse.bounds import bound_time
from flows.warehouse.frames import query_rows
from flows.warehouse.store import Store

_REBUILD = "`wattledger rebuild` computes it again from the readings"


def check_caches(store: Store, publication_id: str) -> Iterator[Finding]:
    """Check what computations keep: stretches of readings against the readings, sums against what they sum.

    Args:
        store: The warehouse.
        publication_id: Names the last publication in findings.
    """
    try:
        with closing(store.connect(read_only=True)) as con, bound_time(con):
            wrong = find_wrong_stretches(con)
            detail = (
                f"stretches of {len(wrong)} files do not follow from their readings: {_REBUILD}"
            )
            yield Finding(publication_id, "cache", "segment_piece", not wrong, detail)
            sums = _find_wrong_sums(con)
            detail = f"{sums} sums are not those of energy_slot and gpu_slot: {_REBUILD}"
            yield Finding(publication_id, "cache", "device_energy", not sums, detail)
            sums = _find_wrong_sites(con)
            detail = f"{sums} sums are not those of footprint_slot: {_REBUILD}"
            yield Finding(publication_id, "cache", "site_energy_slot", not sums, detail)
            if not has_fingerprints(con):
                detail = "nothing was recorded of it; the next computation begins with nothing"
                yield Finding(publication_id, "cache", "candidate", None, detail)
                return
            for table in find_changed_tables(con):
                detail = f"it is not what the last computation left: {_REBUILD}"
                yield Finding(publication_id, "cache", table, False, detail)
    except (WarehouseError, duckdb.Error) as error:
        yield explain_damage(error, publication_id, "cache", "candidate")


_SUMMED = (
    "counter_mj",
    "power_integral_mj",
    "gap_mj",
    "filled_mj",
    "filled_us",
    "held_us",
)


def _find_wrong_sums(con: duckdb.DuckDBPyConnection) -> int:
    """How many rows of device_energy are not the sums over their slots."""
    of_runs = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _SUMMED)
    metered = ", ".join(
        f"sum({name})::BIGINT AS {name}" if name in _METERED else f"0::BIGINT AS {name}"
        for name in _SUMMED
    )
    key = "kind, run_id, gpu_key, slots"
    sums = (
        f"SELECT kind, run_id, gpu_key, count(*) AS slots, {of_runs} FROM energy_slot GROUP BY ALL "
        "UNION ALL SELECT 'metered' AS kind, NULL AS run_id, gpu_key, count(*) AS slots, "
        f"{metered} FROM gpu_slot GROUP BY gpu_key"
    )
    kept = f"SELECT {key}, {', '.join(_SUMMED)} FROM device_energy"
    return _count_different(con, sums, kept)


_METERED = ("counter_mj", "power_integral_mj", "gap_mj")


_OF_SITES = ("energy_mj", "measured_mj", "gap_mj", "filled_mj", "held_us", "host_mj")


def _find_wrong_sites(con: duckdb.DuckDBPyConnection) -> int:
    """How many sums of site_energy_slot are not what the figures of their site and slot begin with."""
    key = "kind, run_id, site, slot_start"
    summed = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _OF_SITES)
    kept = f"SELECT {key}, {summed} FROM site_energy_slot GROUP BY ALL"
    figures = f"SELECT {key}, {', '.join(_OF_SITES)} FROM footprint_slot"
    return _count_different(con, kept, figures)


def _count_different(con: duckdb.DuckDBPyConnection, query: str, other: str) -> int:
    """How many rows only one of two queries gives."""
    [row] = query_rows(
        con,
        f"SELECT count(*) AS wrong FROM ((({query}) EXCEPT ALL ({other})) UNION ALL "
        f"(({other}) EXCEPT ALL ({query})))",
    )
    return int(row["wrong"])
