"""Estimates: figures with bounds, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.cli.output.console import make_console, make_table
from flows.reporting.numbers import format_number
from transforms.constants import BOUNDS
from transforms.estimate import bound_column
from transforms.figures import ESTIMATED

_SCENARIO_HEADS = (
    "",
    "",
    "MW",
    "GWh",
    "t CO2e\nscope 1",
    "t CO2e\nscope 2",
    "t CO2e\nembodied",
    "t CO2e\nall",
    "m³ water\non site",
    "m³ water\noff site",
)
_SCENARIO_FIGURES = {
    "facility_kwh": 1e6,
    "co2e_scope1_kg": 1e3,
    "co2e_kg": 1e3,
    "co2e_embodied_kg": 1e3,
    "co2e_total_kg": 1e3,
    "water_onsite_l": 1e3,
    "water_offsite_l": 1e3,
}
"""Column of a scenario -> how many of its unit are one of the unit printed."""
_PUBLIC_UNITS = {"power_mw": "MW", "water_onsite_mgal": "million US gallons a day"}


def print_estimate(estimate: Mapping[str, Any]) -> None:
    """Print the figures of an estimate, and every assumption with its source.

    Args:
        estimate: What `flows.estimates.estimate.estimate_run` gives.
    """
    console = make_console()
    figures = estimate["figures"]
    table = make_table()
    for name in ("estimated", "value", "low", "high", ""):
        table.add_column(name, justify="left" if name in ("estimated", "") else "right")
    for figure in ESTIMATED:
        numbers = [figures[figure.shown_as(bound)] for bound in BOUNDS]
        if figure.label and any(numbers):
            table.add_row(
                figure.label, *(format_number(number) for number in numbers), figure.unit.symbol
            )
    if figures["cost"]:
        table.add_row("cost", format_number(figures["cost"]), "", "", "")
    console.print(table)
    console.print(f"\n[bold]It rests on[/] (nothing was metered; zone {escape(estimate['zone'])})")
    _print_assumptions(console, estimate["inputs"])


def _print_assumptions(console: Console, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    table = make_table()
    for name in ("input", "value", "low", "high"):
        table.add_column(name, justify="left" if name == "input" else "right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name, quantity in inputs.items():
        if quantity["high"]:
            numbers = (f"{quantity[bound]:.6g}" for bound in ("value", "low", "high"))
            table.add_row(name, *numbers, escape(quantity["source"]))
    console.print(table)


def print_scenario(scenario: Mapping[str, Any]) -> None:
    """Print a cluster from the bottom up, by way of powering it, beside what is publicly said.

    Args:
        scenario: What `flows.estimates.scenario.estimate_scenario` gives.
    """
    console = make_console()
    console.print(f"[bold]{escape(scenario['title'])}[/]")
    if scenario["about"]:
        console.print(escape(scenario["about"]))
    for option in scenario["options"]:
        _print_option(console, option)
    for claim in scenario["public"]:
        console.print(
            f"\nPublicly: {escape(claim['says'])} ({escape(claim['source'])}). Here: "
            f"[bold]{format_number(claim['ours'])}[/] ({format_number(claim['low'])} to "
            f"{format_number(claim['high'])}) {_PUBLIC_UNITS[claim['figure']]}. "
            f"It rests on {escape(claim['rests_on'])}.",
            soft_wrap=True,
        )
    printed: list[tuple[str, Mapping[str, Any]]] = []
    for option in scenario["options"]:
        for name, inputs in option["inputs"].items():
            console.print(f"\n[bold]{escape(name)}, {escape(option['name'])}[/] rests on")
            _print_assumptions(
                console, dict(item for item in inputs.items() if item not in printed)
            )
            printed += inputs.items()


def _print_option(console: Console, option: Mapping[str, Any]) -> None:
    console.print(f"\n[bold]{escape(option['name'])}[/]")
    table = make_table()
    for head in _SCENARIO_HEADS:
        table.add_column(head, justify="right" if head else "left")
    for row in option["rows"]:
        table.add_row(
            escape(row["what"]),
            row["period"],
            _format_bounds(row, "power_mw", 1) if "power_mw" in row else "",
            *(_format_bounds(row, name, scale) for name, scale in _SCENARIO_FIGURES.items()),
        )
    console.print(table)


def _format_bounds(row: Mapping[str, Any], name: str, scale: float) -> str:
    low, high = (row[bound_column(name, bound)] / scale for bound in BOUNDS[1:])
    if not high:
        return "-"
    return f"{format_number(row[name] / scale)}\n[dim]{format_number(low)}–{format_number(high)}[/]"
