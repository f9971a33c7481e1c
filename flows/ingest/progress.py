"""How callers follow what is loaded, file by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Progress = Callable[[Path], None]
"""Called with each file before it is read."""


def no_progress(_: Path) -> None:
    """Report nothing."""
