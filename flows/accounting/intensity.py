"""What the grid was like: one intensity per zone and slot, from the best rung that covers it.

Queries the warehouse and calls `transforms.grid`. What is asked "as of" a time sees the grid data
that was known then, so that a published figure can be computed again as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.factors import WORLD, Factor, by_fuel, country_of, scalar
from flows.settings import Quantity, Settings, Zone
from transforms import grid
from transforms.constants import BOUNDS, FILE_FEED, QUANTITIES, SERIES_TIERS, SLOT_US, TIERS, WATER

MIX_FACTORS = {
    "average_lifecycle": "lifecycle_g_per_kwh",
    "average_direct": "direct_g_per_kwh",
    "ewif": "ewif_l_per_kwh",
    "withdrawal": "withdrawal_l_per_kwh",
}
"""Signal -> the factor per fuel that turns a generation mix into it."""

COUNTRY_FACTORS = {
    "average_lifecycle": "country_lifecycle_g_per_kwh",
    "average_direct": "country_direct_g_per_kwh",
    "ewif": "country_ewif_l_per_kwh",
    "withdrawal": "country_withdrawal_l_per_kwh",
    "residual_mix": "residual_mix_g_per_kwh",
}
"""Signal -> its yearly factor per country."""

_HISTORY = 366 * 86_400_000_000 // SLOT_US
"""Slots before and after those asked for in which a typical profile looks."""

_TIMES = pl.Datetime("us", "UTC")
_PIECES: dict[str, Any] = {
    "zone": pl.String,
    "valid_from": _TIMES,
    "valid_to": _TIMES,
    "rank": pl.Int64,
    "rung": pl.String,
    "feed": pl.String,
    "source": pl.String,
    "is_estimated": pl.Boolean,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


@dataclass(frozen=True)
class Known:
    """Where grid data comes from, and what was known of it at which time (None: now)."""

    con: duckdb.DuckDBPyConnection
    settings: Settings
    factors: Sequence[Factor]
    as_of: datetime | None = None
    _read: dict[tuple[str, str, tuple[int, int]], pl.DataFrame] = field(default_factory=dict)

    def rows(self, table: str, zone: str, span: tuple[int, int]) -> pl.DataFrame:
        """Rows of a zone and a span of slots in grid_intensity or grid_mix, and whether they are `stale`.

        Read once, as several quantities rest on the same rows.
        """
        key = (table, zone, span)
        if key not in self._read:
            values = {
                "zone": zone,
                "first": span[0] * SLOT_US,
                "last": span[1] * SLOT_US,
                "as_of": self.as_of or _FAR,
            }
            rows = f"FROM {table} WHERE {_IN_FORCE}"
            self._read[key] = self.con.execute(_STALE.format(rows=rows), values).pl()
        return self._read[key]

    def signal(self, zone: str, quantity: str) -> str:
        """The signal that is a quantity in a zone."""
        return signal_for(self.settings, zone, quantity)


def slot_signals(known: Known, slots: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every quantity for zones and slots (zone, slot), and what each value rests on.

    Gives the columns of slot_signal and of slot_source, with slot numbers for slot_start.

    Raises:
        BadInput: a zone has no grid data, and no rung of the ladder stands in for it.
    """
    wide = slots.select("zone", "slot").sort("zone", "slot")
    sources = []
    for quantity in QUANTITIES:
        signal, source = slot_values(known, slots, quantity)
        unit = "l_per_kwh" if quantity in WATER else "g_per_kwh"
        names = dict(zip(grid.VALUES, _columns(quantity, unit), strict=True))
        shares = {
            "intensity": {name: name for name in ("series_ppm", "estimated_ppm", "fallback_ppm")},
            "ewif": {"series_ppm": "ewif_series_ppm"},
        }.get(quantity, {})
        renamed = signal.select("zone", "slot", *names, *shares).rename(names | shares)
        wide = wide.join(renamed, on=["zone", "slot"], how="left", maintain_order="left")
        sources.append(source.with_columns(quantity=pl.lit(quantity)))
    _check_zones(known, wide, sources[0])
    return wide, pl.concat(sources)


def _columns(quantity: str, unit: str) -> list[str]:
    return [f"{quantity}{bound}_{unit}" for bound in BOUNDS]


def slot_values(
    known: Known, slots: pl.DataFrame, quantity: str, rungs: Sequence[str] = TIERS
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One quantity for zones and slots from the given rungs: `slot_signal` and `slot_sources`."""
    # Few zones have generation by fuel, so water takes what there is, and says so.
    ladder = TIERS if quantity in WATER else known.settings.grid.ladder
    allowed = [rung for rung in ladder if rung in rungs]
    found = [pl.DataFrame(schema=_PIECES)]
    for (zone,), asked in slots.sort("zone", "slot").partition_by("zone", as_dict=True).items():
        found.append(_zone_pieces(known, str(zone), asked, quantity, allowed))
    pieces = pl.concat(found)
    parts = grid.cut_at_slots(grid.select_best(pieces.lazy()), slots.lazy()).collect().lazy()
    return (
        grid.compute_slot_signal(parts, slots.lazy()).collect(),
        grid.sum_slot_sources(parts).collect(),
    )


def _zone_pieces(
    known: Known, zone: str, slots: pl.DataFrame, quantity: str, rungs: Sequence[str]
) -> pl.DataFrame:
    """Intervals of a zone from every rung, ranked."""
    first, last = int(slots["slot"].min()), int(slots["slot"].max()) + 1  # type: ignore[arg-type]
    series = _stored(known, zone, (first, last), quantity).filter(pl.col("rung").is_in(rungs))
    found = [series]
    if "profile" in rungs and quantity in ("intensity", *WATER):
        covered = grid.cut_at_slots(grid.select_best(series.lazy()), slots.lazy())
        signal = grid.compute_slot_signal(covered, slots.lazy()).collect()
        open_slots = signal.filter(pl.col("value").is_null())
        if open_slots.height:
            found.append(_profile(known, zone, open_slots, quantity))
    span = pl.DataFrame(
        {"valid_from": [first * SLOT_US], "valid_to": [last * SLOT_US]}
    ).with_columns(pl.from_epoch(pl.all(), "us").dt.replace_time_zone("UTC"))
    found += [
        span.with_columns(
            pl.max_horizontal("valid_from", pl.lit(one.valid_from, _TIMES)),
            pl.min_horizontal("valid_to", pl.lit(one.valid_to, _TIMES)),
        )
        .filter(pl.col("valid_from") < pl.col("valid_to"))
        .with_columns(
            zone=pl.lit(zone),
            rung=pl.lit(one.rung),
            feed=pl.lit(""),
            source=pl.lit(one.source),
            is_estimated=pl.lit(True),
            value=pl.lit(one.value, pl.Float64),
            low=pl.lit(one.low, pl.Float64),
            high=pl.lit(one.high, pl.Float64),
        )
        .with_columns(rank=_LOWER + TIERS.index(one.rung))
        .select(pl.col(name).cast(kind) for name, kind in _PIECES.items())
        for one in stand_ins(known.settings, known.factors, zone, quantity)
        if one.rung in rungs
    ]
    return pl.concat(found)


_LOWER = 1_000_000
"""Ranks of the rungs below the series; those of series count feeds."""


def _profile(known: Known, zone: str, open_slots: pl.DataFrame, quantity: str) -> pl.DataFrame:
    first, last = int(open_slots["slot"].min()), int(open_slots["slot"].max())  # type: ignore[arg-type]
    history = _stored(known, zone, (first - _HISTORY, last + _HISTORY), quantity)
    hours = (
        open_slots.lazy()
        .select("zone", valid_from=pl.from_epoch(pl.col("slot") * SLOT_US, "us"))
        .with_columns(pl.col("valid_from").dt.truncate("1h").dt.replace_time_zone("UTC"))
        .unique()
    )
    usual = grid.compute_typical_profile(grid.select_best(history.lazy()), hours).collect()
    feeds = ", ".join(history["feed"].unique().sort())
    return usual.with_columns(
        rank=pl.lit(_LOWER + TIERS.index("profile"), pl.Int64),
        rung=pl.lit("profile"),
        feed=pl.lit(feeds),
        source=pl.lit("mean of this hour of the day in the stored series"),
        is_estimated=pl.lit(True),
    ).select(list(_PIECES))


@dataclass(frozen=True)
class StandIn:
    """What stands in for a series on one rung of the ladder, in g/kWh or L/kWh."""

    rung: str
    value: float
    low: float
    high: float
    source: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None


def stand_ins(
    settings: Settings, factors: Sequence[Factor], zone: str, quantity: str
) -> list[StandIn]:
    """What stands in for a series of a quantity in a zone, best first."""
    found: list[StandIn] = []
    of_zone = settings.zones.get(zone, Zone())
    given: Quantity | None = {
        "intensity": of_zone.fallback_intensity_g_per_kwh,
        "ewif": of_zone.ewif_l_per_kwh,
        "withdrawal": of_zone.withdrawal_l_per_kwh,
        "residual": of_zone.residual_g_per_kwh,
    }.get(quantity)
    if given is not None:
        said = given.source or "wattledger.toml"
        found.append(StandIn("configured", given.value, given.low, given.high, said))
    name = COUNTRY_FACTORS.get(signal_for(settings, zone, quantity), "")
    places = {zone, country_of(settings, zone)} - {WORLD}
    for rung, scopes in (("country_year", places), ("world", {WORLD})):
        found += [
            StandIn(
                rung, f.value, f.low, f.high, f"{f.source} ({f.scope})", f.valid_from, f.valid_to
            )
            for f in factors
            if f.factor == name and f.scope in scopes
        ]
    return found


def signal_for(settings: Settings, zone: str, quantity: str) -> str:
    """The signal that is a quantity in a zone."""
    if quantity == "intensity":
        return settings.zones.get(zone, Zone()).signal
    return {"marginal": "marginal", "residual": "residual_mix"}.get(quantity, quantity)


_STALE = """
    WITH attempt AS (
        SELECT feed, outcome, least(last_attempt_at, $as_of) AS tried, unnest(generate_series(
            date_trunc('day', first_ts), last_ts - INTERVAL 1 MICROSECOND, INTERVAL 1 DAY)) AS day
        FROM grid_fetch WHERE zone = $zone AND first_attempt_at <= $as_of
    ), state AS (
        SELECT feed, day, max(tried) FILTER (outcome = 'failed') AS failed,
            max(tried) FILTER (outcome <> 'failed') AS fetched
        FROM attempt GROUP BY ALL
    )
    SELECT g.*, coalesce(s.failed > greatest(s.fetched, g.fetched_at), false) AS stale
    FROM ({rows}) AS g
    LEFT JOIN state AS s ON s.feed = g.feed AND s.day = date_trunc('day', g.valid_from)
"""
"""Rows of a day that the feed could not be asked for again since they were fetched are stale."""

_IN_FORCE = (
    "zone = $zone AND valid_to > make_timestamptz($first) AND valid_from < make_timestamptz($last) "
    "AND fetched_at <= $as_of AND (superseded_at IS NULL OR superseded_at > $as_of)"
)
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


def _stored(known: Known, zone: str, span: tuple[int, int], quantity: str) -> pl.DataFrame:
    """Series of a zone, and what its generation mixes give, with rungs and ranks by feed."""
    signal = known.signal(zone, quantity)
    found = []
    if quantity not in WATER:
        series = known.rows("grid_intensity", zone, span).filter(pl.col("signal") == signal)
        tolerance = scalar(known.factors, "grid_series_tolerance", "default")
        value = pl.col("intensity_g_per_kwh")
        found.append(
            series.with_columns(
                value=value,
                low=pl.col("intensity_low_g_per_kwh").fill_null(value * (1 - tolerance)),
                high=pl.col("intensity_high_g_per_kwh").fill_null(value * (1 + tolerance)),
                is_mix=pl.lit(0),
            )
        )
    if signal in MIX_FACTORS:
        mix = known.rows("grid_mix", zone, span)
        fuels = by_fuel(known.factors, MIX_FACTORS[signal])
        keys = ("zone", "valid_from", "valid_to", "feed")
        stale = mix.group_by(*keys).agg(pl.col("stale").any())
        weighed = grid.weigh_mix(mix.lazy(), fuels, keys).collect()
        found.append(
            weighed.join(stale, on=list(keys)).with_columns(
                pl.col("source") + f" x {MIX_FACTORS[signal]}", is_mix=pl.lit(1)
            )
        )
    order = feeds(known.settings, zone)
    names = [*_PIECES.keys() - {"rank", "rung"}, "stale", "is_mix"]
    stored = pl.concat([one.select(names) for one in found])
    others = sorted(set(stored["feed"].unique()) - set(order))
    rank = {feed: place for place, feed in enumerate([*order, *others])}
    return stored.with_columns(
        rank=pl.col("feed").replace_strict(rank, return_dtype=pl.Int64) * 2 + pl.col("is_mix"),
        rung=pl.when("stale").then(pl.lit(SERIES_TIERS[1])).otherwise(pl.lit(SERIES_TIERS[0])),
    ).select(pl.col(name).cast(kind) for name, kind in _PIECES.items())


def feeds(settings: Settings, zone: str) -> list[str]:
    """The feeds of a zone in the order in which they count: files that somebody put there, then
    providers as they are listed."""
    return [FILE_FEED, *(one.name for one in settings.input.grid_api if one.zone == zone)]


def _check_zones(known: Known, wide: pl.DataFrame, intensity: pl.DataFrame) -> None:
    """Refuse zones about which nothing is known: most often a slip of the pen."""
    local = set(intensity.filter(pl.col("rung") != "world")["zone"])
    for zone in sorted(set(wide["zone"]) - local):
        if country_of(known.settings, zone):
            continue
        stored = known.con.execute(
            "SELECT DISTINCT zone FROM (SELECT zone FROM grid_intensity UNION "
            "SELECT zone FROM grid_mix) ORDER BY 1"
        ).fetchall()
        names = [row[0] for row in stored]
        what = (
            "has grid data, but none for the time of the readings"
            if zone in names
            else "has no grid data"
        )
        raise BadInput(
            f"zone {zone!r} {what}",
            where="grid",
            remedy=f"Zones with data: {', '.join(names) or 'none'}. Load a series with "
            f"`wattledger ingest grid`, or name zones.{zone}.country in wattledger.toml to use its "
            "yearly mix",
        )
