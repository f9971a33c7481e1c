"""Processes beside the user's: how Wattledger starts its own, whatever the working folder holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent


def module_command(module: str, *words: str) -> list[str]:
    """Command line for one of our modules; a file of that name in the working folder is not meant."""
    return [sys.executable, "-P", "-m", module, *words]


def child_environment() -> dict[str, str]:
    """The environment, but for a PYTHONPATH that may shadow our packages (it stays where we need it)."""
    environment = dict(os.environ)
    given = [Path(p).resolve() for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    if _HERE not in given:
        environment.pop("PYTHONPATH", None)
    return environment


THE_MACHINE = 0
"""In place of a process: what lasts as long as the machine is up."""


def started_at(pid: int) -> str | None:
    """A token that tells this process from a later one with the same number; None if it is gone."""
    if pid == THE_MACHINE:
        return _boot()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended; only its parent has not noticed yet.
    return None if fields[0] in "ZX" else fields[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def pid_namespace() -> str:
    """Which numbering of processes this one is part of; containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
