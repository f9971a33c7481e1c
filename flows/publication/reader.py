"""Read figures of a project: its runs, answers to SQL, a reporting frame, a run explained.

All of it reads the publication in force; runs and SQL can be asked of the warehouse too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import polars as pl

from flows.errors import UsageError
from flows.publication.folders import database_in, find_publication
from flows.publication.in_force import check_publication, find_in_force
from flows.publication.publish import Published
from flows.reporting.explain import explain_run
from flows.reporting.frames import FRAMES
from flows.reporting.frames.model import Frame
from flows.reporting.frames.query import Selection, query_publication, query_reports
from flows.settings import Settings
from flows.warehouse.failures import explain_failure, first_line
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, Store, store_of

_BATCH = 10_000
_LONGEST_STATEMENT, _MOST_COLUMNS = 1_000_000, 10_000
_ASKING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_ACTING = (b"enable_logging", b"disable_logging", b"truncate_duckdb_logs", b"query")
_EXAMPLE = 'Ask with one SELECT: wattledger query "SELECT run_id, co2e_kg FROM run_summary"'


def find_store(settings: Settings, *, publication: str = "", warehouse: bool = False) -> Store:
    """Find the published figures, checked to be what was published, or the warehouse.

    Args:
        settings: The project.
        publication: Number or id of a publication; empty for the one in force.
        warehouse: Find the warehouse instead.

    Raises:
        UsageError: nothing has been published, or loaded, yet, or there is no such publication.
        NotAsPublished: the publication was changed, or `published` leads elsewhere.
    """
    store: Store
    if warehouse:
        store = store_of(settings)
    elif publication:
        folder = find_publication(settings, publication)
        check_publication(settings, folder)
        store = FileStore(database_in(folder))
    else:
        store = FileStore(database_in(find_in_force(settings)))
    if not store.exists():
        raise UsageError(
            "nothing has been loaded yet", where=str(store), remedy="Run `wattledger pipeline`"
        )
    return store


def read_runs(settings: Settings, *, warehouse: bool = False) -> list[dict[str, Any]]:
    """Read the rows of the view `run_summary`: in force, or as computed in the warehouse.

    Raises:
        UsageError: nothing has been published, or loaded, yet.
    """
    with closing(find_store(settings, warehouse=warehouse).connect(read_only=True)) as con:
        return query_rows(con, "FROM run_summary")


@dataclass(frozen=True)
class QueryResult:
    """Columns and rows of an answer; rows are read as they are asked for."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def run_query(settings: Settings, sql: str, *, warehouse: bool = False) -> Iterator[QueryResult]:
    """Run one statement, read-only and without access to files or network.

    Args:
        settings: The project.
        sql: A SELECT statement.
        warehouse: Ask the warehouse, not the published figures.

    Raises:
        UsageError: nothing published (or loaded) yet, or the statement is wrong.
    """
    with _ask_store(find_store(settings, warehouse=warehouse), sql) as answer:
        yield QueryResult([column[0] for column in answer.description or []], _rows_of(answer))


def query_frame(
    store: Store, sql: str, parameters: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Run one statement, read-only and without access to files or network; gives all its rows.

    Args:
        store: Published figures, or the warehouse.
        sql: A SELECT statement.
        parameters: Values of its `$parameters`.

    Raises:
        UsageError: the statement is wrong.
    """
    with _ask_store(store, sql, parameters) as answer:
        return answer.pl()


@contextmanager
def _ask_store(
    store: Store, sql: str, parameters: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A statement's answer, from a connection that can do nothing but read this store."""
    with closing(store.connect(read_only=True)) as con:
        try:
            store.restrict(con)
            con.execute("SET lock_configuration = true")
            _check_statement(con, sql)
            answer = con.execute(sql, dict(parameters)) if parameters else con.execute(sql)
            if len(answer.description or []) > _MOST_COLUMNS:
                raise UsageError(
                    f"the answer has more than {_MOST_COLUMNS:,} columns", remedy=_EXAMPLE
                )
            yield answer
        except RuntimeError:  # Ctrl-C: what was begun goes on otherwise, and closing waits for it.
            con.interrupt()
            raise
        except duckdb.Error as error:
            failure = explain_failure(error, store)
            if failure is not None:
                raise failure from None
            raise UsageError(first_line(error), remedy="See docs/data-dictionary.md") from None


def _check_statement(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Require one statement that asks, and does nothing.

    Raises:
        UsageError: none, several, or one that does something.
    """
    if len(sql) > _LONGEST_STATEMENT:
        raise UsageError(
            f"the statement has more than {_LONGEST_STATEMENT:,} characters", remedy=_EXAMPLE
        )
    statements = con.extract_statements(sql)
    # What a PIVOT prepares for itself has no text.
    asked = [one for one in statements if one.query or one.type != duckdb.StatementType.CREATE]
    if not asked:
        raise UsageError("there is no statement", remedy=_EXAMPLE)
    if len(asked) > 1:
        raise UsageError(f"there are {len(asked)} statements, not one", remedy=_EXAMPLE)
    if asked[0].type not in _ASKING:
        raise UsageError(
            f"a statement of the kind {asked[0].type.name} does something: only what asks is run",
            remedy=_EXAMPLE,
        )
    if name := _find_acting_function(sql):
        raise UsageError(f"{name}() does something: only what asks is run", remedy=_EXAMPLE)


def _find_acting_function(sql: str) -> str:
    """The first function called that does something although a SELECT may call it; empty if there is none.

    `query()` runs a text that nobody has seen, and logging to a file ends the process.
    """
    offsets = [offset for offset, _ in duckdb.tokenize(sql)]
    text = sql.encode()
    for offset, after in pairwise(offsets):
        name = re.match(rb'"?(\w+)', text[offset:after])
        if name and text[after : after + 1] == b"(" and name[1].lower() in _ACTING:
            return name[1].lower().decode()
    return ""


def _rows_of(answer: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := answer.fetchmany(_BATCH):
        yield from rows


@dataclass(frozen=True)
class FilledFrame:
    """A reporting frame with the figures in force."""

    frame: Frame
    publication_id: str
    sample: bool
    """Whether the readings were generated, not measured."""
    reports: list[dict[str, Any]]
    """Subject and entries, one report for each period, family or run."""

    def as_json(self) -> dict[str, Any]:
        return {
            "frame": self.frame.name,
            "publication_id": self.publication_id,
            "sample": self.sample,
            "reports": self.reports,
        }


def fill_frame(settings: Settings, name: str, selection: Selection) -> FilledFrame:
    """Fill a reporting frame with the figures in force.

    Args:
        settings: The project.
        name: One of `FRAMES`.
        selection: The period, family or run to report.

    Raises:
        UsageError: there is no such frame, or nothing is published of the selection.
    """
    if name not in FRAMES:
        raise UsageError(f"no frame is called {name!r}", remedy=f"One of: {', '.join(FRAMES)}")
    with closing(find_store(settings).connect(read_only=True)) as con:
        reports = query_reports(con, FRAMES[name], selection)
        publication = query_publication(con)
    return FilledFrame(FRAMES[name], publication["publication_id"], publication["sample"], reports)


def explain_published_run(settings: Settings, run_id: str) -> dict[str, Any]:
    """Show everything behind the figures of a run in force; see `flows.reporting.explain`.

    Raises:
        UsageError: nothing has been published yet, or no such run.
    """
    with closing(find_store(settings).connect(read_only=True)) as con:
        return explain_run(con, run_id)


@dataclass(frozen=True)
class PublishedFigures:
    """What a publication says, in short."""

    runs: list[dict[str, Any]]
    """Rows of `run_summary`."""
    fleet: dict[str, dict[str, Any]]
    """Rows of `fleet_summary` by kind."""
    restated: list[dict[str, Any]]
    """Rows of `restatement` that are new with this publication; at most twenty."""
    sample: bool
    """Whether the readings were generated, not measured."""


def read_published(published: Published) -> PublishedFigures:
    """Read the figures of a publication."""
    with closing(FileStore(published.database).connect(read_only=True)) as con:
        [publication] = query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")
        return PublishedFigures(
            runs=query_rows(con, "FROM run_summary"),
            fleet={row["kind"]: row for row in query_rows(con, "FROM fleet_summary")},
            restated=query_rows(
                con,
                "FROM restatement WHERE publication_id = $id ORDER BY run_id LIMIT 20",
                {"id": published.publication_id if published.changed else ""},
            ),
            sample=publication["sample"],
        )
