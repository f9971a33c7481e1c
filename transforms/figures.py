"""The figures of the ledger, each declared once: its columns, unit, meaning, and where it appears.

The columns of slots and runs, their sums, the checks of bounds, the figures of an estimate, their
labels, and what restates a run follow from here. Formulas are in `transforms.footprint`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transforms.constants import BOUNDS


@dataclass(frozen=True)
class Unit:
    """How a quantity is stored, as whole numbers, and how it is shown.

    Attributes:
        stored: Unit in names of stored columns, such as `mj`.
        shown: Unit in names of columns that people read, such as `kwh`; empty if it has none.
        per: How many stored units make a shown one.
        stored_symbol: The stored unit as it is written, such as `mJ`.
        symbol: The shown unit as it is written, such as `kWh`.
    """

    stored: str
    shown: str
    per: float
    stored_symbol: str
    symbol: str


ENERGY = Unit("mj", "kwh", 3.6e9, "mJ", "kWh")
CARBON = Unit("ug", "kg", 1e9, "µg", "kg")
WATER = Unit("ul", "l", 1e6, "µL", "L")
TIME = Unit("us", "", 3.6e9, "µs", "h")
MONEY = Unit("micro", "", 1e6, "1e-6", "")


@dataclass(frozen=True)
class Figure:
    """A quantity of a footprint: it adds up over slots, sites and runs.

    Attributes:
        name: What the names of its columns begin with.
        meaning: What it is, in words without a unit.
        bounded: Whether it has a low and a high.
        label: What people call it; empty where it is only a part of another figure or a means to it.
            The gate holds labelled figures with bounds to these.
        shown: What of it the view `run_summary` shows: its value, with or without bounds.
        restated: Whether a run is restated where a publication changes it.
        since: Number of the migration that added it.
    """

    name: str
    unit: Unit
    meaning: str
    bounded: bool = False
    label: str = ""
    shown: Literal["no", "value", "bounds"] = "no"
    restated: bool = False
    since: int = 1

    def stored(self, bound: str = "") -> str:
        """Name its stored column, or that of a bound (`_low`, `_high`): `co2e_low_ug`."""
        return f"{self.name}{bound}_{self.unit.stored}"

    def shown_as(self, bound: str = "") -> str:
        """Name its column for people, or that of a bound: `co2e_low_kg`."""
        return f"{self.name}{bound}_{self.unit.shown}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Its stored columns: the value and, if it has them, its bounds."""
        return tuple(self.stored(bound) for bound in (BOUNDS if self.bounded else ("",)))


FIGURES = (
    Figure(
        "energy",
        ENERGY,
        "GPU energy",
        bounded=True,
        label="GPU energy",
        shown="bounds",
        restated=True,
    ),
    Figure(
        "measured",
        ENERGY,
        "Part of the GPU energy that was measured (counter or power)",
    ),
    Figure(
        "gap",
        ENERGY,
        "GPU energy estimated across gaps between readings",
        shown="value",
    ),
    Figure(
        "filled",
        ENERGY,
        "GPU energy filled where the run held the GPU and nobody read it: its own mean power, else the board limit",
        shown="value",
    ),
    Figure(
        "held",
        TIME,
        "GPU time held, weighted by share",
    ),
    Figure(
        "overhead",
        ENERGY,
        "Host energy beside the GPUs: CPU and memory where metered, the site's model elsewhere",
    ),
    Figure(
        "it",
        ENERGY,
        "IT energy: GPU + host overhead",
        bounded=True,
        label="IT energy",
        shown="value",
    ),
    Figure(
        "facility",
        ENERGY,
        "Facility energy: IT energy x PUE",
        bounded=True,
        label="facility energy",
        shown="bounds",
        restated=True,
    ),
    Figure(
        "facility_measured",
        ENERGY,
        "Part of the facility energy whose IT energy was measured",
    ),
    Figure(
        "facility_uncovered",
        ENERGY,
        "Part of the facility energy without any carbon intensity",
    ),
    Figure(
        "co2e",
        CARBON,
        "Location-based CO2e (scope 2)",
        bounded=True,
        label="CO2e scope 2, location-based",
        shown="bounds",
        restated=True,
    ),
    Figure(
        "co2e_measured",
        CARBON,
        "Part of the location-based CO2e with measured energy and a reported intensity",
    ),
    Figure(
        "water_onsite",
        WATER,
        "Water consumed on site for cooling and by on-site generation",
        bounded=True,
        label="water on site",
        shown="bounds",
        restated=True,
    ),
    Figure(
        "water_onsite_measured",
        WATER,
        "Part of it that rests on measured energy",
    ),
    Figure(
        "water_offsite",
        WATER,
        "Water consumed in generating the electricity",
        bounded=True,
        label="water off site",
        shown="bounds",
        restated=True,
    ),
    Figure(
        "water_offsite_measured",
        WATER,
        "Part of it with measured energy and a reported generation mix",
    ),
    Figure(
        "host",
        ENERGY,
        "Energy of CPU and memory that the collector gave",
        shown="value",
        since=2,
    ),
    Figure(
        "host_measured",
        ENERGY,
        "Part of the energy of CPU and memory that was measured (RAPL)",
        since=2,
    ),
    Figure(
        "grid",
        ENERGY,
        "Part of the facility energy taken from the grid",
        bounded=True,
        shown="value",
        since=3,
    ),
    Figure(
        "onsite",
        ENERGY,
        "Part of the facility energy generated on site",
        shown="value",
        since=3,
    ),
    Figure(
        "co2e_scope1",
        CARBON,
        "CO2e of on-site generation (scope 1)",
        bounded=True,
        label="CO2e scope 1, on site",
        shown="bounds",
        since=3,
    ),
    Figure(
        "co2e_market",
        CARBON,
        "Market-based CO2e (scope 2)",
        bounded=True,
        label="CO2e scope 2, market-based",
        shown="bounds",
        restated=True,
        since=3,
    ),
    Figure(
        "contracted",
        ENERGY,
        "Part of the grid energy that contracts cover",
        since=3,
    ),
    Figure(
        "residual",
        ENERGY,
        "Part of the grid energy counted with a residual mix; what contracts do not cover either is "
        "counted with the location-based intensity",
        since=3,
    ),
    Figure(
        "co2e_marginal",
        CARBON,
        "Marginal effect: emissions that the energy caused at the margin, where the marginal rate is "
        "known; in no inventory",
        bounded=True,
        label="CO2e at the margin",
        shown="bounds",
        since=3,
    ),
    Figure(
        "marginal",
        ENERGY,
        "Part of the grid energy whose marginal rate is known",
        since=3,
    ),
    Figure(
        "co2e_losses",
        CARBON,
        "CO2e of transmission and distribution losses (scope 3, category 3)",
        bounded=True,
        label="CO2e scope 3, grid losses",
        shown="bounds",
        since=3,
    ),
    Figure(
        "co2e_embodied",
        CARBON,
        "Embodied CO2e of the hardware for the time held (scope 3)",
        bounded=True,
        label="CO2e scope 3, embodied",
        shown="bounds",
        since=4,
    ),
    Figure(
        "water_embodied",
        WATER,
        "Water consumed in making the GPUs, for the time held",
        bounded=True,
        label="water in making the GPUs",
        shown="bounds",
        since=4,
    ),
    Figure(
        "water_withdrawal",
        WATER,
        "Water withdrawn, on and off site: beside consumption, never added to it",
        bounded=True,
        label="water withdrawn",
        shown="bounds",
        since=4,
    ),
    Figure(
        "cost",
        MONEY,
        "Cost of the facility energy that has a price, in millionths of the tariff's currency",
        since=4,
    ),
    Figure(
        "priced",
        ENERGY,
        "Part of the facility energy that has a price",
        since=4,
    ),
)
"""In the order of their columns: a new one goes at the end, as its migration adds its columns there."""


@dataclass(frozen=True)
class Total(Figure):
    """A figure that is the sum of others; it is stored in no column of its own."""

    parts: tuple[Figure, ...] = ()


def _sum_of(*names: str) -> tuple[Figure, ...]:
    return tuple(figure for name in names for figure in FIGURES if figure.name == name)


CO2E_TOTAL = Total(
    "co2e_total",
    CARBON,
    "Scope 1, scope 2 location-based, and the parts of scope 3 counted here: grid losses, embodied",
    bounded=True,
    label="CO2e, all of these",
    shown="bounds",
    parts=_sum_of("co2e_scope1", "co2e", "co2e_losses", "co2e_embodied"),
)
WATER_CONSUMED = Total(
    "water",
    WATER,
    "Water consumed on and off site",
    bounded=True,
    label="water consumed",
    parts=_sum_of("water_onsite", "water_offsite"),
)
TOTALS = (CO2E_TOTAL, WATER_CONSUMED)

BY_NAME: dict[str, Figure] = {figure.name: figure for figure in (*FIGURES, *TOTALS)}

SUMMED = tuple(column for figure in FIGURES for column in figure.columns)
"""The stored columns of all figures: what slots, sites and runs add up."""

RESTATED = tuple(figure for figure in FIGURES if figure.restated)
"""Figures whose change restates a run."""

BOUNDED = tuple(figure for figure in FIGURES if figure.bounded and figure.label)
"""Figures that the gate holds to their bounds."""

ESTIMATED = tuple(
    BY_NAME[name]
    for name in (
        "energy",
        "it",
        "facility",
        "grid",
        "co2e_scope1",
        "co2e",
        "co2e_market",
        "co2e_losses",
        "co2e_embodied",
        "co2e_total",
        "water_onsite",
        "water_offsite",
        "water",
        "water_embodied",
        "water_withdrawal",
    )
)
"""Figures that an estimate without meters has too, in the order in which people read them."""
