"""What the command line prints of estimates: figures with bounds, and what they rest on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.output.console import console as console_for_people
from flows.reporting.numbers import format_number
from transforms.constants import BOUNDS
from transforms.estimate import bound_column

_FIGURES = {
    "energy_kwh": ("GPU energy", "kWh"),
    "it_kwh": ("IT energy", "kWh"),
    "facility_kwh": ("facility energy", "kWh"),
    "co2e_scope1_kg": ("CO2e scope 1, on site", "kg"),
    "co2e_kg": ("CO2e scope 2, location-based", "kg"),
    "co2e_market_kg": ("CO2e scope 2, market-based", "kg"),
    "co2e_losses_kg": ("CO2e scope 3, grid losses", "kg"),
    "co2e_embodied_kg": ("CO2e scope 3, embodied", "kg"),
    "co2e_total_kg": ("CO2e, all of these", "kg"),
    "water_onsite_l": ("water on site", "L"),
    "water_offsite_l": ("water off site", "L"),
    "water_l": ("water consumed", "L"),
    "water_embodied_l": ("water in making the GPUs", "L"),
    "water_withdrawal_l": ("water withdrawn", "L"),
}
"""Figures of an estimate, as they are called where people read."""


def estimated(done: dict[str, Any]) -> None:
    """An estimate: its figures, and every assumption with its source."""
    console = console_for_people()
    figures = done["figures"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("estimated", "value", "low", "high", ""):
        table.add_column(name, justify="left" if name in ("estimated", "") else "right")
    for name, (words, unit) in _FIGURES.items():
        numbers = [figures[bound_column(name, bound)] for bound in BOUNDS]
        if any(numbers):
            table.add_row(words, *(format_number(number) for number in numbers), unit)
    if figures["cost"]:
        table.add_row("cost", format_number(figures["cost"]), "", "", "")
    console.print(table)
    console.print(f"\n[bold]It rests on[/] (nothing was metered; zone {escape(done['zone'])})")
    _assumptions(console, done["inputs"])


def _assumptions(console: Console, inputs: dict[str, dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("input", "value", "low", "high"):
        table.add_column(name, justify="left" if name == "input" else "right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name, given in inputs.items():
        if given["high"]:
            numbers = (f"{given[bound]:.6g}" for bound in ("value", "low", "high"))
            table.add_row(name, *numbers, escape(given["source"]))
    console.print(table)


def scenario(done: dict[str, Any]) -> None:
    """A cluster from the bottom up, by way of powering it, beside what is publicly said."""
    console = console_for_people()
    told: list[tuple[str, dict[str, Any]]] = []
    console.print(f"[bold]{escape(done['title'])}[/]")
    if done["about"]:
        console.print(escape(done["about"]))
    for option in done["options"]:
        console.print(f"\n[bold]{escape(option['name'])}[/]")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("", "", "MW", "GWh", "t CO2e\nscope 1", "t CO2e\nscope 2",
                     "t CO2e\nembodied", "t CO2e\nall", "m³ water\non site", "m³ water\noff site"):  # fmt: skip
            table.add_column(name, justify="right" if name else "left")
        for row in option["rows"]:
            power = "" if "power_mw" not in row else _spanned(row, "power_mw", 1)
            table.add_row(
                escape(row["what"]),
                row["period"],
                power,
                *(
                    _spanned(row, name, scale)
                    for name, scale in (
                        ("facility_kwh", 1e6),
                        ("co2e_scope1_kg", 1e3),
                        ("co2e_kg", 1e3),
                        ("co2e_embodied_kg", 1e3),
                        ("co2e_total_kg", 1e3),
                        ("water_onsite_l", 1e3),
                        ("water_offsite_l", 1e3),
                    )
                ),
            )
        console.print(table)
    for one in done["public"]:
        unit = {"power_mw": "MW", "water_onsite_mgal": "million US gallons a day"}[one["figure"]]
        console.print(
            f"\nPublicly: {escape(one['says'])} ({escape(one['source'])}). Here: "
            f"[bold]{format_number(one['ours'])}[/] ({format_number(one['low'])} to "
            f"{format_number(one['high'])}) {unit}. It rests on {escape(one['rests_on'])}.",
            soft_wrap=True,
        )
    for option in done["options"]:
        for name, inputs in option["inputs"].items():
            console.print(f"\n[bold]{escape(name)}, {escape(option['name'])}[/] rests on")
            _assumptions(console, dict(one for one in inputs.items() if one not in told))
            told += inputs.items()


def _spanned(row: dict[str, Any], name: str, scale: float) -> str:
    low, high = (row[bound_column(name, bound)] / scale for bound in BOUNDS[1:])
    if not high:
        return "-"
    return f"{format_number(row[name] / scale)}\n[dim]{format_number(low)}–{format_number(high)}[/]"
