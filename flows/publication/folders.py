"""The folders of publications: which there are, which one is meant, and where its figures are."""

from __future__ import annotations

from pathlib import Path

from flows.errors import UsageError
from flows.settings import PUBLISHED_DATABASE, Settings


def database_in(folder: Path) -> Path:
    """The file with the figures in the folder of a publication."""
    return folder / PUBLISHED_DATABASE


def list_publications(settings: Settings) -> list[Path]:
    """Folders of all publications, oldest first."""
    return sorted(
        folder for folder in settings.publications.glob("*") if database_in(folder).is_file()
    )


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
