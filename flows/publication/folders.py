"""The folders of publications: which there are, which one is meant, and where its figures are."""

from __future__ import annotations

import stat
from pathlib import Path

from flows.errors import UsageError
from flows.settings import PUBLISHED_DATABASE, Settings


def database_in(folder: Path) -> Path:
    """The file with the figures in the folder of a publication."""
    return folder / PUBLISHED_DATABASE


def list_publications(settings: Settings) -> list[Path]:
    """Folders of all publications, oldest first."""
    folders = (
        folder
        for folder in settings.publications.glob("[0-9]*")
        if is_folder(folder) and is_regular(database_in(folder))
    )
    return sorted(folders, key=_read_number)


def _read_number(folder: Path) -> tuple[int, str]:
    """The number of a publication, by which folders are put in order; 10000 comes after 9999."""
    number = folder.name.split("-")[0]
    return (int(number) if number.isdecimal() else 0, folder.name)


def is_regular(path: Path) -> bool:
    """Whether a path is a file itself, not a link to one."""
    return _read_kind(path) == stat.S_IFREG


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, not a link to one."""
    return _read_kind(path) == stat.S_IFDIR


def _read_kind(path: Path) -> int | None:
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except OSError:
        return None


def find_publication(settings: Settings, publication: str = "") -> Path:
    """The folder of a publication.

    Args:
        settings: The project.
        publication: Its id or its number; empty for the last one.

    Raises:
        UsageError: there is no such publication.
    """
    folders = list_publications(settings)
    if not folders:
        raise UsageError(
            "nothing has been published yet",
            where=str(settings.publications),
            remedy="Run `wattledger pipeline`",
        )
    if not publication:
        return folders[-1]
    found = [
        folder
        for folder in folders
        if folder.name == publication or folder.name.split("-")[0] == publication
    ]
    if len(found) != 1:
        raise UsageError(
            f"there is no publication {publication!r}",
            where=str(settings.publications),
            remedy=f"Known: {', '.join(folder.name for folder in folders)}",
        )
    return found[0]
