"""The report in a real browser: offline, harmless, and showing what was published."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from selenium.webdriver.common.print_page_options import PrintOptions

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.gate import check_candidate
from flows.reporting.report.render import write_report
from flows.sources.gpu import segments
from tests.conftest import grid_csv, make_project, segment


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,2400",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


pytestmark = pytest.mark.browser


def text(browser: Any, css: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", css)]


def test_the_summary_is_one_page(browser: Any, demo: Path) -> None:
    """A4, with everything that was checked on it."""
    browser.get((demo / "published/summary.html").resolve().as_uri())
    checks = text(browser, "ul.checks li")
    con = duckdb.connect(str(demo / "published/published.duckdb"), read_only=True)
    statements = con.execute("SELECT statement FROM validation_result").fetchall()
    con.close()
    assert len(checks) == len(statements) > 50
    assert all(any(statement in check for check in checks) for (statement,) in statements)
    assert browser.find_element("css selector", ".sample").text.startswith("Sample data")
    page = PrintOptions()
    page.set_page_size(PrintOptions.A4)
    pdf = base64.b64decode(browser.print_page(page))
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_the_report_opens_offline_and_shows_the_runs(browser: Any, demo: Path) -> None:
    browser.get((demo / "published/report.html").resolve().as_uri())
    assert browser.find_element("css selector", ".sample").text.startswith("Sample data")
    names = text(browser, "section:nth-of-type(1) tbody b")
    assert names == [
        "llm-7b-pretrain",
        "ablation-a",
        "ablation-b",
        "vision-base",
        "llm-7b-finetune",
        "eval-nightly",
    ]
    charts = browser.find_elements("css selector", "figure svg")
    assert len(charts) == 8
    assert all(c.size["width"] > 200 and c.size["height"] > 60 for c in charts)
    assert "0 mJ" in text(browser, "td.ok")
    # Nothing asked for from anywhere, no script, no error.
    resources = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert resources == []
    assert browser.find_elements("css selector", "script, iframe, object") == []
    assert browser.get_log("browser") == []
    width = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert width <= 0


def test_data_docs_are_readable_offline(browser: Any, demo: Path) -> None:
    browser.get((demo / "published/data_docs/index.html").resolve().as_uri())
    assert text(browser, "td:nth-child(2) a:first-child") == [
        "readings",
        "runs",
        "slot_signal",
        "footprint",
        "restatement",
        "grain",
    ]
    browser.find_element("link text", "footprint").click()
    assert "Metered energy = attributed + idle + unallocated" in browser.page_source
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_names_from_outside_are_only_text(browser: Any, demo_copy: Path, tmp_path: Path) -> None:
    nasty = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\"';--"
    database = tmp_path / "p.duckdb"
    shutil.copyfile(demo_copy / "published/published.duckdb", database)
    con = duckdb.connect(str(database))
    for table in (
        "training_run",
        "run_footprint",
        "energy_slot",
        "footprint_slot",
        "run_allocation",
    ):
        con.execute(f"UPDATE {table} SET run_id = ? WHERE run_id = 'vision-base'", [nasty])
    con.execute("UPDATE training_run SET name = ?, owner = ?", [nasty, nasty])
    con.execute("UPDATE segment SET source_name = ?", [nasty])
    con.execute("UPDATE publication SET reason = ?", [nasty])
    con.execute(
        "INSERT INTO gate_override SELECT publication_id, ?, ?, ?, ?, 1, now() FROM publication",
        [nasty] * 4,
    )
    con.execute(
        "INSERT INTO restatement BY NAME SELECT publication_id, publication_id AS previous_id, "
        "? AS run_id, ? AS causes FROM publication",
        [nasty] * 2,
    )
    con.execute(
        "UPDATE validation_result SET success = false, examples = ?", [json.dumps([{nasty: nasty}])]
    )
    con.close()
    settings = settings_module.load(demo_copy)
    settings.project.title = nasty
    write_report(database, tmp_path, settings)
    for name, where in (
        ("report", "section:nth-of-type(1) tbody b"),
        ("summary", "table.overrides tbody td, table.restated tbody td"),
    ):
        browser.get((tmp_path / f"{name}.html").as_uri())
        assert "owned" not in browser.title.replace(nasty, "")
        assert browser.find_elements("css selector", "script, img") == []
        assert nasty in text(browser, where)


_OUR_WORDS = frozenset(
    [
        "kind",
        "event",
        "method_version",
        "instrument",
        "matching",
        "factor",
        "unit",
        "origin",
        "table_name",
        "outcome",
        "suite",
        "check_name",
        "severity",
        "section",
        "value_json",
        "collector",
        "labels",
        "record",
        "examples",
        "rung",
        "quantity",
        "limit_from",
        "source_format",
        "verdict",
        "input",
        "signal",
        "ladder",
        "weekdays",
        "tz",
    ]
)
"""Columns whose texts are words of Wattledger's own, or JSON: they come from nobody else."""


def test_markup_in_any_text_of_a_publication_is_only_text(
    browser: Any, demo_copy: Path, tmp_path: Path
) -> None:
    """Every name in every table, whoever wrote it: rows still belong together, as all of them carry the same markup."""
    database = tmp_path / "p.duckdb"
    shutil.copyfile(demo_copy / "published/published.duckdb", database)
    con = duckdb.connect(str(database))
    texts = con.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' "
        "AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE NOT internal)"
    ).fetchall()
    for table, column in texts:
        if column not in _OUR_WORDS:
            con.execute(f'UPDATE "{table}" SET "{column}" = "{column}" || ?', [MARKUP])
    con.close()
    write_report(database, tmp_path, settings_module.load(demo_copy))
    for name in ("report", "summary"):
        browser.get((tmp_path / f"{name}.html").as_uri())
        assert "owned" not in browser.title.replace(MARKUP, "")
        assert browser.find_elements("css selector", "script, img, iframe, object") == []
        assert browser.find_element("css selector", "body").text.count(MARKUP) >= 10
        assert browser.find_elements("css selector", "a[href^='javascript']") == []


MARKUP = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<a href=\"javascript:document.title='owned'\">x</a><h1>All checks passed</h1><!-- \"';--"
)


def test_names_in_data_docs_are_only_text(browser: Any, tmp_path: Path) -> None:
    """From real files to the pages that Great Expectations writes: what a check names is shown as it is written."""
    project = make_project(tmp_path / "project")
    readings = pl.read_parquet(segment(tmp_path)).filter(
        # A gap, and boards that nobody knows, are what checks warn of by name.
        ~pl.col("ts").dt.minute().is_between(20, 22)
    )
    names = [pl.concat_str(pl.lit(MARKUP), name).alias(name) for name in ("gpu_uuid", "model")]
    segments.write(
        readings.with_columns(*names, power_limit_mw=pl.lit(None, pl.Int32)),
        tmp_path / "nasty.parquet",
    )
    run = {
        "run_id": MARKUP,
        "name": MARKUP,
        "owner": MARKUP,
        "started_at": "2024-05-01T12:02:00Z",
        "ended_at": "2024-05-01T13:05:00Z",
        "host": "node01",
        "gpu": "all",
        "labels": {MARKUP: MARKUP, "family": MARKUP},
    }
    (tmp_path / "runs.json").write_text(json.dumps([run]))
    for outcomes in (
        ingest_gpu(project, [tmp_path / "nasty.parquet"]),
        ingest_grid(project, [grid_csv(tmp_path, [100, 200, 300, 400])]),
        ingest_runs(project, [tmp_path / "runs.json"]),
    ):
        assert outcomes[0].verdict == "loaded", outcomes[0].reason
    compute(project)
    project.gate.max_run_days = 0.001
    _, docs = check_candidate(project)
    shown = 0
    for page in sorted(docs.rglob("*.html")):
        browser.get(page.resolve().as_uri())
        shown += browser.find_element("css selector", "body").text.count(MARKUP)
        assert browser.title != "owned"
        assert browser.find_elements("css selector", "script, img, iframe, object, h1 + h1") == []
        links = [a.get_attribute("href") for a in browser.find_elements("css selector", "a[href]")]
        assert all(link.startswith("file:///") for link in links), links
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert shown >= 2
