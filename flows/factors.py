"""The factors: shipped as one reviewed file, overridden from wattledger.toml, each with its source."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources

import polars as pl

from flows.errors import SettingsError
from flows.settings import Settings


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


def shipped() -> list[Factor]:
    """The factors that come with Wattledger (flows/data/factors/factors.csv)."""
    text = resources.files("flows").joinpath("data/factors/factors.csv").read_text("utf-8")
    return [
        Factor(
            row["factor"],
            row["scope"],
            float(row["value"]),
            float(row["low"]),
            float(row["high"]),
            row["unit"],
            row["source"],
            row["licence"],
        )
        for row in csv.DictReader(text.splitlines())
    ]


def effective(settings: Settings) -> list[Factor]:
    """Shipped factors with the project's overrides in their place.

    Raises:
        SettingsError: an override of a factor that does not exist.
    """
    table = {(f.factor, f.scope): f for f in shipped()}
    units = {f.factor: f.unit for f in table.values()}
    for name, scopes in settings.factors.items():
        if name not in units:
            raise SettingsError(
                f"no factor is called {name!r}",
                where=f"setting factors.{name}",
                remedy=f"Known factors: {', '.join(sorted(units))}",
            )
        for scope, given in scopes.items():
            table[name, scope] = Factor(
                name,
                scope,
                given.value,
                given.low,
                given.high,
                units[name],
                given.source or "wattledger.toml",
                "project",
                "override",
            )
    return [table[key] for key in sorted(table)]


def for_model(factors: Sequence[Factor], name: str, model: str | None) -> Factor:
    """The factor `name` whose pattern fits the GPU model best: the longest, else `default`."""
    of_name = {f.scope: f for f in factors if f.factor == name}
    fitting = [scope for scope in of_name if model and fnmatchcase(model.upper(), scope.upper())]
    return of_name[max(fitting, key=len, default="default")]


def by_fuel(factors: Sequence[Factor], name: str) -> pl.LazyFrame:
    """One factor for every fuel, as `transforms.grid.mix_factors` takes it."""
    return pl.LazyFrame(
        [(f.scope, f.value, f.low, f.high) for f in factors if f.factor == name],
        schema={"fuel": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )


def scalar(factors: Sequence[Factor], name: str, scope: str) -> float:
    """The central value of one factor."""
    return next(f.value for f in factors if f.factor == name and f.scope == scope)
