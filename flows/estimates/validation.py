"""The published record (data/published/record.toml) beside what the same inputs give here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from flows.estimates import estimate
from flows.estimates.estimate import GALLON_L, Inputs
from flows.factors import effective
from flows.settings import Quantity, Settings
from transforms.constants import BOUNDS
from transforms.estimate import bounded

UNITS = {
    "kWh": 1.0,
    "MWh": 1e3,
    "GWh": 1e6,
    "kg": 1.0,
    "t": 1e3,
    "L": 1.0,
    "kL": 1e3,
    "ML": 1e6,
    "Mgal": GALLON_L * 1e6,
}
"""A unit of the record in units of our figures."""


@dataclass(frozen=True)
class Compared:
    """One published figure and ours, in the published unit."""

    study: str
    case: str
    figure: str
    unit: str
    published: str
    ours: float
    low: float
    high: float
    differs: str
    """Why it does not agree, where it does not."""

    @property
    def difference(self) -> float:
        """(ours - published) / published."""
        return self.ours / float(self.published) - 1

    @property
    def agrees(self) -> bool:
        """Whether some numbers that round to the published inputs give one that rounds to the figure."""
        figure = rounded(self.published)
        return self.low <= figure.high and figure.low <= self.high


def rounded(text: str) -> Quantity:
    """What a published number stands for: itself after "=", else all that rounds to it."""
    number = Decimal(text.removeprefix("="))
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    half = 0.0 if text.startswith("=") else float(Decimal((0, (5,), exponent - 1)))
    value = float(number)
    return Quantity(value=value, low=value - half, high=value + half)


@cache
def studies() -> tuple[dict[str, Any], ...]:
    text = resources.files("flows").joinpath("data/published/record.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["study"])


def compare() -> list[Compared]:
    """Every published figure with ours."""
    return [one for study in studies() for one in _compared(study)]


def _compared(study: Mapping[str, Any]) -> Iterator[Compared]:
    names = study["inputs"]
    cases = {row[0]: _inputs(dict(zip(names, row[1:], strict=False))) for row in study["rows"]}
    ours = {found["case"]: found for found in estimate.run(cases)}
    for row in study["rows"]:
        for asked, published in zip(study["figures"], row[1 + len(names) :], strict=True):
            figure, unit = asked.split(": ")
            value, low, high = (
                ours[row[0]][bounded(figure, bound)] / UNITS[unit] for bound in BOUNDS
            )
            yield Compared(
                study["name"],
                row[0],
                figure,
                unit,
                published,
                value,
                low,
                high,
                study.get("differs", {}).get(f"{row[0]} {figure}", ""),
            )


def _inputs(given: Mapping[str, str]) -> Inputs:
    """Inputs of an estimate from the columns of a study."""
    found: Inputs = {name: rounded(text) for name, text in given.items() if name != "zone"}
    if "energy_kwh" in found:
        # Energy instead of GPU-hours and power.
        found["gpu_hours"], found["gpu_w"] = Quantity.exact(1), found.pop("energy_kwh").times(1000)
    if "count" in found:
        count, days = found.pop("count"), found.pop("days")
        found["gpu_hours"] = days.times(24 * count.value)
    if "zone" in given:
        settings = Settings()
        zone = estimate.grid_input(settings, effective(settings), given["zone"], "intensity")
        found["intensity_g_per_kwh"] = zone
    return found
