"""Processes: how Wattledger starts its own, whatever the working folder holds, and how it tells them apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parent.parent
"""The folder that PYTHONPATH has to name where Wattledger is not installed."""


def module_command(module: str, *words: str) -> list[str]:
    """Command line for one of our modules; a file of that name in the working folder is ignored."""
    return [sys.executable, "-P", "-m", module, *words]


def child_environment() -> dict[str, str]:
    """The environment without a PYTHONPATH that may shadow our packages; one that names them stays."""
    environment = dict(os.environ)
    folders = [Path(p).resolve() for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    if _PACKAGES not in folders:
        environment.pop("PYTHONPATH", None)
    return environment


THE_MACHINE = 0
"""In place of a process id: a process that lasts as long as the machine is up."""


def start_token(pid: int) -> str | None:
    """A token that tells this process from a later one with the same id; None if it is gone."""
    if pid == THE_MACHINE:
        return _boot_id()
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


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def pid_namespace() -> str:
    """Which numbering of processes this one belongs to; containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def print_to_stderr(text: str) -> None:
    """Tell the user something, marked as ours."""
    print(f"wattledger: {text}", file=sys.stderr, flush=True)
