"""What changed since the last computation, so that only this is computed again.

Figures rest on readings, allocations, the description of each device, grid data, settings and factors. Of
the first three it is known what the candidate figures were made from (tables computed_*); changed grid data shows
where it gives other signals; after changed settings, factors or code everything is computed again.
"""

from __future__ import annotations

from datetime import datetime

import duckdb
import polars as pl

from flows.accounting.energy import Fleet
from flows.accounting.stretches import around
from flows.settings import GATE_TABLES, Settings
from flows.warehouse.digests import digest_code, digest_factors, digest_settings, digest_text
from flows.warehouse.frames import register
from transforms import METHOD_VERSION, changes
from transforms.constants import SLOT_US
from transforms.schema import in_role

CANDIDATE = in_role("candidate")
"""Tables that a computation writes."""
FRESH = "segment_key NOT IN (SELECT segment_key FROM computed_segment)"
"""SQL: rows of files that no computation has seen."""
_MADE_FROM = in_role("made_from")
_EDGES = "min(slot) AS first, max(slot) AS last"
_STRETCHES = (
    "(SELECT gpu_key, slot FROM segment_piece UNION ALL SELECT gpu_key, slot FROM gpu_piece)"
)
_REACHES = (
    f"min((epoch_us(ts) - span_us) // {SLOT_US}) AS first, "
    f"max((epoch_us(ts) - 1) // {SLOT_US}) AS last"
)


def facts(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """Digest of what every figure rests on: settings, factors, method and code."""
    recorded = {
        name: value for name, value in settings.to_record().items() if name not in GATE_TABLES
    }
    return digest_text(
        METHOD_VERSION, digest_code(), digest_factors(con), digest_settings(recorded)
    )


def start_over(con: duckdb.DuckDBPyConnection) -> None:
    """Empty the candidate (inside the caller's transaction)."""
    for table in (*CANDIDATE, *_MADE_FROM):
        con.execute(f"DELETE FROM {table}")


def changed(con: duckdb.DuckDBPyConnection, of: Fleet) -> pl.DataFrame:
    """The windows (`transforms.changes.WINDOW`) in which devices or who held them are others now."""
    devices = of.devices.select("gpu_key", "host", "host_group")
    spans = con.execute("SELECT * REPLACE (share_ppm::BIGINT AS share_ppm) FROM computed_span").pl()
    described = con.execute("FROM computed_device").pl()
    others = _described(of).join(described, on=["gpu_key", "facts"], how="anti")
    if described.is_empty():
        hosts = None
    else:
        hosts = devices.join(others, on="gpu_key", how="semi").select("host").unique()
    moved = changes.find_changed_spans(spans.lazy(), of.held.lazy())
    by_gpu = [changes.find_slot_ranges(moved).collect()]
    by_host = []
    if hosts is None or hosts.height:
        by_gpu.append(_history(con, of, devices, hosts))
        by_host.append(_host_history(con, hosts))
    if hosts is not None:
        by_gpu.append(_reached(con))
        by_host.append(
            con.execute(
                f"SELECT host, {_REACHES} FROM host_reading WHERE {FRESH} GROUP BY host, segment_key"
            ).pl()
        )
    columns = {"host_group": pl.Int32, "first": pl.Int64, "last": pl.Int64}
    windows = [
        one.join(devices, on=key).select(pl.col(name).cast(kind) for name, kind in columns.items())
        for key, found in (("gpu_key", by_gpu), ("host", by_host))
        for one in found
    ]
    return changes.merge_windows(pl.concat(windows).unique())


def _reached(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Slots that new readings change: their own, and those between them and the readings around."""
    ranges = con.execute(
        f"SELECT gpu_key, {_EDGES} FROM segment_piece WHERE {FRESH} GROUP BY gpu_key, segment_key"
    ).pl()
    if ranges.is_empty():
        return ranges
    return around(con, changes.merge_windows(ranges, "gpu_key")).select(
        "gpu_key",
        first=pl.col("before").fill_null(pl.col("first")),
        last=pl.col("after").fill_null(pl.col("last")),
    )


def _history(
    con: duckdb.DuckDBPyConnection, of: Fleet, devices: pl.DataFrame, hosts: pl.DataFrame | None
) -> pl.DataFrame:
    """All slots of all devices of some hosts (None: of all)."""
    read = con.execute(f"SELECT gpu_key, {_EDGES} FROM {_STRETCHES} GROUP BY gpu_key").pl()
    held = changes.find_slot_ranges(of.held.lazy()).collect()
    both = pl.concat([one.select("gpu_key", "first", "last") for one in (read, held)])
    if hosts is None:
        return both
    return both.join(devices.join(hosts, on="host", how="semi"), on="gpu_key", how="semi")


def _host_history(con: duckdb.DuckDBPyConnection, hosts: pl.DataFrame | None) -> pl.DataFrame:
    read = con.execute(f"SELECT host, {_REACHES} FROM host_reading GROUP BY host").pl()
    return read if hosts is None else read.join(hosts, on="host", how="semi")


def _described(of: Fleet) -> pl.DataFrame:
    """What each device is taken to be, as text."""
    whole = of.devices.join(of.made, on="gpu_key", how="left", suffix="_made")
    return whole.select(
        "gpu_key", facts=pl.struct(pl.exclude("gpu_key", "host_group")).struct.json_encode()
    )


def remember(
    con: duckdb.DuckDBPyConnection, of: Fleet, of_what: str, as_of: datetime | None
) -> None:
    """Write what the candidate was made from (inside the caller's transaction)."""
    con.execute(
        "INSERT INTO computed_segment SELECT segment_key FROM segment WHERE verdict = 'loaded' "
        "AND segment_key NOT IN (SELECT segment_key FROM computed_segment)"
    )
    columns = ["run_id", "gpu_key", "from_us", "to_us", "share_ppm"]
    for table, frame in (
        ("computed_span", of.held.select(columns)),
        ("computed_device", _described(of)),
        ("computed_facts", pl.DataFrame({"facts": [of_what], "as_of": [as_of]})),
    ):
        with register(con, now_is=frame):
            listing = ", ".join(frame.columns)
            con.execute(f"DELETE FROM {table}")
            con.execute(f"INSERT INTO {table} SELECT {listing} FROM now_is")
