"""What changed since the last computation, so that only this is computed again.

Figures rest on readings, allocations, the description of each device, grid data, settings and factors. Of
the first three it is known what the candidate was made from (tables computed_*); changed grid data shows
where it gives other signals; after changed settings, factors or code everything is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import duckdb
import polars as pl

from flows.accounting.fleet import Fleet
from flows.accounting.stretches import find_neighbours
from flows.settings import GATE_TABLES, Settings
from flows.warehouse.digests import digest_code, digest_factors, digest_settings, digest_text
from flows.warehouse.frames import insert
from transforms import METHOD_VERSION, changes
from transforms.constants import SLOT_US
from transforms.schema import in_role

CANDIDATE = in_role("candidate")
"""Tables that a computation writes."""
NOT_COMPUTED = "segment_key NOT IN (SELECT segment_key FROM computed_segment)"
"""SQL: rows of files that no computation has seen."""
_MADE_FROM = in_role("made_from")


def digest_basis(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """Digest of what every figure rests on: settings, factors, method and code."""
    recorded = {
        name: value for name, value in settings.to_record().items() if name not in GATE_TABLES
    }
    return digest_text(
        METHOD_VERSION, digest_code(), digest_factors(con), digest_settings(recorded)
    )


def rests_on(con: duckdb.DuckDBPyConnection, basis: str) -> bool:
    """Whether there is a candidate, and it rests on settings, factors, method and code of this digest."""
    return con.execute("SELECT facts FROM computed_facts").fetchall() == [(basis,)]


def find_last_computation(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """When the candidate was computed; None where there is none."""
    times = con.execute(
        "SELECT computed_at FROM computation WHERE EXISTS (FROM computed_facts)"
    ).fetchall()
    return times[0][0] if times else None


def empty_candidate(con: duckdb.DuckDBPyConnection) -> None:
    """Empty the candidate, and what is known of its making (inside the caller's transaction)."""
    for table in (*CANDIDATE, *_MADE_FROM, "computed_table"):
        con.execute(f"DELETE FROM {table}")


def record_basis(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, basis: str, as_of: datetime | None
) -> None:
    """Record what the candidate was made from (inside the caller's transaction)."""
    con.execute(
        "INSERT INTO computed_segment BY NAME SELECT segment_key FROM segment WHERE verdict = 'loaded' "
        f"AND {NOT_COMPUTED}"
    )
    columns = ["run_id", "gpu_key", "from_us", "to_us", "share_ppm"]
    for table, frame in (
        ("computed_span", fleet.spans.select(columns)),
        ("computed_device", _describe_devices(fleet)),
        ("computed_facts", pl.DataFrame({"facts": [basis], "as_of": [as_of]})),
    ):
        con.execute(f"DELETE FROM {table}")
        insert(con, table, frame)


@dataclass(frozen=True)
class _Ranges:
    """Ranges of slots, first to last, of devices (gpu_key) and of hosts."""

    by_device: pl.DataFrame
    by_host: pl.DataFrame


_NO_RANGES = _Ranges(
    pl.DataFrame(schema={"gpu_key": pl.Int32, "first": pl.Int64, "last": pl.Int64}),
    pl.DataFrame(schema={"host": pl.String, "first": pl.Int64, "last": pl.Int64}),
)
_SLOTS = "min(slot) AS first, max(slot) AS last"
_HOST_SLOTS = (
    f"min((epoch_us(ts) - span_us) // {SLOT_US}) AS first, "
    f"max((epoch_us(ts) - 1) // {SLOT_US}) AS last"
)


def find_changed_windows(con: duckdb.DuckDBPyConnection, fleet: Fleet) -> pl.DataFrame:
    """Find the windows whose readings, devices or allocations changed.

    Args:
        con: The warehouse.
        fleet: The fleet as it is now.

    Returns:
        `transforms.changes.WINDOW` columns, merged.
    """
    devices = fleet.devices.select("gpu_key", "host", "host_group")
    described = con.execute("FROM computed_device").pl()
    changed = _describe_devices(fleet).join(described, on=["gpu_key", "facts"], how="anti")
    if described.is_empty():
        described_anew = _find_history(con, fleet)
        read_anew = _NO_RANGES
    else:
        hosts = devices.join(changed, on="gpu_key", how="semi").select("host").unique()
        described_anew = _find_history_of_hosts(con, fleet, hosts) if hosts.height else _NO_RANGES
        read_anew = _find_new_readings(con)
    ranges = (_find_moved_allocations(con, fleet), described_anew, read_anew)
    columns = {"host_group": pl.Int32, "first": pl.Int64, "last": pl.Int64}
    windows = [
        frame.join(devices, on=key).select(
            pl.col(name).cast(kind) for name, kind in columns.items()
        )
        for part in ranges
        for key, frame in (("gpu_key", part.by_device), ("host", part.by_host))
    ]
    return changes.merge_windows(pl.concat(windows).unique())


def _find_moved_allocations(con: duckdb.DuckDBPyConnection, fleet: Fleet) -> _Ranges:
    spans = con.execute("SELECT * REPLACE (share_ppm::BIGINT AS share_ppm) FROM computed_span").pl()
    moved = changes.find_changed_spans(spans.lazy(), fleet.spans.lazy())
    by_device = changes.find_slot_ranges(moved).collect()
    if by_device.height:
        by_device = _reach_neighbours(con, by_device)
    return _Ranges(by_device, _NO_RANGES.by_host)


def _reach_neighbours(con: duckdb.DuckDBPyConnection, ranges: pl.DataFrame) -> pl.DataFrame:
    """Ranges of slots of devices, up to the readings around them: what a gap holds depends on both its ends."""
    near = find_neighbours(con, changes.merge_windows(ranges, "gpu_key"))
    return near.select(
        "gpu_key",
        first=pl.col("before").fill_null(pl.col("first")),
        last=pl.col("after").fill_null(pl.col("last")),
    )


def _find_new_readings(con: duckdb.DuckDBPyConnection) -> _Ranges:
    """Slots that new readings change: their own, and those between them and the readings around."""
    by_device = con.execute(
        f"SELECT gpu_key, {_SLOTS} FROM segment_piece WHERE {NOT_COMPUTED} "
        "GROUP BY gpu_key, segment_key"
    ).pl()
    if by_device.height:
        by_device = _reach_neighbours(con, by_device)
    by_host = con.execute(
        f"SELECT host, {_HOST_SLOTS} FROM host_reading WHERE {NOT_COMPUTED} "
        "GROUP BY host, segment_key"
    ).pl()
    return _Ranges(by_device, by_host)


def _find_history(con: duckdb.DuckDBPyConnection, fleet: Fleet) -> _Ranges:
    """All slots in which devices and hosts have readings or are held."""
    read = con.execute(
        f"SELECT gpu_key, {_SLOTS} FROM (SELECT gpu_key, slot FROM segment_piece UNION ALL "
        "SELECT gpu_key, slot FROM gpu_piece) GROUP BY gpu_key"
    ).pl()
    held = changes.find_slot_ranges(fleet.spans.lazy()).collect()
    return _Ranges(
        pl.concat([part.select("gpu_key", "first", "last") for part in (read, held)]),
        con.execute(f"SELECT host, {_HOST_SLOTS} FROM host_reading GROUP BY host").pl(),
    )


def _find_history_of_hosts(
    con: duckdb.DuckDBPyConnection, fleet: Fleet, hosts: pl.DataFrame
) -> _Ranges:
    """The same of some hosts (host) and their devices."""
    history = _find_history(con, fleet)
    devices = fleet.devices.join(hosts, on="host", how="semi")
    return _Ranges(
        history.by_device.join(devices, on="gpu_key", how="semi"),
        history.by_host.join(hosts, on="host", how="semi"),
    )


def _describe_devices(fleet: Fleet) -> pl.DataFrame:
    """What each device is taken to be, as text."""
    whole = fleet.devices.join(
        fleet.embodied, on="gpu_key", how="left", suffix="_made", validate="1:1"
    )
    return whole.select(
        "gpu_key", facts=pl.struct(pl.exclude("gpu_key", "host_group")).struct.json_encode()
    )
