"""What can be found wrong in a second is said before hours of work, and not after them."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import polars as pl

from flows.accounting.fleet import find_site_settings
from flows.accounting.inputs import list_inputs
from flows.accounting.intensity import GridView, check_zone
from flows.factors import Factor
from flows.settings import Settings
from flows.warehouse.frames import load_query
from transforms.constants import SLOT_US


def check_readiness(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> None:
    """Check that figures can be computed at all from what is configured and loaded.

    Args:
        con: The warehouse.
        settings: The project.
        factors: The factors in force.

    Raises:
        SettingsError: a host belongs to no site, or a site is not described, or twice, for the time of its readings.
        BadInput: a zone has neither grid data nor anything in its place; deliveries of a contract cannot be used.
    """
    inputs = list_inputs(con, settings, factors)
    if not inputs["host"]:
        return
    times = {"valid_from": pl.Datetime("us", "UTC"), "valid_to": pl.Datetime("us", "UTC")}
    sites = pl.DataFrame(
        [{name: row[name] for name in ("site", "zone", *times)} for row in inputs["site"]],
        schema={"site": pl.String, "zone": pl.String, **times},
    )
    hosts = pl.DataFrame(inputs["host"], schema={"host": pl.String, "site": pl.String})
    spans = con.execute(load_query("accounting/known_spans")).pl()
    # Both ends of a span have a reading, so both need settings; what lies between may hold none.
    ends = (
        pl.concat([spans.select("host", ts=name) for name in ("first_ts", "last_ts")])
        .drop_nulls()
        .select("host", slot=pl.col("ts").dt.epoch("us") // SLOT_US)
        .unique()
        .join(hosts, on="host", validate="m:1")
    )
    settled = find_site_settings(sites, ends)
    view = GridView(con, settings, factors)
    used = settled.group_by("zone").agg(first=pl.col("slot").min(), last=pl.col("slot").max())
    for zone, first, last in used.sort("zone").iter_rows():
        check_zone(view, zone, first, last)
