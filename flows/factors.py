"""The factors: shipped as reviewed files, overridden from wattledger.toml, each with its source."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

import polars as pl

from flows.errors import SettingsError, UsageError
from flows.settings import Quantity, Settings, Site
from transforms.grid import VALUES, weigh_mix

WORLD = "world"
"""Scope of the factors of the whole world."""

COUNTRY_MIX = {
    "country_lifecycle_g_per_kwh": "lifecycle_g_per_kwh",
    "country_direct_g_per_kwh": "direct_g_per_kwh",
    "country_ewif_l_per_kwh": "ewif_l_per_kwh",
    "country_withdrawal_l_per_kwh": "withdrawal_l_per_kwh",
}
"""Yearly factor of a country -> the factor per fuel that its generation mix is weighed with."""

_MIX_FUELS = {"hydro": "hydro_reservoir", "wind": "wind_onshore"}
"""Fuels that the yearly mixes do not distinguish -> the fuel whose factors they take."""

_MIX_SOURCE = (
    "generation by fuel of {year} from Ember and the Energy Institute through Our World in Data "
    "(as packaged by codecarbon 3.3.2) x {factor}"
)
_MIX_LICENCE = "CC BY 4.0"


@dataclass(frozen=True)
class Factor:
    """One row of the table `factor`."""

    factor: str
    scope: str
    value: float
    low: float
    high: float
    unit: str
    source: str
    licence: str
    origin: str = "shipped"
    year: int | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


def _read_table(name: str) -> Iterator[dict[str, str]]:
    text = resources.files("flows").joinpath(f"data/factors/{name}").read_text("utf-8")
    yield from csv.DictReader(text.splitlines())


def _parse_date(text: str) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


@cache
def list_shipped_factors() -> tuple[Factor, ...]:
    """List the factors that come with Wattledger (flows/data/factors/factors.csv)."""
    return tuple(
        Factor(
            row["factor"],
            row["scope"],
            float(row["value"]),
            float(row["low"]),
            float(row["high"]),
            row["unit"],
            row["source"],
            row["licence"],
            year=int(row["year"]) if row["year"] else None,
            valid_from=_parse_date(row["valid_from"]),
            valid_to=_parse_date(row["valid_to"]),
        )
        for row in _read_table("factors.csv")
    )


@cache
def read_country_mix() -> pl.DataFrame:
    """Read the yearly generation by country and for the world: country, year, fuel, generation_gwh."""
    rows = [
        (row["country"], int(row["year"]), fuel.removesuffix("_twh"), float(twh))
        for row in _read_table("country_mix.csv")
        for fuel, twh in row.items()
        if fuel.endswith("_twh")
    ]
    table = pl.DataFrame(
        [
            (place, year, _MIX_FUELS.get(fuel, fuel), round(twh * 1000))
            for place, year, fuel, twh in rows
        ],
        schema={
            "country": pl.String,
            "year": pl.Int64,
            "fuel": pl.String,
            "generation_gwh": pl.Int64,
        },
        orient="row",
    )
    # Countries report for different years; the world takes each one's last.
    world = table.with_columns(country=pl.lit(WORLD), year=pl.col("year").max())
    return (
        pl.concat([table, world])
        .group_by("country", "year", "fuel")
        .agg(pl.col("generation_gwh").sum())
    )


def _list_country_factors(factors: Sequence[Factor]) -> Iterator[Factor]:
    """Yearly means of every country, from its mix and the factors per fuel in force."""
    units = {f.factor: f.unit for f in factors}
    mix = (
        read_country_mix()
        .lazy()
        .select(
            "country",
            "year",
            "fuel",
            generation_kw=pl.col("generation_gwh"),
            is_estimated=pl.lit(False),
            source=pl.lit(""),
        )
    )
    for name, per_fuel in COUNTRY_MIX.items():
        weighed = weigh_mix(mix, tabulate_by_fuel(factors, per_fuel), ("country", "year")).collect()
        for row in weighed.iter_rows(named=True):
            yield Factor(
                name,
                row["country"],
                row["value"],
                row["low"],
                row["high"],
                unit=units[per_fuel],
                source=_MIX_SOURCE.format(year=row["year"], factor=per_fuel),
                licence=_MIX_LICENCE,
                year=row["year"],
            )


def read_factors(settings: Settings) -> list[Factor]:
    """Read the factors in force: shipped ones, the project's overrides in their place, and the yearly ones of countries.

    Raises:
        SettingsError: an override of a factor that does not exist.
    """
    shipped = list_shipped_factors()
    units = {f.factor: f.unit for f in shipped}
    units |= {name: units[per_fuel] for name, per_fuel in COUNTRY_MIX.items()}
    units["residual_mix_g_per_kwh"] = units["lifecycle_g_per_kwh"]
    overrides = list(_list_overrides(settings, units))
    base = _replace_factors(shipped, overrides)
    factors = _replace_factors((*base, *_list_country_factors(base)), overrides)
    return sorted(factors, key=lambda f: (f.factor, f.scope, str(f.valid_from)))


def _list_overrides(settings: Settings, units: dict[str, str]) -> Iterator[Factor]:
    for name, scopes in settings.factors.items():
        if name not in units:
            raise SettingsError(
                f"no factor is called {name!r}",
                where=f"setting factors.{name}",
                remedy=f"Known factors: {', '.join(sorted(units))}",
            )
        for scope, value in scopes.items():
            _check_override(name, scope, value, units[name])
            yield Factor(
                name,
                scope,
                value.value,
                value.low,
                value.high,
                units[name],
                value.source or "wattledger.toml",
                "project",
                "override",
            )


_MOST = {"1": 100, "a": 100, "g/kWh": 1e4, "L/kWh": 1e4, "W": 1e5, "kg": 1e7, "L": 1e9}
"""The most that a factor in a unit can be; more is a slip of the pen."""

_AT_LEAST_ONE = ("pue",)
_ABOVE_ZERO = ("hardware_lifetime_years", "hardware_utilisation")
_SHARES = ("hardware_utilisation", "training_power_share")


def _check_override(name: str, scope: str, value: Quantity, unit: str) -> None:
    """Refuse what a factor cannot be, whatever it is of.

    Raises:
        SettingsError: it is too large for its unit, or divides by nothing.
    """
    least = 1 if name in _AT_LEAST_ONE else 0
    most = 1 if name in _SHARES else _MOST[unit]
    is_nothing = name in _ABOVE_ZERO and value.low == 0
    if value.low < least or value.high > most or is_nothing:
        above = f"more than 0 and at most {most:g}" if is_nothing else f"{least} to {most:g}"
        raise SettingsError(
            f"a factor {name} [{unit}] is {above}, got {value.low:g} to {value.high:g}",
            where=f"setting factors.{name}.{scope}",
        )


def _replace_factors(factors: Iterable[Factor], overrides: Sequence[Factor]) -> list[Factor]:
    replaced = {(f.factor, f.scope) for f in overrides}
    return [f for f in factors if (f.factor, f.scope) not in replaced] + list(overrides)


def find_matching_factors(settings: Settings, pattern: str) -> list[Factor]:
    """Find the factors whose name or scope fits a pattern; without one, all but the yearly ones of countries.

    Raises:
        UsageError: none fits.
    """
    factors = read_factors(settings)
    if not pattern:
        return [f for f in factors if f.factor not in COUNTRY_MIX or f.scope == WORLD]
    found = [f for f in factors if any(fnmatchcase(name, pattern) for name in (f.factor, f.scope))]
    if not found:
        raise UsageError(
            f"no factor fits {pattern!r}",
            remedy=f"Names: {', '.join(sorted({f.factor for f in factors}))}",
        )
    return found


def find_country(settings: Settings, zone: str) -> str:
    """Find the country of a zone: as wattledger.toml says, or the head of its name (DE, US-TVA); or ''."""
    zones = settings.zones
    if zone in zones and zones[zone].country:
        return zones[zone].country
    head = zone.replace("_", "-").split("-")[0]
    return head if head in set(read_country_mix()["country"]) - {WORLD} else ""


def find_factor(factors: Sequence[Factor], name: str, scope: str, where: str) -> Factor:
    """Find one factor.

    Raises:
        SettingsError: no such scope; the known ones are named.
    """
    found = next((f for f in factors if f.factor == name and f.scope == scope), None)
    if found is None:
        scopes = sorted(f.scope for f in factors if f.factor == name)
        raise SettingsError(
            f"the factor {name} has no scope {scope!r}",
            where=where,
            remedy=f"Known: {', '.join(scopes)}",
        )
    return found


def normalise_model(model: str) -> str:
    """The name of a board as drivers, exporters and people write it, in one spelling.

    >>> normalise_model("NVIDIA A100-SXM4-80GB")
    'A100 SXM4 80GB'
    """
    words = re.sub(r"[-_\s]+", " ", model.upper().partition(" MIG ")[0]).strip()
    return re.sub(r"^(?:(?:NVIDIA|TESLA|GEFORCE) )+", "", words)


@cache
def _read_board_names() -> dict[str, str]:
    """Other names of boards -> the name in the factors, both in one spelling (flows/data/factors/board_names.csv)."""
    return {
        normalise_model(row["name"]): normalise_model(row["board"])
        for row in _read_table("board_names.csv")
    }


def find_for_model(factors: Sequence[Factor], name: str, model: str | None) -> Factor:
    """Find the factor of a GPU model: of exactly that board, else of its class, else `default`.

    Scopes are names of boards. One that ends in ` *` is a class: all names that begin with those
    whole words, so that `A10 *` is not A10G. What the project sets comes before what is shipped,
    and may be any pattern.
    """
    scopes = {f.scope: f for f in factors if f.factor == name}
    board = normalise_model(model or "")
    board = _read_board_names().get(board, board)

    def rank(factor: Factor) -> tuple[bool, bool, int] | None:
        pattern = normalise_model(factor.scope)
        is_exact = pattern == board
        fits = is_exact or any(
            fnmatchcase(text, shape)
            for text, shape in (
                (board, pattern),
                (f"{board} ", pattern),
                ((model or "").upper(), factor.scope.upper()),
            )
        )
        return (factor.origin == "override", is_exact, len(pattern)) if fits else None

    ranked = [(found, f) for f in scopes.values() if board and (found := rank(f))]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else scopes["default"]


def is_of_board(factor: Factor) -> bool:
    """Whether a factor is of exactly one board, and not of a class of boards or of any."""
    return factor.scope != "default" and ("*" not in factor.scope or factor.origin == "override")


def list_embodied_factors(
    factors: Sequence[Factor], model: str | None, server: str | None
) -> dict[str, Factor]:
    """List what `transforms.embodied.compute_hourly_rates` takes of a GPU model in a server model, by its name there."""
    return {
        "gpu_kg": find_for_model(factors, "gpu_embodied_kg", model),
        "server_kg": find_for_model(factors, "server_embodied_kg", server),
        "gpu_l": find_for_model(factors, "gpu_embodied_l", model),
        "years": find_for_model(factors, "hardware_lifetime_years", model),
        "utilisation": find_for_model(factors, "hardware_utilisation", model),
    }


def tabulate_by_fuel(factors: Sequence[Factor], name: str) -> pl.LazyFrame:
    """Tabulate one factor for every fuel: fuel, value, low, high, as `transforms.grid.weigh_mix` takes it."""
    return pl.LazyFrame(
        [(f.scope, f.value, f.low, f.high) for f in factors if f.factor == name],
        schema={"fuel": pl.String, **dict.fromkeys(VALUES, pl.Float64)},
        orient="row",
    )


def find_value(factors: Sequence[Factor], name: str, scope: str) -> float:
    """Find the central value of one factor."""
    return next(f.value for f in factors if f.factor == name and f.scope == scope)


def choose_site_quantities(
    factors: Sequence[Factor], site: Site
) -> tuple[dict[str, Quantity], list[Factor]]:
    """Choose the quantities of a site: PUE, WUE, host overhead, on-site generation and withdrawal.

    What wattledger.toml gives counts; the rest comes from the factors of the operator, climate or
    server that it names.

    Returns:
        The quantities by name, and the factors that some of them come from.

    Raises:
        SettingsError: it names an operator, server or plant that no factor knows.
    """
    where = f"site {site.name!r} in wattledger.toml"
    used: list[Factor] = []

    def choose(configured: Quantity | None, name: str, scope: str) -> Quantity:
        if configured is not None:
            return configured
        used.append(find_factor(factors, name, scope, where))
        return make_quantity(used[-1])

    quantities = {
        "pue": choose(site.pue, "pue", site.like),
        "wue_l_per_kwh": choose(site.wue_l_per_kwh, "wue_l_per_kwh", site.like),
        "withdrawal_ratio": choose(None, "onsite_withdrawal_ratio", "default"),
        "onsite_share": _NOTHING,
        "onsite_g_per_kwh": _NOTHING,
        "onsite_l_per_kwh": _NOTHING,
        "overhead_w": _NOTHING,
    }
    if site.host_overhead_w_per_gpu is not None or site.server:
        quantities["overhead_w"] = choose(
            site.host_overhead_w_per_gpu, "host_overhead_w_per_gpu", site.server
        )
    if site.onsite is not None:
        quantities["onsite_share"] = site.onsite.share
        for name in ("onsite_g_per_kwh", "onsite_l_per_kwh"):
            quantities[name] = choose(None, name, site.onsite.plant)
    return quantities, used


_NOTHING = Quantity.exact(0)


def make_quantity(factor: Factor) -> Quantity:
    """Make a quantity of a factor: its value with bounds and source."""
    return Quantity(value=factor.value, low=factor.low, high=factor.high, source=factor.source)
