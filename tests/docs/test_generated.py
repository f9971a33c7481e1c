"""Generated pages are in step with the code, and links in the docs lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs import generate
from tests.conftest import ROOT


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == generate.PAGES[name](), "run `make docs`"


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_the_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert all("==" in line for line in pins)
    assert lock.count("--hash=sha256:") >= len(pins)


def test_transforms_are_pure() -> None:
    """Only Polars, NumPy and the standard library's data types: no I/O, no clock, no settings."""
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "numpy",
        "polars",
        "transforms",
        "typing",
    }
    for module in (ROOT / "transforms").rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) ([a-z_]+)", module.read_text(), re.MULTILINE):
            assert name in allowed, f"{module.name} imports {name}"
