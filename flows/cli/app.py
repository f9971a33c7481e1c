"""What all commands share: the application, common options, settings, progress, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.settings import Settings

app = typer.Typer(
    name="wattledger",
    help="What a training run cost in energy, water and CO2: measured, gated, recomputable.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine, 1 usage or settings, 2 bad input, 3 gate or verification failed, "
    "4 warehouse or collector busy, 5 warehouse or disk failed, 6 flow failed, 7 no GPU driver. "
    "`wattledger run` ends as its command does.",
)
Project = Annotated[
    Path, typer.Option("--project", "-p", help="The project folder.", envvar="WATTLEDGER_PROJECT")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def load(project: Path) -> Settings:
    from flows import settings

    return settings.load(project)


def print_json(value: Any) -> None:
    print(json.dumps(value, default=str, indent=2))


def progress(what: str, total: float | None = None, *, hidden: bool = False) -> Any:
    """A progress bar on stderr, as a context; see `flows.cli.output.progress`."""
    from flows.cli.output.progress import progress as bar

    return bar(what, total, hidden=hidden)
