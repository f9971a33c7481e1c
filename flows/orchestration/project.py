"""The project of a flow: in a service, the one that it was started for and no other.

Flows take their project as a parameter, and whoever reaches Prefect's API chooses parameters. A service that followed them
would read other folders, send its tokens to the providers named there, and sign with its key.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows import settings as settings_module
from flows.errors import UsageError
from flows.settings import Settings

SERVED = "WATTLEDGER_SERVED_PROJECT"
"""Environment variable with the project folder of the service that a process belongs to."""


def serve_only(settings: Settings) -> None:
    """Let this process and those that it starts run flows of one project only."""
    os.environ[SERVED] = str(settings.root.resolve())


def load_project(project: str, wait_s: float = 0.0) -> Settings:
    """Load the settings of a flow's project.

    Args:
        project: Its folder.
        wait_s: Seconds to wait while another process writes the warehouse.

    Raises:
        UsageError: this is a service, and it was started for another project.
        SettingsError: the settings make no sense.
    """
    served = os.environ.get(SERVED)
    if served and str(Path(project).resolve()) != served:
        raise UsageError(
            "this service was started for another project and runs no flow of this one",
            where=str(project),
            remedy=f"It serves {served}; start a `wattledger serve` for each project",
        )
    return settings_module.load(Path(project), wait_s)


def describe_writers(settings: Settings) -> str:
    """A warning where everybody on this machine may change the settings of a service; else empty."""
    path = settings.root / settings_module.FILE_NAME
    if path.stat().st_mode & 0o002:
        return f"everybody on this machine may change {path}, and with it what this service does: `chmod o-w` it"
    return ""
