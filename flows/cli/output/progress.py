"""A progress bar on standard error, where that is a terminal; silence elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[float | None, str | None], None]


@contextmanager
def progress(what: str, total: float | None = None, *, hidden: bool = False) -> Iterator[Advance]:
    """Show a bar; call the given function with (done so far or None for one step, detail)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield lambda done, detail: None
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
        task = bar.add_task(what, total=total, detail="")

        def advance(done: float | None, detail: str | None) -> None:
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done)
            if detail:
                bar.update(task, detail=detail)

        yield advance
