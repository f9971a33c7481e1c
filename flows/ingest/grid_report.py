"""What was understood of grid data, for people to check: zones, spans, units, means, and what is missing."""

from __future__ import annotations

import duckdb
import polars as pl

from flows.ingest.grid_days import Span, find_stored_incomplete
from flows.rows import count_of
from flows.settings import Settings
from flows.sources.grid.series import GridData
from flows.times import describe_span

_SERIES = 8
"""Series of a file that are described one by one."""
_FUELS = 6


def describe_grid_data(data: GridData) -> list[str]:
    """What a file holds, a sentence for each series."""
    keys = ["zone"] if data.mix is not None else ["zone", "signal"]
    series = data.rows.partition_by(keys, maintain_order=True)
    said = [
        _describe_mix(part, data.unit)
        if data.mix is not None
        else _describe_intensities(part, data.unit)
        for part in series[:_SERIES]
    ]
    if len(series) > _SERIES:
        said.append(f"and {len(series) - _SERIES:,} more series")
    return said


def _describe_intervals(part: pl.DataFrame) -> str:
    """Span, number and length of intervals: `... to ... UTC, 96 intervals of 15 minutes`."""
    intervals = part.select("valid_from", "valid_to").unique()
    minutes = (
        intervals.select(
            minutes=(pl.col("valid_to") - pl.col("valid_from")).dt.total_seconds() / 60
        )["minutes"]
        .unique()
        .sort()
    )
    span = describe_span(part["valid_from"].min(), part["valid_to"].max())  # type: ignore[arg-type]
    lengths = " and ".join(f"{length:g}" for length in minutes.head(4))
    return f"{span}, {count_of(intervals.height, 'interval')} of {lengths} minutes"


def _describe_intensities(part: pl.DataFrame, unit: str) -> str:
    mean, low, high = part.select(
        mean=pl.col("intensity_g_per_kwh").mean(),
        low=pl.col("intensity_g_per_kwh").min(),
        high=pl.col("intensity_g_per_kwh").max(),
    ).row(0)
    estimated = int(part["is_estimated"].sum())
    return (
        f"zone {part['zone'][0]}, {part['signal'][0]}, read in {unit}: {_describe_intervals(part)}"
        f"{f', {estimated:,} of them estimated' if estimated else ''}; "
        f"mean {mean:.4g} g/kWh, from {low:.4g} to {high:.4g}"
    )


def _describe_mix(part: pl.DataFrame, unit: str) -> str:
    positive = pl.col("generation_kw").clip(lower_bound=0)
    shares = (
        part.group_by("fuel")
        .agg(
            energy=(positive * (pl.col("valid_to") - pl.col("valid_from")).dt.total_seconds()).sum()
        )
        .with_columns(share=pl.col("energy") / pl.col("energy").sum())
        .sort("share", "fuel", descending=[True, False])
    )
    fuels = ", ".join(
        f"{row['fuel']} {row['share']:.1%}"
        for row in shares.head(_FUELS).iter_rows(named=True)
        if row["share"] is not None
    )
    more = f" and {shares.height - _FUELS} more" if shares.height > _FUELS else ""
    return (
        f"zone {part['zone'][0]}, generation by fuel, read in {unit}: {_describe_intervals(part)}; "
        f"{fuels}{more}"
    )


def warn_of_incomplete(
    con: duckdb.DuckDBPyConnection, settings: Settings, data: GridData
) -> list[str]:
    """Say which intervals of a mix that was just stored lack fuels, and therefore count as gaps."""
    if data.mix is None:
        return []
    said = []
    for part in data.mix.partition_by("zone", maintain_order=True)[:_SERIES]:
        zone = part["zone"][0]
        intervals = part.select("valid_from", "valid_to").unique()
        span = Span(intervals["valid_from"].min(), intervals["valid_to"].max())  # type: ignore[arg-type]
        stored = find_stored_incomplete(con, settings, zone, data.feed, span)
        found = stored.join(intervals, on=["valid_from", "valid_to"], how="semi")
        if found.height:
            [first] = found.select(pl.col("valid_from").min()).row(0)
            fuels = found["fuels"].explode().value_counts(sort=True)["fuels"].head(_FUELS)
            said.append(
                f"{found.height:,} of {intervals.height:,} intervals of the mix of {zone} lack fuels "
                f"that it normally has, and count as gaps: {', '.join(fuels)} "
                f"(first {first:%Y-%m-%d %H:%M} UTC)"
            )
        present = part["fuel"].unique()
        if present.len() == 1:
            said.append(
                f"the mix of {zone} holds {present[0]} alone: check that it is not a part of the "
                "generation there"
            )
    return said


def warn_of_zones(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    """Name the zones of sites that have no series, beside those that have one: DE is not DE-LU."""
    stored = con.execute(
        "SELECT DISTINCT zone FROM (SELECT zone FROM grid_intensity WHERE superseded_at IS NULL "
        "UNION SELECT zone FROM grid_mix WHERE superseded_at IS NULL) ORDER BY 1"
    ).fetchall()
    zones = [zone for (zone,) in stored]
    return [
        f"zone {site.zone!r} of site {site.name!r} has no series; zones that have one: "
        f"{', '.join(zones)}"
        for site in settings.site
        if site.zone and site.zone not in zones
    ]
