"""Scenarios: a cluster described by fleet and site files, estimated from the bottom up."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from flows.errors import SettingsError
from flows.estimates import estimate
from flows.estimates.estimate import GALLON_L, Inputs, Load
from flows.factors import effective
from flows.settings import Onsite, Quantity, Settings, Site, Strict, invalid
from transforms.constants import BOUNDS
from transforms.estimate import FIGURES, bounded, columns

HOURS_A_DAY = 24
DAYS_A_YEAR = 365


class Gpus(Strict):
    """GPUs of one model."""

    name: str
    gpu: str
    count: Annotated[int, Field(gt=0)]


class Fleet(Gpus):
    """GPUs of the site."""

    planned: bool = False
    """Not there yet: shown as what it would add."""


class Option(Strict):
    """A way to power the site."""

    name: str
    onsite: Onsite | None = None


class Training(Gpus):
    """A run on a part of the fleet."""

    days: Quantity


class Public(Strict):
    """A public figure, for the fleet that is there, a day."""

    figure: Literal["power_mw", "water_onsite_mgal"]
    value: float
    says: str
    source: str
    rests_on: str = ""


class LoadTable(Strict):
    """How hard the GPUs work."""

    power_share: Quantity | None = None
    utilisation: Quantity | None = None


class Scenario(Strict):
    """A scenario file; its other tables are those of wattledger.toml."""

    title: str
    about: str = ""
    load: LoadTable = LoadTable()
    fleet: Annotated[list[Fleet], Field(min_length=1)]
    option: list[Option] = Field(default_factory=lambda: [Option(name="as described")])
    training: list[Training] = Field(default_factory=list)
    public: list[Public] = Field(default_factory=list)


_OF_SETTINGS = ("project", "site", "zones", "factors")


def shipped() -> list[str]:
    """Names of the scenarios that come with Wattledger."""
    folder = resources.files("flows").joinpath("data/scenarios")
    return sorted(Path(p.name).stem for p in folder.iterdir() if p.name.endswith(".toml"))


def load(name: str) -> tuple[Scenario, Settings]:
    """A shipped scenario by name, or one from a file.

    Raises:
        SettingsError: there is none, or it says something impossible (named).
    """
    if name in shipped():
        text = resources.files("flows").joinpath(f"data/scenarios/{name}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"no scenario {name!r}: {error}",
                remedy=f"Name a file, or one of: {', '.join(shipped())}",
            ) from None
    try:
        said = tomllib.loads(text)
        settings = Settings.model_validate(
            {key: said.pop(key) for key in _OF_SETTINGS if key in said}
        )
        scenario = Scenario.model_validate(said)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}", where=name) from None
    except ValidationError as error:
        raise invalid(error, name) from None
    if len(settings.site) != 1:
        raise SettingsError("a scenario has one [[site]]", where=name)
    return scenario, settings


def run(scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """All figures of a scenario.

    Gives title, about, options (name, rows, inputs) and public. A row has what, period, gpus,
    power_mw with bounds, and the figures of `transforms.estimate`; an input its value, bounds, unit
    and source.
    """
    factors = effective(settings)
    [site] = settings.site
    load = Load(power_share=scenario.load.power_share, utilisation=scenario.load.utilisation)
    found: dict[str, Any] = {"title": scenario.title, "about": scenario.about, "options": []}
    for option in scenario.option:
        place = site.model_copy(update={"onsite": option.onsite or site.onsite})
        gpus: list[Gpus] = [*scenario.fleet, *scenario.training]
        of = {one.gpu: estimate.inputs_of(settings, factors, place, one.gpu, load) for one in gpus}
        rows = _rows(scenario, of, place)
        inputs = {one.name: estimate.shown(of[one.gpu]) for one in scenario.fleet}
        found["options"].append({"name": option.name, "rows": rows, "inputs": inputs})
    there = found["options"][0]["rows"][0]
    found["public"] = [
        {**one.model_dump(), "ours": there[one.figure], **_span(there, one.figure)}
        for one in scenario.public
    ]
    return found


def _span(row: dict[str, Any], figure: str) -> dict[str, float]:
    return {bound.strip("_"): row[f"{figure}{bound}"] for bound in BOUNDS[1:]}


def _rows(scenario: Scenario, of: dict[str, Inputs], site: Site) -> list[dict[str, Any]]:
    """Fleets by the day and year, and trainings."""
    per_server = site.gpus_per_server or estimate.GPUS_PER_SERVER
    cases = {
        one.name: {**of[one.gpu], "gpu_hours": Quantity.exact(one.count * HOURS_A_DAY)}
        for one in scenario.fleet
    }
    cases |= {
        one.name: {**of[one.gpu], "gpu_hours": one.days.times(one.count * HOURS_A_DAY)}
        for one in scenario.training
    }
    figures = {row.pop("case"): row for row in estimate.run(cases, per_server)}
    present = [one for one in scenario.fleet if not one.planned]
    planned = [one for one in scenario.fleet if one.planned]
    days = [(_names(present), present)] if present else []
    days += [(one.name, [one]) for one in planned]
    if present and planned:
        days.append(("all together", scenario.fleet))
    rows = []
    for what, fleets in days:
        total = {name: sum(figures[one.name][name] for one in fleets) for name in columns(FIGURES)}
        gpus = sum(one.count for one in fleets)
        power = {
            f"power_mw{bound}": total[bounded("facility_kwh", bound)] / HOURS_A_DAY / 1000
            for bound in BOUNDS
        }
        for period, times in (("a day", 1), ("a year", DAYS_A_YEAR)):
            grown = {name: value * times for name, value in total.items()}
            rows.append({"what": what, "period": period, "gpus": gpus, **power, **grown})
    for one in scenario.training:
        period = f"{one.days.value:g} days"
        rows.append({"what": one.name, "period": period, "gpus": one.count, **figures[one.name]})
    for row in rows:
        for bound in BOUNDS:
            litres = row[bounded("water_onsite_l", bound)]
            row[f"water_onsite_mgal{bound}"] = litres / GALLON_L / 1e6
    return rows


def _names(fleets: list[Fleet]) -> str:
    return ", ".join(one.name for one in fleets)
