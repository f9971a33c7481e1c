"""What commands share: their common options, and the settings of the project that they are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.settings import Settings

Project = Annotated[
    Path, typer.Option("--project", "-p", help="The project folder.", envvar="WATTLEDGER_PROJECT")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _follow_named(paths: list[str]) -> list[str]:
    from flows.files import follow_named

    return follow_named(paths)


Paths = Annotated[
    list[str], typer.Argument(help="Files, folders or patterns.", callback=_follow_named)
]
LocalZone = Annotated[str, typer.Option("--tz", help="Time zone of local times.")]
LastDay = Annotated[str, typer.Option("--to", help="Last day (UTC), included.")]


def load_settings(project: Path) -> Settings:
    """Read the settings of a project.

    Raises:
        SettingsError: there is no project, or a setting makes no sense.
    """
    from flows import settings

    return settings.load(project)


def load_settings_or_defaults(project: Path) -> Settings:
    """Read the settings of a project, or take the defaults where there is no project.

    Raises:
        SettingsError: a setting makes no sense.
    """
    from flows import settings

    if (project / settings.FILE_NAME).exists():
        return settings.load(project)
    return settings.Settings()


def parse_days(
    first: str, last: str, names: tuple[str, str] = ("--from", "--to")
) -> tuple[str, str]:
    """Read a span of days.

    Args:
        first: First day as an ISO date; empty for no span.
        last: Last day, included; the first one if empty.
        names: What the command calls the two.

    Returns:
        First day and the day after the last as ISO dates, or two empty texts.

    Raises:
        BadParameter: not a day, or the last lies before the first.
    """
    from datetime import date, timedelta

    if not first and not last:
        return "", ""
    days = []
    for name, text in zip(names, (first, last or first), strict=True):
        try:
            days.append(date.fromisoformat(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a day", param_hint=name) from None
    if days[0] > days[1]:
        raise typer.BadParameter(f"{names[1]} lies before {names[0]}", param_hint=names[1])
    return days[0].isoformat(), (days[1] + timedelta(days=1)).isoformat()


def require_range(low: float, high: float) -> Callable[[float], float]:
    """A check of an option's value, whose message names the option and both ends."""

    def check_value(value: float) -> float:
        if not low <= value <= high:
            raise typer.BadParameter(f"{value:g} is not in {low:g} to {high:g}")
        return value

    return check_value
