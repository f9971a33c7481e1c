"""What the grid was like: one intensity per zone and slot, from the best tier that covers it.

Queries the warehouse and calls `transforms.grid`. A view "as of" a time has the grid data that was
known then, so that a published figure can be computed again as it was. The tier of a value is in
the column `rung`, as the published tables have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl

from flows.errors import BadInput
from flows.factors import WORLD, Factor, find_country, find_value, tabulate_by_fuel
from flows.settings import Quantity, Settings, Zone
from flows.warehouse.frames import load_query
from transforms import completeness, grid
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

_DAY = 86_400_000_000 // SLOT_US
_HISTORY = 366 * _DAY
"""How many slots before and after those in question a typical profile rests on: a year."""

_TIMES = pl.Datetime("us", "UTC")
_INTERVALS: dict[str, Any] = {
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
class GridView:
    """The grid data of a warehouse, as it was known at a time (None: now)."""

    con: duckdb.DuckDBPyConnection
    settings: Settings
    factors: Sequence[Factor]
    as_of: datetime | None = None
    _read: dict[tuple[str, str, tuple[int, int]], pl.DataFrame] = field(default_factory=dict)
    _incomplete: dict[tuple[str, tuple[int, int]], pl.DataFrame] = field(default_factory=dict)

    def read_rows(self, table: str, zone: str, span: tuple[int, int]) -> pl.DataFrame:
        """Rows of a zone and a span of slots in grid_intensity or grid_mix, and whether they are `stale`.

        Read once, as several quantities rest on the same rows.
        """
        key = (table, zone, span)
        if key not in self._read:
            parameters = {
                "table": table,
                "zone": zone,
                "first": span[0] * SLOT_US,
                "last": span[1] * SLOT_US,
                "as_of": self.as_of or _FAR,
            }
            query = load_query("accounting/grid_rows_in_force")
            self._read[key] = self.con.execute(query, parameters).pl()
        return self._read[key]

    def find_incomplete(self, zone: str, span: tuple[int, int]) -> pl.DataFrame:
        """Intervals of generation mixes of a zone that lack fuels (`completeness.find_incomplete`).

        The days around the span are read too: they say what is usual.
        """
        if (zone, span) not in self._incomplete:
            rule = self.settings.grid
            around = rule.reference_days * _DAY
            mix = self.read_rows("grid_mix", zone, (span[0] - around, span[1] + around))
            self._incomplete[zone, span] = completeness.find_incomplete(mix.lazy(), rule)
        return self._incomplete[zone, span]

    def find_signal(self, zone: str, quantity: str) -> str:
        """The signal that is a quantity in a zone."""
        return find_signal(self.settings, zone, quantity)


def compute_slot_signals(view: GridView, slots: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Compute every quantity of the grid for zones and slots, and what each value rests on.

    Args:
        view: The grid data.
        slots: zone, slot.

    Returns:
        The columns of slot_signal and of slot_source, with slot for slot_start.

    Raises:
        BadInput: a zone has no grid data, and no tier of the ladder stands in for it.
    """
    wide = slots.select("zone", "slot").sort("zone", "slot")
    sources = []
    for quantity in QUANTITIES:
        signal, source = compute_slot_values(view, slots, quantity)
        unit = "l_per_kwh" if quantity in WATER else "g_per_kwh"
        names = dict(zip(grid.VALUES, _columns(quantity, unit), strict=True))
        shares = {
            "intensity": {name: name for name in ("series_ppm", "estimated_ppm", "fallback_ppm")},
            "ewif": {"series_ppm": "ewif_series_ppm"},
        }.get(quantity, {})
        renamed = signal.select("zone", "slot", *names, *shares).rename(names | shares)
        wide = wide.join(
            renamed, on=["zone", "slot"], how="left", maintain_order="left", validate="1:1"
        )
        sources.append(source.with_columns(quantity=pl.lit(quantity)))
    _check_zones(view, wide, sources[0])
    return wide, pl.concat(sources)


def _columns(quantity: str, unit: str) -> list[str]:
    return [f"{quantity}{bound}_{unit}" for bound in BOUNDS]


def compute_slot_values(
    view: GridView, slots: pl.DataFrame, quantity: str, tiers: Sequence[str] = TIERS
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Compute one quantity of the grid for zones and slots.

    Args:
        view: The grid data.
        slots: zone, slot.
        quantity: One of `transforms.constants.QUANTITIES`.
        tiers: Tiers that may be used, as far as the ladder of the settings has them.

    Returns:
        `transforms.grid.compute_slot_signal` and `transforms.grid.sum_slot_sources`.
    """
    # Few zones have generation by fuel, so water takes what there is, and says so.
    ladder = TIERS if quantity in WATER else view.settings.grid.ladder
    allowed = [tier for tier in ladder if tier in tiers]
    intervals = [pl.DataFrame(schema=_INTERVALS)]
    for (zone,), zone_slots in (
        slots.sort("zone", "slot").partition_by("zone", as_dict=True).items()
    ):
        intervals += _list_zone_intervals(view, str(zone), zone_slots, quantity, allowed)
    best = grid.select_best(pl.concat(intervals).lazy())
    parts = grid.cut_at_slots(best, slots.lazy()).collect().lazy()
    return (
        grid.compute_slot_signal(parts, slots.lazy()).collect(),
        grid.sum_slot_sources(parts).collect(),
    )


def _list_zone_intervals(
    view: GridView, zone: str, slots: pl.DataFrame, quantity: str, tiers: Sequence[str]
) -> list[pl.DataFrame]:
    """Intervals of a zone from every tier, ranked, in `_INTERVALS` columns."""
    first, last = int(slots["slot"].min()), int(slots["slot"].max()) + 1  # type: ignore[arg-type]
    series = _read_series(view, zone, (first, last), quantity).filter(pl.col("rung").is_in(tiers))
    intervals = [series]
    if "profile" in tiers and quantity in ("intensity", *WATER):
        covered = grid.cut_at_slots(grid.select_best(series.lazy()), slots.lazy())
        signal = grid.compute_slot_signal(covered, slots.lazy()).collect()
        open_slots = signal.filter(pl.col("value").is_null())
        if open_slots.height:
            intervals.append(_profile_zone(view, zone, open_slots, quantity))
    stand_ins = list_stand_ins(view.settings, view.factors, zone, quantity)
    intervals += [
        _spread_stand_in(stand_in, zone, first, last)
        for stand_in in stand_ins
        if stand_in.tier in tiers
    ]
    if view.find_signal(zone, quantity) in MIX_FACTORS:
        incomplete = view.find_incomplete(zone, (first, last))
        intervals += [_say_incomplete(lower, incomplete) for lower in intervals[1:]]
    return intervals


def _say_incomplete(lower: pl.DataFrame, incomplete: pl.DataFrame) -> pl.DataFrame:
    """Intervals of a lower tier, cut to those where a mix is incomplete, with a source that says so.

    They come just before the intervals that they are cut from.
    """
    if incomplete.is_empty():
        return lower.clear()
    # Of several mixes that are incomplete at once, one says so.
    cuts = grid.select_best(
        incomplete.lazy().with_columns(rank=pl.col("feed").rank("dense").cast(pl.Int64))
    ).select(
        "zone",
        cut_from="valid_from",
        cut_to="valid_to",
        note=pl.format(
            " (the mix of {} lacks {})", "feed", pl.col("fuels").list.head(2).list.join(", ")
        ),
    )
    return (
        lower.lazy()
        .join_where(
            cuts.rename({"zone": "cut_zone"}),
            pl.col("zone") == pl.col("cut_zone"),
            pl.col("cut_from") < pl.col("valid_to"),
            pl.col("cut_to") > pl.col("valid_from"),
        )
        .with_columns(
            valid_from=pl.max_horizontal("valid_from", "cut_from"),
            valid_to=pl.min_horizontal("valid_to", "cut_to"),
            rank=pl.col("rank") - 1,
            source=pl.col("source") + pl.col("note"),
        )
        .select(list(_INTERVALS))
        .collect()
    )


def _rank_tier(tier: str) -> int:
    """The rank of a tier below the series; the one before it is for where a mix is incomplete."""
    return _LOWER + 2 * TIERS.index(tier)


def _spread_stand_in(stand_in: StandIn, zone: str, first: int, last: int) -> pl.DataFrame:
    """A stand-in from slot `first` to before slot `last`, as far as it is valid."""
    span = pl.DataFrame(
        {"valid_from": [first * SLOT_US], "valid_to": [last * SLOT_US]}
    ).with_columns(pl.from_epoch(pl.all(), "us").dt.replace_time_zone("UTC"))
    return (
        span.with_columns(
            pl.max_horizontal("valid_from", pl.lit(stand_in.valid_from, _TIMES)),
            pl.min_horizontal("valid_to", pl.lit(stand_in.valid_to, _TIMES)),
        )
        .filter(pl.col("valid_from") < pl.col("valid_to"))
        .with_columns(
            zone=pl.lit(zone),
            rank=pl.lit(_rank_tier(stand_in.tier)),
            rung=pl.lit(stand_in.tier),
            feed=pl.lit(""),
            source=pl.lit(stand_in.source),
            is_estimated=pl.lit(True),
            value=pl.lit(stand_in.value, pl.Float64),
            low=pl.lit(stand_in.low, pl.Float64),
            high=pl.lit(stand_in.high, pl.Float64),
        )
        .select(pl.col(name).cast(kind) for name, kind in _INTERVALS.items())
    )


_LOWER = 1_000_000
"""Ranks of the tiers below the series; those of series count feeds."""


def _profile_zone(
    view: GridView, zone: str, open_slots: pl.DataFrame, quantity: str
) -> pl.DataFrame:
    """What the series of a zone usually are at the hours of some slots."""
    first, last = int(open_slots["slot"].min()), int(open_slots["slot"].max())  # type: ignore[arg-type]
    history = _read_series(view, zone, (first - _HISTORY, last + _HISTORY), quantity)
    hours = (
        open_slots.lazy()
        .select("zone", valid_from=pl.from_epoch(pl.col("slot") * SLOT_US, "us"))
        .with_columns(pl.col("valid_from").dt.truncate("1h").dt.replace_time_zone("UTC"))
        .unique()
    )
    usual = grid.compute_typical_profile(grid.select_best(history.lazy()), hours).collect()
    feeds = ", ".join(history["feed"].unique().sort())
    return usual.with_columns(
        rank=pl.lit(_rank_tier("profile"), pl.Int64),
        rung=pl.lit("profile"),
        feed=pl.lit(feeds),
        source=pl.lit("mean of this hour of the day in the stored series"),
        is_estimated=pl.lit(True),
    ).select(list(_INTERVALS))


@dataclass(frozen=True)
class StandIn:
    """What stands in for a series on one tier of the ladder, in g/kWh or L/kWh."""

    tier: str
    value: float
    low: float
    high: float
    source: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None


def list_stand_ins(
    settings: Settings, factors: Sequence[Factor], zone: str, quantity: str
) -> list[StandIn]:
    """List what stands in for a series of a quantity in a zone, best first."""
    stand_ins: list[StandIn] = []
    zone_settings = settings.zones.get(zone, Zone())
    configured: Quantity | None = {
        "intensity": zone_settings.fallback_intensity_g_per_kwh,
        "ewif": zone_settings.ewif_l_per_kwh,
        "withdrawal": zone_settings.withdrawal_l_per_kwh,
        "residual": zone_settings.residual_g_per_kwh,
    }.get(quantity)
    if configured is not None:
        source = configured.source or "wattledger.toml"
        stand_ins.append(
            StandIn("configured", configured.value, configured.low, configured.high, source)
        )
    name = COUNTRY_FACTORS.get(find_signal(settings, zone, quantity), "")
    places = {zone, find_country(settings, zone)} - {WORLD}
    for tier, scopes in (("country_year", places), ("world", {WORLD})):
        stand_ins += [
            StandIn(
                tier, f.value, f.low, f.high, f"{f.source} ({f.scope})", f.valid_from, f.valid_to
            )
            for f in factors
            if f.factor == name and f.scope in scopes
        ]
    return stand_ins


def find_signal(settings: Settings, zone: str, quantity: str) -> str:
    """The signal that is a quantity in a zone."""
    if quantity == "intensity":
        return settings.zones.get(zone, Zone()).signal
    return {"marginal": "marginal", "residual": "residual_mix"}.get(quantity, quantity)


_FAR = datetime(9999, 1, 1, tzinfo=UTC)


def _read_series(view: GridView, zone: str, span: tuple[int, int], quantity: str) -> pl.DataFrame:
    """Series of a zone, and what its generation mixes give, with tiers, and ranks by feed."""
    signal = view.find_signal(zone, quantity)
    series = []
    if quantity not in WATER:
        series.append(_read_intensities(view, zone, span, signal))
    if signal in MIX_FACTORS:
        series.append(_weigh_mixes(view, zone, span, MIX_FACTORS[signal]))
    names = [*_INTERVALS.keys() - {"rank", "rung"}, "stale", "is_mix"]
    stored = pl.concat([frame.select(names) for frame in series])
    listed = order_feeds(view.settings, zone)
    others = sorted(set(stored["feed"].unique()) - set(listed))
    rank = {feed: place for place, feed in enumerate([*listed, *others])}
    return stored.with_columns(
        rank=pl.col("feed").replace_strict(rank, return_dtype=pl.Int64) * 2 + pl.col("is_mix"),
        rung=pl.when("stale").then(pl.lit(SERIES_TIERS[1])).otherwise(pl.lit(SERIES_TIERS[0])),
    ).select(pl.col(name).cast(kind) for name, kind in _INTERVALS.items())


def _read_intensities(
    view: GridView, zone: str, span: tuple[int, int], signal: str
) -> pl.DataFrame:
    """Intensities as they were loaded; bounds that a series does not give are its tolerance."""
    tolerance = find_value(view.factors, "grid_series_tolerance", "default")
    value = pl.col("intensity_g_per_kwh")
    return (
        view.read_rows("grid_intensity", zone, span)
        .filter(pl.col("signal") == signal)
        .with_columns(
            value=value,
            low=pl.col("intensity_low_g_per_kwh").fill_null(value * (1 - tolerance)),
            high=pl.col("intensity_high_g_per_kwh").fill_null(value * (1 + tolerance)),
            is_mix=pl.lit(0),
        )
    )


def _weigh_mixes(view: GridView, zone: str, span: tuple[int, int], factor: str) -> pl.DataFrame:
    """Generation mixes, weighed with a factor per fuel; where they are incomplete, there is a gap."""
    keys = ("zone", "valid_from", "valid_to", "feed")
    mix = view.read_rows("grid_mix", zone, span).join(
        view.find_incomplete(zone, span), on=list(keys), how="anti"
    )
    stale = mix.group_by(*keys).agg(pl.col("stale").any())
    weighed = grid.weigh_mix(mix.lazy(), tabulate_by_fuel(view.factors, factor), keys).collect()
    return weighed.join(stale, on=list(keys), validate="1:1").with_columns(
        pl.col("source") + f" x {factor}", is_mix=pl.lit(1)
    )


def order_feeds(settings: Settings, zone: str) -> list[str]:
    """The feeds of a zone in the order in which they count.

    Files come first, as somebody put them there; then providers, as they are listed.
    """
    return [FILE_FEED, *(api.name for api in settings.input.grid_api if api.zone == zone)]


def _check_zones(view: GridView, signals: pl.DataFrame, sources: pl.DataFrame) -> None:
    """Refuse zones of which nothing is known: most often a typing error."""
    local = set(sources.filter(pl.col("rung") != "world")["zone"])
    for zone in sorted(set(signals["zone"]) - local):
        if not find_country(view.settings, zone):
            raise _refuse_zone(view, zone)


def check_zone(view: GridView, zone: str, first: int, last: int) -> None:
    """Refuse a zone of which nothing can be known for slots `first` to `last`, before anything is computed.

    Raises:
        BadInput: there is no series, no configured value and no country.
    """
    if find_country(view.settings, zone):
        return
    own = {s.tier for s in list_stand_ins(view.settings, view.factors, zone, "intensity")}
    if own & set(view.settings.grid.ladder) - {"world"}:
        return
    signal = view.find_signal(zone, "intensity")
    rows = view.con.execute(
        load_query("accounting/zone_has_series"),
        {
            "zone": zone,
            "signal": signal,
            "first": first * SLOT_US,
            "last": (last + 1) * SLOT_US,
            "as_of": view.as_of or _FAR,
        },
    ).fetchall()
    if not rows:
        raise _refuse_zone(view, zone)


def _refuse_zone(view: GridView, zone: str) -> BadInput:
    stored = view.con.execute(
        "SELECT DISTINCT zone FROM (SELECT zone FROM grid_intensity UNION "
        "SELECT zone FROM grid_mix) ORDER BY 1"
    ).fetchall()
    names = [row[0] for row in stored]
    what = (
        "has grid data, but none for the time of the readings"
        if zone in names
        else "has no grid data"
    )
    return BadInput(
        f"zone {zone!r} {what}",
        where="grid",
        remedy=f"Zones with data: {', '.join(names) or 'none'}. Load a series with "
        f"`wattledger ingest grid`, or name zones.{zone}.country in wattledger.toml to use its "
        "yearly mix",
    )
