"""Publications beside each other: two compared, a run through all of them, one computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.cli.output.console import make_console, make_table
from flows.publication.history import Difference
from flows.publication.recompute import Recomputed
from flows.reporting.numbers import format_change, format_number

_COMPARED = {
    "facility_kwh": "facility kWh",
    "co2e_kg": "kg CO2e (location)",
    "water_onsite_l": "L water on site",
    "water_offsite_l": "L water off site",
}


def print_difference(difference: Difference) -> None:
    """Print two publications run by run: figures after, and how far they moved; then the causes."""
    console = make_console()
    console.print(f"[bold]{difference.before}[/] and [bold]{difference.after}[/]")
    table = make_table()
    table.add_column("run")
    for title in _COMPARED.values():
        table.add_column(title, justify="right")
    unchanged = 0
    for run in difference.runs:
        pairs = [(run[f"{name}_before"], run[f"{name}_after"]) for name in _COMPARED]
        if all(before == after for before, after in pairs):
            unchanged += 1
            continue
        table.add_row(
            escape(run["run_id"]), *(_format_move(before, after) for before, after in pairs)
        )
    if unchanged < len(difference.runs):
        console.print(table)
    if unchanged:
        console.print(f"{unchanged} run{'s' if unchanged > 1 else ''}: the same")
    _print_causes(console, [vars(cause) for cause in difference.causes])


def print_history(run_id: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Print a run through all publications."""
    console = make_console()
    console.print(f"[bold]{escape(run_id)}[/]")
    before: Mapping[str, Any] = {}
    for entry in entries:
        figures = ", ".join(
            f"{_format_move(before.get(name), entry[name]) if before else format_number(entry[name])} {title}"
            for name, title in _COMPARED.items()
        )
        console.print(
            f"\n{entry['publication_id']}  {entry['published_at']:%Y-%m-%d %H:%MZ}  {figures}",
            soft_wrap=True,
        )
        if before:
            _print_causes(console, entry["causes"])
        before = entry


def print_recomputed(recomputed: Recomputed) -> None:
    """Print a publication and its recomputation, run by run."""
    console = make_console()
    table = make_table()
    for name in ("run", "published kg CO2e", "computed again", ""):
        table.add_column(name, justify="left" if name in ("run", "") else "right")
    for run in recomputed.runs:
        again = run["co2e_again_kg"]
        table.add_row(
            escape(run["run_id"] or run["kind"]),
            f"{run['co2e_kg']:.9f}",
            "-" if again is None else f"{again:.9f}",
            "[green]same[/]" if run["identical"] else "[red]differs[/]",
        )
    console.print(table)
    console.print(
        f"\n{recomputed.publication_id}, as known at {recomputed.as_of:%Y-%m-%d %H:%M:%SZ}: "
        + ("the same to the last digit" if recomputed.identical else "not the same")
    )


def _format_move(before: float | None, after: float | None) -> str:
    """Format a figure, and how far it is from the one before."""
    if after is None:
        return "[red]gone[/]"
    if before is None:
        return f"{format_number(after)} [green]new[/]"
    if before == after:
        return format_number(after)
    return f"{format_number(after)} ({format_change(after - before)})"


def _print_causes(console: Console, causes: Sequence[Mapping[str, Any]]) -> None:
    if not causes:
        console.print("No input differs.")
    for cause in causes:
        console.print(
            f"[yellow]{cause['holds']}[/]: {cause['gone']:,} rows gone, {cause['new']:,} new; "
            f"{escape(cause['example'])}",
            soft_wrap=True,
        )
