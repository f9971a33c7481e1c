"""A run as arithmetic that a person can redo by hand."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.output.console import make_console, make_table
from flows.reporting.explain import describe_arithmetic
from flows.reporting.numbers import format_percent

_UNITS = {"mj": ("mJ", 3.6e9, "kWh"), "ug": ("ug", 1e9, "kg"), "ul": ("uL", 1e6, "L")}
"""Unit as stored, how many of it are one large unit, and the large unit."""


def print_explanation(run_id: str, explanation: dict[str, Any], slot: dict[str, Any]) -> None:
    """Print a run from its GPUs to its totals.

    Args:
        run_id: The run.
        explanation: What `flows.reporting.explain.explain_run` gives.
        slot: The slot to work through.
    """
    console = make_console()
    console.print(f"[bold]{escape(run_id)}[/]\n\n[bold]1. Energy by GPU[/], mJ")
    _print_gpus(console, explanation["gpus"])
    console.print(
        f"\n[bold]2. One of its {len(explanation['slots'])} slots of five minutes[/]: "
        f"{slot['slot_start']:%Y-%m-%d %H:%MZ} at {escape(slot['site'])}, zone {escape(slot['zone'])}; "
        "each result is rounded to whole units, and mJ x g/kWh / 3600 is ug"
    )
    _print_slot(console, slot)
    console.print("\n[bold]3. The sum of its slots[/]")
    _print_totals(console, explanation["totals"])
    console.print("\n[bold]4. Where the intensities are from[/]")
    _print_sources(console, explanation["sources"])
    console.print("\n[bold]5. Factors[/]")
    _print_factors(console, explanation["factors"])
    console.print("\nAll slots: --json. The formulas: docs/method.md")


def _print_gpus(console: Console, gpus: list[dict[str, Any]]) -> None:
    table = make_table()
    for name in ("GPU", "host"):
        table.add_column(name, no_wrap=True)
    for name in ("GPU-hours", "counter", "power integrated", "gaps", "filled", "energy"):
        table.add_column(name, justify="right")
    for gpu in gpus:
        numbers = ("counter_mj", "power_integral_mj", "gap_mj", "filled_mj", "energy_mj")
        table.add_row(
            escape(gpu["gpu_uuid"]),
            escape(gpu["host"]),
            f"{gpu['held_us'] / 3.6e9:.6g}",
            *(f"{gpu[name]:,}" for name in numbers),
        )
    console.print(table)


def _print_slot(console: Console, slot: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for quantity, formula, result in describe_arithmetic(slot):
        table.add_row(quantity, f"= {escape(formula)}", f"= {result}")
    console.print(table)


def _print_totals(console: Console, totals: dict[str, int]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    for _ in range(2):
        table.add_column(justify="right", no_wrap=True)
    for name, total in totals.items():
        unit, scale, large_unit = _UNITS[name.rpartition("_")[2]]
        table.add_row(name, f"{total:,} {unit}", f"{total / scale:,.9g} {large_unit}")
    console.print(table)


def _print_sources(console: Console, sources: list[dict[str, Any]]) -> None:
    for source in sources:
        feed = f" of {source['feed']}" if source["feed"] else ""
        console.print(
            f"{source['quantity']}: {format_percent(source['energy_share'])} {source['rung']}"
            f"{escape(feed)}: {escape(source['source'])}",
            soft_wrap=True,
        )


def _print_factors(console: Console, factors: list[dict[str, Any]]) -> None:
    for factor in factors:
        own = " [yellow](own)[/]" if factor["origin"] == "override" else ""
        console.print(
            f"{factor['factor']} {escape(factor['scope'])} = {factor['value']:.9g} "
            f"({factor['low']:.9g} to {factor['high']:.9g}) {factor['unit']}{own}: "
            f"{escape(factor['source'])}",
            soft_wrap=True,
        )
