"""The Python API: what it reads is what the command line says, and its documentation runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import wattledger as api
from flows.errors import SettingsError, UsageError
from flows.settings import Settings
from tests.conftest import ROOT, make_project, wattledger
from transforms.figures import FIGURES


def test_runs_are_those_of_the_command_line(published: Settings) -> None:
    sql = "SELECT run_id, energy_kwh, co2e_kg, water_onsite_l FROM run_summary"
    printed = json.loads(wattledger("query", sql, "--json", "-p", published.root).stdout)
    ledger = api.open(published.root)
    assert ledger.sql(sql).to_dicts() == printed
    assert (
        ledger.runs().select("run_id", "energy_kwh", "co2e_kg", "water_onsite_l").to_dicts()
        == printed
    )


def test_figures_have_their_bounds_and_units(accounted: Settings) -> None:
    ledger = api.open(accounted.root)
    figures, runs = ledger.figures(), ledger.runs()
    assert figures.height == runs.height * len(FIGURES)
    assert set(figures["unit"]) == {figure.unit.symbol for figure in FIGURES}
    bounded = figures.filter(pl.col("low").is_not_null())
    assert set(bounded["figure"]) == {figure.name for figure in FIGURES if figure.bounded}
    assert bounded.filter(
        (pl.col("low") > pl.col("value")) | (pl.col("high") < pl.col("value"))
    ).is_empty()
    for figure in FIGURES:
        if figure.shown != "no":
            values = figures.filter(figure=figure.name).select("run_id", "value")
            shown = runs.select("run_id", shown=figure.shown_as())
            both = values.join(shown, on="run_id", validate="1:1").drop_nulls()
            assert (both["value"] - both["shown"]).abs().max() in (0, None), figure.name
    assert ledger.figures("main").equals(figures.filter(run_id="main"))


def test_a_series_adds_up_to_its_run(published: Settings) -> None:
    ledger = api.open(published.root)
    hours = ledger.series("r1")
    assert hours["energy_kwh"].sum() == pytest.approx(ledger.runs()["energy_kwh"].item())
    later = ledger.series(start=datetime(2024, 5, 1, 13, tzinfo=UTC))
    earlier = ledger.series(end=datetime(2024, 5, 1, 13, tzinfo=UTC))
    assert earlier.height + later.height == ledger.series().height
    assert earlier.height > 0


def test_an_earlier_publication_and_the_warehouse(republished: Settings) -> None:
    first, last = api.open(republished.root, publication="0001"), api.open(republished.root)
    assert first.publications().height == 1
    assert last.publications().height == 2
    assert first.runs()["co2e_kg"].item() != last.runs()["co2e_kg"].item()
    draft = api.open(republished.root, warehouse=True)
    assert draft.runs().equals(last.runs())
    assert draft.sql("SELECT count(*) AS readings FROM gpu_reading").item() > 0
    assert last.explain("r1")["run"]["run_id"] == "r1"


def test_mistakes_are_sentences(published: Settings, tmp_path: Path) -> None:
    ledger = api.open(published.root)
    for query in ("SELECT co2 FROM run_summary", "FROM read_csv('/etc/passwd')", "DELETE FROM gpu"):
        with pytest.raises(UsageError):
            ledger.sql(query)
    with pytest.raises(UsageError, match="no publication '0007'"):
        api.open(published.root, publication="0007")
    with pytest.raises(UsageError, match="nothing has been published"):
        api.open(make_project(tmp_path / "empty").root)
    with pytest.raises(SettingsError, match=r"no wattledger\.toml"):
        api.open(tmp_path / "nowhere")


def test_importing_wattledger_imports_nothing_heavy() -> None:
    script = "import sys, wattledger; print({'polars', 'duckdb', 'flows'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_documentation_runs(page: str, republished: Settings, tmp_path: Path) -> None:
    (tmp_path / "ledger").symlink_to(republished.root)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
