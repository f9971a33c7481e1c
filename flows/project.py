"""A new project folder: wattledger.toml with every setting that most people touch, commented."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from flows.errors import SettingsError, UsageError
from flows.factors import read_factors
from flows.files import name_for_people
from flows.settings import FILE_NAME, load, make_project_name, parse, quote_text


def override_factor(
    folder: Path, name: str, scope: str, value: float, *, low: float, high: float, source: str
) -> Path:
    """Add a factor to the settings file; what the file holds already stays as it is.

    Raises:
        UsageError: it is overridden already.
        SettingsError: no such factor, or bounds that make no sense; nothing is written.
    """
    path = folder / FILE_NAME
    if scope in load(folder).factors.get(name, {}):
        raise UsageError(
            f"{name} {scope!r} is overridden already",
            where=str(path),
            remedy=f"Edit [factors.{name}] there",
        )
    lines = [
        f"[factors.{quote_text(name)}.{quote_text(scope)}]",
        f"value = {value!r}",
        f"low = {low!r}",
        f"high = {high!r}",
        f"source = {quote_text(source)}",
    ]
    text = path.read_text("utf-8").rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"
    draft = path.with_name(f".{FILE_NAME}.new")
    draft.write_text(text, encoding="utf-8")
    try:
        read_factors(parse(text, path))
    except SettingsError:
        draft.unlink()
        raise
    draft.replace(path)
    return path


def create_project(folder: Path) -> Path:
    """Make `folder` a project; returns its settings file.

    Raises:
        UsageError: it already is one.
    """
    path = folder / FILE_NAME
    if path.exists():
        raise UsageError(
            "this folder is a project already",
            where=str(path),
            remedy="Edit it, or choose another folder",
        )
    for name in ("readings", "grid", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    name = folder.resolve().name
    template = resources.files("flows").joinpath(f"data/{FILE_NAME}").read_text("utf-8")
    # Not `format`: the template is valid TOML, and has braces of its own.
    text = template.replace('"{name}"', quote_text(make_project_name(name)), 1)
    text = text.replace('"{name}"', quote_text(name_for_people(name)), 1)
    path.write_text(text, encoding="utf-8")
    return path
