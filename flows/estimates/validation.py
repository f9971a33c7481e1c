"""Validation: published figures (data/published/record.toml) beside ours from the same inputs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from flows.estimates.estimate import GALLON_L, Inputs, estimate_cases, find_grid_quantity
from flows.factors import read_factors
from flows.settings import Quantity, Settings
from transforms.constants import BOUNDS
from transforms.estimate import bound_column

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
class Comparison:
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
        published = parse_rounded(self.published)
        return self.low <= published.high and published.low <= self.high


def parse_rounded(text: str) -> Quantity:
    """Parse a published number: it stands for itself after "=", else for all that rounds to it."""
    number = Decimal(text.removeprefix("="))
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    half = 0.0 if text.startswith("=") else float(Decimal((0, (5,), exponent - 1)))
    value = float(number)
    return Quantity(value=value, low=value - half, high=value + half)


@cache
def load_studies() -> tuple[dict[str, Any], ...]:
    """The studies of the published record."""
    text = resources.files("flows").joinpath("data/published/record.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["study"])


def compare_studies() -> list[Comparison]:
    """Every published figure with ours."""
    return [comparison for study in load_studies() for comparison in _compare_study(study)]


def _compare_study(study: Mapping[str, Any]) -> Iterator[Comparison]:
    """The figures of a study. A row of it is a case, its inputs and its figures."""
    names = study["inputs"]
    cases = {
        row[0]: _parse_inputs(dict(zip(names, row[1:], strict=False))) for row in study["rows"]
    }
    ours = {row["case"]: row for row in estimate_cases(cases)}
    for row in study["rows"]:
        for heading, published in zip(study["figures"], row[1 + len(names) :], strict=True):
            figure, unit = heading.split(": ")
            value, low, high = (
                ours[row[0]][bound_column(figure, bound)] / UNITS[unit] for bound in BOUNDS
            )
            yield Comparison(
                study=study["name"],
                case=row[0],
                figure=figure,
                unit=unit,
                published=published,
                ours=value,
                low=low,
                high=high,
                differs=study.get("differs", {}).get(f"{row[0]} {figure}", ""),
            )


def _parse_inputs(columns: Mapping[str, str]) -> Inputs:
    """Inputs of an estimate from the columns of a study.

    Besides the inputs of an estimate, a study may give energy_kwh (instead of GPU-hours and power),
    count and days (instead of GPU-hours), and zone (instead of an intensity).
    """
    inputs: Inputs = {name: parse_rounded(text) for name, text in columns.items() if name != "zone"}
    if "energy_kwh" in inputs:
        inputs["gpu_hours"] = Quantity.exact(1)
        inputs["gpu_w"] = inputs.pop("energy_kwh").scale(1000)
    if "count" in inputs:
        count, days = inputs.pop("count"), inputs.pop("days")
        inputs["gpu_hours"] = days.scale(24 * count.value)
    if "zone" in columns:
        settings = Settings()
        inputs["intensity_g_per_kwh"] = find_grid_quantity(
            settings, read_factors(settings), columns["zone"], "intensity"
        )
    return inputs
