"""The console that people read, tables on it, progress bars, and JSON for machines.

Every command imports this module, so it imports Rich only when something is printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Advance = Callable[[float | None, str | None], None]
"""Tells a progress bar how much is done (None for one step more) and a detail to show."""


_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move a cursor, clear a screen or turn text round: names from outside may hold them."""


def make_console(*, stderr: bool = False) -> Console:
    """Make a console; piped output keeps its columns, a terminal its own width.

    What is printed on it cannot steer the terminal: each character that could becomes one that is seen.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(_STEERING.sub("\ufffd", text), **options)

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return PlainConsole(stderr=stderr, highlight=False, width=None if is_terminal else 150)


def make_table(**options: Any) -> Table:
    """Make a table without lines, with bold heads."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, header_style="bold", **options)


def print_json(value: Any) -> None:
    """Print JSON for machines; what JSON has no type for is printed as text."""
    print(json.dumps(value, default=str, indent=2))


@contextmanager
def progress(title: str, total: float | None = None, *, hidden: bool = False) -> Iterator[Advance]:
    """Show a progress bar on standard error where that is a terminal, and nothing elsewhere.

    Args:
        title: What is going on.
        total: How much there is to do; None if nobody knows.
        hidden: Show nothing.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = make_console(stderr=True)
    if hidden or not console.is_terminal:
        yield lambda amount, detail: None
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=total, detail="")

        def advance(amount: float | None, detail: str | None) -> None:
            if amount is None:
                bar.advance(task)
            else:
                bar.update(task, completed=amount)
            if detail:
                bar.update(task, detail=detail)

        yield advance
