"""Figures for people: tables with three significant digits, reporting frames, status, factors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.accounting.compute import Computed
from flows.cli.output.console import make_console, make_table
from flows.factors import Factor
from flows.publication.reader import FilledFrame
from flows.reporting.frames.formats import format_csv, format_yaml
from flows.reporting.numbers import format_change, format_number, format_percent, format_range

_SOURCE_WIDTH = 60
"""Longer sources of factors are cut, so that the numbers beside them stay whole."""
_RUN_FIGURES = {
    ("energy", "kwh"): "GPU energy\nkWh",
    ("facility", "kwh"): "facility\nkWh",
    ("co2e", "kg"): "CO2e (location)\nkg",
    ("water_onsite", "l"): "water on site\nL",
    ("water_offsite", "l"): "water off site\nL",
}


def make_runs_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Make a table of runs: energy, carbon and water, each with its range, and how much is measured.

    Args:
        runs: Rows of the view `run_summary`.
    """
    table = make_table()
    table.add_column("run", no_wrap=True)
    for head in _RUN_FIGURES.values():
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("measured\nenergy/CO2e", justify="right", no_wrap=True)
    for run in runs:
        figures = []
        for name, unit in _RUN_FIGURES:
            low, high = run[f"{name}_low_{unit}"], run[f"{name}_high_{unit}"]
            value = format_number(run[f"{name}_{unit}"])
            figures.append(f"{value}\n[dim]{format_range(low, high)}[/]")
        energy, co2e = (
            format_percent(run[f"{name}_measured_share"]) for name in ("energy", "co2e")
        )
        name = escape(run["run_id"])
        # Publications of older versions do not know the state.
        if (state := run.get("state", "ended")) != "ended":
            name += f"\n[dim]{state}[/]"
        table.add_row(name, *figures, f"{energy}\n[dim]{co2e}[/]")
    return table


def print_computed(computed: Computed, runs: Sequence[dict[str, Any]]) -> None:
    """Print the runs as computed, and how much was computed anew."""
    console = make_console()
    console.print(make_runs_table(runs))
    console.print(
        f"\n{computed.readings:,} readings, {computed.runs} runs; {computed.recomputed:,} of "
        f"{computed.slots:,} slots of GPUs computed anew. Not published yet: `wattledger publish`"
    )


def print_report(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Print the runs in force and where the report is."""
    console = make_console()
    console.print(make_runs_table(runs))
    console.print(f"\nreport  {escape(str(path))}", soft_wrap=True)


def print_frame(filled: FilledFrame, *, as_csv: bool) -> None:
    """Print a reporting frame: in its own form, or as CSV."""
    if filled.sample:
        print("SAMPLE DATA: these GPU readings were generated, not measured", file=sys.stderr)
    form = "csv" if as_csv else filled.frame.form
    if form == "csv":
        print(format_csv(filled.frame, filled.reports), end="")
    elif form == "yaml":
        print(format_yaml(filled.reports), end="")
    else:
        _print_frame_tables(filled)


def _print_frame_tables(filled: FilledFrame) -> None:
    console = make_console()
    console.print(f"[bold]{escape(filled.frame.title)}[/]\n{escape(filled.frame.about)}")
    for report in filled.reports:
        table = make_table(title_justify="left")
        table.add_column(escape(report["subject"]), overflow="fold")
        for name in ("value", "low", "high"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("", style="dim", overflow="fold", max_width=60)
        for entry in report["entries"]:
            numbers = (
                "" if entry[bound] is None else format_number(entry[bound])
                for bound in ("value", "low", "high")
            )
            table.add_row(escape(entry["field"]), *numbers, entry["unit"], escape(entry["remark"]))
        console.print()
        console.print(table)
    console.print(f"\npublication {filled.publication_id}")


def print_status(status: dict[str, Any]) -> None:
    """Print what is loaded, computed, published and refused.

    Args:
        status: What `flows.publication.status.read_status` gives.
    """
    console = make_console()
    readings = status["readings"]
    span = f", {readings['first_ts']} to {readings['last_ts']}" if readings["rows"] else ""
    console.print(f"readings   {readings['rows']:,} of {readings['gpus']} GPUs{span}")
    for series in status["grid"]:
        console.print(
            f"grid       {escape(series['zone'])} {series['signal']}: {series['intervals']:,} intervals, "
            f"{series['first']} to {series['last']}"
        )
    console.print(f"runs       {status['runs']}")
    current = "current" if status["computed_is_current"] else "older than the data"
    computed = f"{status['computed_at']} ({current})" if status["computed_at"] else "never"
    console.print(f"computed   {computed}")
    last = status["published"]
    published = f"{last[0]['publication_id']} at {last[0]['published_at']}" if last else "never"
    console.print(f"published  {published}")
    _print_requests(console, status["providers"])
    _print_revised_runs(console, status["revised"])
    for file in status["quarantine"]:
        console.print(f"[red]refused[/]    {escape(file['reason'])}", soft_wrap=True)


def _print_requests(console: Console, requests: Sequence[dict[str, Any]]) -> None:
    for request in requests:
        colour = {"failed": "red", "partial": "yellow"}.get(request["outcome"], "green")
        times = f", {request['attempts']} times" if request["attempts"] > 1 else ""
        reason = f": {request['reason']}" if request["reason"] else ""
        console.print(
            f"[{colour}]{request['outcome']:<10}[/] {escape(request['feed'])} for {escape(request['zone'])} "
            f"at {request['last_attempt_at']:%Y-%m-%d %H:%MZ}{times}{escape(reason)}",
            soft_wrap=True,
        )


def _print_revised_runs(console: Console, runs: Sequence[dict[str, Any]]) -> None:
    for run in runs:
        console.print(
            f"[yellow]revised[/]    {escape(run['run_id'])}: grid data of {run['slots']:,} slots changed since "
            f"it was published; CO2e {format_number(run['co2e_kg'])} kg would change by "
            f"{format_change(run['co2e_change_kg'])} kg, water off site {format_number(run['water_offsite_l'])} L by "
            f"{format_change(run['water_offsite_change_l'])} L",
            soft_wrap=True,
        )
    if runs:
        console.print(
            "           `wattledger pipeline` publishes it; what is published stays as it is"
        )


def print_factors(factors: Sequence[Factor]) -> None:
    """Print a table of factors; overrides stand out."""
    console = make_console()
    table = make_table()
    for name in ("factor", "scope"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "low", "high"):
        table.add_column(name, justify="right")
    for name in ("unit", "year"):
        table.add_column(name, no_wrap=True)
    table.add_column("source", overflow="ellipsis", no_wrap=True, max_width=_SOURCE_WIDTH)
    for factor in factors:
        numbers = (f"{bound:.4g}" for bound in (factor.value, factor.low, factor.high))
        table.add_row(
            factor.factor,
            escape(factor.scope),
            *numbers,
            factor.unit,
            str(factor.year or ""),
            escape(factor.source),
            style="bold yellow" if factor.origin == "override" else "",
        )
    console.print(table)
    console.print(f"{len(factors)} factors; the whole source: wattledger factors show FACTOR SCOPE")


def print_factor(factor: Factor, replaced: Factor | None) -> None:
    """Print one factor in full, and the shipped one that it replaces."""
    console = make_console()
    console.print(f"[bold]{factor.factor}[/] {escape(factor.scope)}")
    for version in (factor, replaced):
        if version is None:
            continue
        unit = "" if version.unit == "1" else f" {version.unit}"
        console.print(
            f"  {version.value:g} ({version.low:g} to {version.high:g}){unit}, {version.origin}",
            soft_wrap=True,
        )
        console.print(f"    source   {escape(version.source)}", soft_wrap=True)
        year = f", {version.year}" if version.year else ""
        console.print(f"    terms    {escape(version.licence)}{year}", soft_wrap=True)
