"""The console that people read."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """Piped output keeps its columns; a terminal its own width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)
