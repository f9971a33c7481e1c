"""A new project folder: wattledger.toml with every setting that most people touch, commented."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from flows.errors import SettingsError, UsageError
from flows.factors import read_factors
from flows.settings import FILE_NAME, load, parse


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
        f"[factors.{name}.{json.dumps(scope)}]",
        f"value = {value!r}",
        f"low = {low!r}",
        f"high = {high!r}",
        f"source = {json.dumps(source)}",
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
    name = folder.resolve().name or "wattledger"
    template = resources.files("flows").joinpath(f"data/{FILE_NAME}").read_text("utf-8")
    # Not `format`: the template is valid TOML, and has braces of its own.
    path.write_text(template.replace("{name}", name), encoding="utf-8")
    return path
