"""Run a suite inside DuckDB with Great Expectations and give a verdict.

Great Expectations fetches after it has closed its connection, and DuckDB's cursor is empty by
then; a listener keeps each result in memory instead (results are counts and offending rows).
"""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from expectations.checks import Check, Result, Suite, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def load_great_expectations() -> Any:
    """Import Great Expectations, which takes seconds, without its telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _silence_great_expectations():
        import great_expectations
    return great_expectations


class Gate:
    """Great Expectations on one warehouse; each suite runs through a second cursor of `con`.

    Only what is committed is seen, and all checks of a suite see the same.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, docs: Path | None = None) -> None:
        import sqlalchemy as sa
        from duckdb_engine import ConnectionWrapper
        from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy

        self._gx = load_great_expectations()
        self._con, self._docs = con, docs
        # Great Expectations tries the connection at once.
        with _silence_great_expectations(), self._hold_snapshot():
            self._context = self._gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = {
                "globally": False,
                "metric_calculations": False,
            }
            if docs is not None:
                self._configure_docs(docs)
            self._source = self._context.data_sources.add_sql(
                name="warehouse",
                connection_string="duckdb:///:memory:",
                create_temp_table=False,
                kwargs={
                    "creator": lambda: ConnectionWrapper(_OpenTransaction(self._reading)),
                    "poolclass": sa.pool.NullPool,
                },
            )
            engine = self._source.get_execution_engine().engine

        @sa.event.listens_for(engine, "after_cursor_execute")
        def keep_result(
            conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> None:
            if cursor.description:
                context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(
                    cursor, initial_buffer=cursor.fetchall()
                )

    def _configure_docs(self, docs: Path) -> None:
        for site in list(self._context.variables.data_docs_sites or {}):
            self._context.delete_data_docs_site(site)
        self._context.add_data_docs_site(
            "wattledger",
            {
                "class_name": "SiteBuilder",
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs.resolve()),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )

    def run(self, suite: Suite) -> Verdict:
        """Run one suite.

        Raises:
            RuntimeError: a check could not be executed at all (a defect, not a verdict).
        """
        with _silence_great_expectations(), self._hold_snapshot():
            asset = self._source.add_query_asset(
                name=f"{suite.schema}.{suite.table}",
                query=f"SELECT * FROM {suite.schema}.{suite.table}",
            )
            try:
                batch = asset.add_batch_definition_whole_table(suite.name)
                answers = self._validate(batch, suite)
            finally:
                self._source.delete_asset(asset.name)
        # Before the results: a store that went away says so itself, and better.
        [(rows,)] = (
            _open_second_connection(self._con)
            .execute(f"SELECT count(*) FROM {suite.schema}.{suite.table}")
            .fetchall()
        )
        by_name = {check.name: check for check in suite.checks}
        results = [self._read_result(by_name, suite, answer) for answer in answers]
        return Verdict(suite, rows, results)

    @contextmanager
    def _hold_snapshot(self) -> Iterator[None]:
        """Let checks see one state of the warehouse; a lake's catalogue is read once for all of them, too."""
        self._reading = _open_second_connection(self._con)
        self._reading.execute(_BEGIN)
        try:
            yield
        finally:
            self._reading.close()

    def _validate(self, batch: Any, suite: Suite) -> list[Any]:
        """Great Expectations' results, with the rows that break a check."""
        details = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": list(suite.keys),
            "return_unexpected_index_query": False,
        }
        if self._docs is not None:
            # Data Docs show what was stored: all of it, in one go.
            definition = self._gx.ValidationDefinition(
                name=suite.name,
                data=batch,
                suite=self._context.suites.add_or_update(self._build_suite(suite, suite.checks)),
            )
            definition = self._context.validation_definitions.add_or_update(definition)
            return list(definition.run(result_format=details).results)
        # Most checks pass, and to say no more than that takes half the time.
        data = batch.get_batch()
        short = data.validate(self._build_suite(suite, suite.checks), result_format="BOOLEAN_ONLY")
        answers = _by_check(short.results)
        failed = [check for check in suite.checks if not answers[check.name].success]
        if failed:
            detailed = data.validate(self._build_suite(suite, failed), result_format=details)
            answers |= _by_check(detailed.results)
        return [answers[check.name] for check in suite.checks]

    def _build_suite(self, suite: Suite, checks: Sequence[Check]) -> Any:
        return self._gx.ExpectationSuite(
            name=suite.name, expectations=[self._build_expectation(check) for check in checks]
        )

    def build_docs(self) -> None:
        """Write the Data Docs of what ran."""
        store = self._context.validation_results_store
        with _silence_great_expectations():
            # Its pages show values as they are, and a value can be markup.
            for key in store.list_keys():
                record = store.get(key)
                for answer in record.results:
                    answer.result = _escape_texts(answer.result)
                store.set(key, record)
            self._context.build_data_docs()

    def _build_expectation(self, check: Check) -> Any:
        cls = getattr(self._gx.expectations, check.expectation)
        return cls(
            **check.kwargs,
            severity="critical" if check.severity == "fail" else "warning",
            description=check.statement,
            meta={"check": check.name},
        )

    def _read_result(self, by_name: dict[str, Check], suite: Suite, answer: Any) -> Result:
        check = by_name[answer.expectation_config.meta["check"]]
        if answer.exception_info and (message := _find_message(answer.exception_info)):
            raise RuntimeError(f"check {suite.name}.{check.name} could not run: {message}")
        if check.expectation == "UnexpectedRowsExpectation":
            unexpected = int(answer.result.get("observed_value") or 0)
            rows = answer.result.get("details", {}).get("unexpected_rows", [])
        else:
            unexpected = int(answer.result.get("unexpected_count") or 0)
            rows = answer.result.get("unexpected_index_list") or []
        return Result(check, bool(answer.success), unexpected, [dict(row) for row in rows])


def _escape_texts(value: Any) -> Any:
    """A result with every text in it written as HTML."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {_escape_texts(key): _escape_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape_texts(item) for item in value]
    return value


def _by_check(answers: Sequence[Any]) -> dict[str, Any]:
    return {answer.expectation_config.meta["check"]: answer for answer in answers}


_BEGIN = "BEGIN TRANSACTION READ ONLY"


class _OpenTransaction:
    """A connection whose transaction goes on, whoever would end it."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def execute(self, *arguments: Any) -> Any:
        try:
            return self._con.execute(*arguments)
        except duckdb.Error:
            # Or all other checks would be said to have failed, too.
            with suppress(duckdb.Error):
                self._con.rollback()
                self._con.execute(_BEGIN)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def begin(self) -> None:
        """Nothing: it has begun."""

    commit = rollback = close = begin


def _open_second_connection(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection to the same databases, with the same one by default."""
    [(catalog,)] = con.execute("SELECT current_catalog()").fetchall()
    second = con.cursor()
    second.execute(f'USE "{catalog}"')
    return second


def _find_message(info: dict[str, Any]) -> str:
    """The message of an exception, in either of the shapes Great Expectations reports it."""
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if isinstance(entry, dict) and entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return ""


@contextmanager
def _silence_great_expectations() -> Iterator[None]:
    """Great Expectations logs and warns about its own parts; a user can do nothing with that."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def describe_result(result: Result, limit: int = 3) -> str:
    """A failed check in one line: the sentence, how many rows break it, the first of them."""
    shown = "; ".join(
        ", ".join(f"{name}={value}" for name, value in row.items() if value is not None)
        for row in result.rows[:limit]
    )
    more = f" and {result.unexpected - limit} more" if result.unexpected > limit else ""
    rows = f" ({shown}{more})" if shown else ""
    remedy = f". {result.check.remedy}" if result.check.remedy else ""
    return f"{result.check.statement} - not so{rows}{remedy}"
