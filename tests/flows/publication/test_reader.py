"""Statements of readers: one that asks is run, everything else ends in a sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from flows.errors import UsageError
from flows.publication.reader import query_frame
from flows.warehouse.store import FileStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    store = FileStore(tmp_path_factory.mktemp("reader") / "figures.duckdb")
    con = store.connect()
    con.execute("CREATE TABLE run (run_id VARCHAR, site VARCHAR, kg DOUBLE)")
    con.execute("INSERT INTO run VALUES ('r1', 'a', 1), ('r2', 'b', 2)")
    con.close()
    return store


@pytest.mark.parametrize(
    "sql",
    [
        "FROM run",
        "SELECT count(*) FROM run;",
        "WITH r AS (FROM run) SELECT * FROM r -- all",
        "VALUES (1)",
        "TABLE run",
        "SHOW TABLES",
        "DESCRIBE run",
        "SUMMARIZE run",
        "EXPLAIN FROM run",
        "PIVOT run ON site USING sum(kg)",
        "SELECT 'call enable_logging()' AS text, ';' AS query FROM run",
    ],
)
def test_what_asks_is_answered(sql: str, store: FileStore) -> None:
    assert query_frame(store, sql).height


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("", "there is no statement"),
        (" ;; ", "there is no statement"),
        ("-- nothing", "there is no statement"),
        ("SELECT 1; SELECT 2", "there are 2 statements, not one"),
        ("PIVOT run ON site USING sum(kg); CALL enable_logging()", "there are 2 statements"),
        ("CALL enable_logging()", "kind CALL does something"),
        ("SELECT * FROM enable_logging(storage='file', storage_config={'path': '/tmp/x'})", "enable_logging"),
        ('FROM main."Enable_Logging" /* x */ ()', "enable_logging"),
        ("FROM query('FROM enable_' || 'logging(storage=''stdout'')')", r"query\(\) does something"),
        ("SET threads = 1", "kind SET"),
        ("RESET threads", "kind SET"),
        ("PRAGMA enable_profiling", "kind"),
        ("ATTACH '/tmp/other.duckdb'", "kind ATTACH"),
        ("COPY run TO '/tmp/run.csv'", "kind COPY"),
        ("INSTALL httpfs", "kind LOAD"),
        ("LOAD httpfs", "kind LOAD"),
        ("EXPORT DATABASE '/tmp/e'", "kind EXPORT"),
        ("IMPORT DATABASE '/tmp/e'", "Permission"),
        ("CREATE TABLE t (a INTEGER)", "kind CREATE"),
        ("CREATE TYPE t AS ENUM ('a')", "kind CREATE"),
        ("DELETE FROM run", "kind DELETE"),
        ("CHECKPOINT", "kind CALL"),
        ("BEGIN", "kind TRANSACTION"),
        ("USE memory", "kind SET"),
        ("PREPARE q AS SELECT 1", "kind PREPARE"),
        ("EXPLAIN ANALYZE SELEC", "syntax error"),
        ("FROM read_text('/etc/hostname')", "Permission"),
        ("FROM nobody", "does not exist"),
        ("SELECT " + "1+" * 600_000 + "1", "more than 1,000,000 characters"),
        ("SELECT " + "(" * 100_000 + "1" + ")" * 100_000, "."),
        ("SELECT " + ", ".join(f"1 AS a{n}" for n in range(10_001)), "more than 10,000 columns"),
        ("SELECT '\x00", "."),
    ],
)  # fmt: skip
def test_what_does_something_is_refused_in_a_sentence(
    sql: str, sentence: str, store: FileStore
) -> None:
    before = store.path.read_bytes()
    with pytest.raises(UsageError, match=sentence) as caught:
        query_frame(store, sql)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert store.path.read_bytes() == before


def test_an_endless_statement_can_be_stopped(store: FileStore) -> None:
    """By Ctrl-C, as every command."""
    script = (
        "import sys; from pathlib import Path; from flows.cli import main\n"
        "from flows.publication.reader import query_frame\n"
        "from flows.warehouse.store import FileStore\n"
        "sql = 'SELECT count(*) FROM range(1000000000000000)'\n"
        "main.app = lambda **given: query_frame(FileStore(Path(sys.argv[1])), sql)\n"
        "print(flush=True); main.main()\n"
    )
    asked = subprocess.Popen(
        [sys.executable, "-c", script, store.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert asked.stdout is not None
    assert asked.stderr is not None
    asked.stdout.readline()
    for first in (True, *(False,) * 9):
        with suppress(subprocess.TimeoutExpired):
            asked.wait(0.5 if first else 10)
            break
        asked.send_signal(signal.SIGINT)
    asked.kill()
    said = asked.stderr.read().decode()
    assert (asked.returncode, "interrupted" in said) == (130, True), said
