"""Scenarios: a cluster described by fleet and site files, estimated from the bottom up."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from flows.errors import SettingsError
from flows.estimates.estimate import (
    GALLON_L,
    GPUS_PER_SERVER,
    Inputs,
    Load,
    collect_inputs,
    describe_inputs,
    estimate_cases,
)
from flows.factors import read_factors
from flows.settings import Onsite, Quantity, Settings, Site, Strict, explain_invalid
from transforms.constants import BOUNDS
from transforms.estimate import FIGURES, bound_column, bound_columns

Row = dict[str, Any]
"""Figures of something in a period, as `estimate_scenario` gives them."""

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
    """Not built yet: shown as what it would add."""


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


_SETTINGS_TABLES = ("project", "site", "zones", "factors")
"""Tables of a scenario file that are those of wattledger.toml."""


def list_scenarios() -> list[str]:
    """Names of the scenarios that come with Wattledger."""
    folder = resources.files("flows").joinpath("data/scenarios")
    return sorted(Path(p.name).stem for p in folder.iterdir() if p.name.endswith(".toml"))


def load_scenario(name: str) -> tuple[Scenario, Settings]:
    """A shipped scenario by name, or one from a file.

    Raises:
        SettingsError: there is none, or it says something impossible (named).
    """
    try:
        tables = tomllib.loads(_read_scenario(name))
        settings = Settings.model_validate(
            {key: tables.pop(key) for key in _SETTINGS_TABLES if key in tables}
        )
        scenario = Scenario.model_validate(tables)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}", where=name) from None
    except ValidationError as error:
        raise explain_invalid(error, name) from None
    if len(settings.site) != 1:
        raise SettingsError("a scenario has one [[site]]", where=name)
    return scenario, settings


def _read_scenario(name: str) -> str:
    """The text of a shipped scenario, else of a file.

    Raises:
        SettingsError: there is neither.
    """
    if name in list_scenarios():
        return resources.files("flows").joinpath(f"data/scenarios/{name}.toml").read_text("utf-8")
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"no scenario {name!r}: {error}",
            remedy=f"Name a file, or one of: {', '.join(list_scenarios())}",
        ) from None


def estimate_scenario(scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """Estimate all figures of a scenario.

    Returns:
        title, about, options (each with name, rows and inputs) and public. A row has what, period,
        gpus, power_mw with bounds (of fleets), and the figures of `transforms.estimate`; an input has
        value, low, high and source. A public figure has ours, low and high added to what the file
        says of it.
    """
    options = [_estimate_option(scenario, settings, option) for option in scenario.option]
    present = options[0]["rows"][0]
    public = [_compare_public(figure, present) for figure in scenario.public]
    return {
        "title": scenario.title,
        "about": scenario.about,
        "options": options,
        "public": public,
    }


def _estimate_option(scenario: Scenario, settings: Settings, option: Option) -> dict[str, Any]:
    """The site powered in one way: its name, rows and inputs."""
    factors = read_factors(settings)
    [site] = settings.site
    site = site.model_copy(update={"onsite": option.onsite or site.onsite})
    load = Load(power_share=scenario.load.power_share, utilisation=scenario.load.utilisation)
    models = dict.fromkeys(gpus.gpu for gpus in (*scenario.fleet, *scenario.training))
    inputs = {model: collect_inputs(settings, factors, site, model, load) for model in models}
    return {
        "name": option.name,
        "rows": _estimate_rows(scenario, inputs, site),
        "inputs": {fleet.name: describe_inputs(inputs[fleet.gpu]) for fleet in scenario.fleet},
    }


def _compare_public(figure: Public, present: Row) -> dict[str, Any]:
    """A public figure, with ours of the fleet that is there."""
    bounds = {bound.strip("_"): present[f"{figure.figure}{bound}"] for bound in BOUNDS[1:]}
    return {**figure.model_dump(), "ours": present[figure.figure], **bounds}


def _estimate_rows(scenario: Scenario, inputs: Mapping[str, Inputs], site: Site) -> list[Row]:
    """Fleets by the day and year, and trainings.

    Args:
        scenario: Fleets and trainings.
        inputs: Model of GPU -> inputs but for the GPU-hours.
        site: Where they are.
    """
    hours = {
        **{fleet.name: Quantity.exact(fleet.count * HOURS_A_DAY) for fleet in scenario.fleet},
        **{
            training.name: training.days.scale(training.count * HOURS_A_DAY)
            for training in scenario.training
        },
    }
    cases = {
        gpus.name: {**inputs[gpus.gpu], "gpu_hours": hours[gpus.name]}
        for gpus in (*scenario.fleet, *scenario.training)
    }
    estimates = estimate_cases(cases, site.gpus_per_server or GPUS_PER_SERVER)
    figures = {row.pop("case"): row for row in estimates}
    rows = [row for what, fleets in _groups(scenario) for row in _fleet_rows(what, fleets, figures)]
    rows += [
        {
            "what": training.name,
            "period": f"{training.days.value:g} days",
            "gpus": training.count,
            **figures[training.name],
        }
        for training in scenario.training
    ]
    for row in rows:
        for bound in BOUNDS:
            litres = row[bound_column("water_onsite_l", bound)]
            row[f"water_onsite_mgal{bound}"] = litres / GALLON_L / 1e6
    return rows


def _groups(scenario: Scenario) -> Iterator[tuple[str, Sequence[Fleet]]]:
    """Fleets that are summed, with what they are called: those there, each planned one, and all."""
    present = [fleet for fleet in scenario.fleet if not fleet.planned]
    planned = [fleet for fleet in scenario.fleet if fleet.planned]
    if present:
        yield ", ".join(fleet.name for fleet in present), present
    for fleet in planned:
        yield fleet.name, [fleet]
    if present and planned:
        yield "all together", scenario.fleet


def _fleet_rows(
    what: str, fleets: Sequence[Fleet], figures: Mapping[str, Mapping[str, float]]
) -> Iterator[Row]:
    """Fleets together, a day and a year; `figures` are a day's of each fleet."""
    day = {
        name: sum(figures[fleet.name][name] for fleet in fleets) for name in bound_columns(FIGURES)
    }
    gpus = sum(fleet.count for fleet in fleets)
    power = {
        f"power_mw{bound}": day[bound_column("facility_kwh", bound)] / HOURS_A_DAY / 1000
        for bound in BOUNDS
    }
    for period, days in (("a day", 1), ("a year", DAYS_A_YEAR)):
        total = {name: value * days for name, value in day.items()}
        yield {"what": what, "period": period, "gpus": gpus, **power, **total}
