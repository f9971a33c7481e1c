"""The house rules that no linter knows: functions and files of a size to be read, SQL that parses and is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlglot

from tests.conftest import ROOT

PACKAGES = ("flows", "transforms", "expectations")
LONGEST_FUNCTION, LONGEST_FILE = 60, 500
DECLARATIVE = {
    "flows/settings.py": "the settings, one after the other, each with its meaning",
}
"""Files that may be longer, as they only declare, and why."""


def list_modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def list_long_functions() -> Iterator[str]:
    for path in list_modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    yield f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_every_function_fits_on_a_page() -> None:
    assert list(list_long_functions()) == []


def test_every_file_can_be_read_at_once() -> None:
    long = {
        path.relative_to(ROOT).as_posix()
        for path in list_modules()
        if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE
    }
    assert long == set(DECLARATIVE)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "sql").rglob("*.sql")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_sql_parses(path: Path) -> None:
    """By a parser that is not DuckDB's, so that other tools (formatters, lineage) can read it too."""
    statements = sqlglot.parse(path.read_text("utf-8"), dialect="duckdb")
    assert any(statements)


def test_every_query_is_there_and_used() -> None:
    text = "\n".join(path.read_text("utf-8") for path in list_modules())
    used = set(re.findall(r"""load_query\(\s*["']([a-z_/]+)["']""", text))
    folder = ROOT / "sql" / "queries"
    assert used == {
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.sql")
    }
