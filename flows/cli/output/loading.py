"""What became of files that were loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.output.console import make_console
from flows.files import name_for_people
from flows.rows import describe_skipped
from flows.warehouse.registry import Outcome

_COLOURS = {
    "loaded": "green",
    "known": "dim",
    "quarantined": "bold red",
    "unreachable": "bold red",
}
_MOST_FILES = 40


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print one line for each file, then what was understood, noted and refused, and why."""
    console = make_console()
    table = Table(box=None, pad_edge=False)
    for name in ("file", "verdict"):
        table.add_column(name)
    for name in ("rows", "loaded", "known already", "skipped", "set aside"):
        table.add_column(name, justify="right")
    for outcome in outcomes[:_MOST_FILES]:
        counts = (
            outcome.rows_read,
            outcome.rows_loaded,
            outcome.rows_duplicate,
            outcome.rows_skipped,
            outcome.rows_quarantined,
        )
        table.add_row(
            escape(name_for_people(_shorten_path(outcome.path))),
            f"[{_COLOURS[outcome.verdict]}]{outcome.verdict}[/]",
            *(f"{count:,}" if outcome.verdict == "loaded" else "" for count in counts),
        )
    console.print(table)
    if len(outcomes) > _MOST_FILES:
        console.print(f"... and {len(outcomes) - _MOST_FILES} more files")
    for outcome in outcomes[:_MOST_FILES]:
        skipped = describe_skipped(outcome.skipped)
        for sentence in [*outcome.understood, *([f"skipped: {skipped}"] if skipped else [])]:
            _print_about(console, "[dim]read:[/]", outcome, sentence)
    for outcome in outcomes:
        for warning in outcome.warnings:
            _print_about(console, "[yellow]note:[/]", outcome, warning)
    print_refusals(console, outcomes)


def _print_about(console: Console, head: str, outcome: Outcome, sentence: str) -> None:
    name = escape(name_for_people(_shorten_path(outcome.path)))
    console.print(f"{head} {name}: {escape(sentence)}", soft_wrap=True)


def print_refusals(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print the reason for every file that was refused, and every source that did not answer."""
    words = {"quarantined": "refused", "unreachable": "unreachable"}
    for outcome in outcomes:
        if outcome.verdict in words:
            console.print(
                f"[bold red]{words[outcome.verdict]}:[/] {escape(outcome.reason)}", soft_wrap=True
            )


def _shorten_path(path: str) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path
