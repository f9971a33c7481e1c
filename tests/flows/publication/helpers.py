"""Reading and changing what was published, and listing what verification finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from flows.publication.findings import Finding
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows


def list_failures(findings: Iterator[Finding]) -> set[tuple[str, str]]:
    return {(finding.what, finding.place) for finding in findings if finding.ok is False}


@contextmanager
def writable(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path.chmod(0o644)
    con = duckdb.connect(str(path))
    con.execute("SET TimeZone = 'UTC'")
    try:
        yield con
    finally:
        con.close()


def ask_published(project: Settings, query: str) -> list[dict[str, Any]]:
    """Rows of the publication in force."""
    with closing(connect(project.published_database, read_only=True)) as con:
        return query_rows(con, query)
