"""Reporting frames, from a real publication."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.accounting.compute import compute
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.reporting.frames import FRAMES
from flows.reporting.frames.query import Selection, query_reports
from flows.settings import Settings
from flows.warehouse.connection import connect
from tests.conftest import ask, make_project, wattledger


def export(project: Settings, *words: str) -> str:
    process = wattledger("export", *words, "--project", project.root)
    assert process.returncode == 0, process.stderr
    return process.stdout


def entries(project: Settings, frame: str, **selected: Any) -> list[dict[str, dict[str, Any]]]:
    con = connect(project.published_database, read_only=True)
    try:
        reports = query_reports(con, FRAMES[frame], Selection(**selected))
    finally:
        con.close()
    return [{e["field"]: e for e in report["entries"]} for report in reports]


def test_an_inventory_counts_everything_once(accounted: Settings) -> None:
    """Runs, idle and unallocated; low, value and high; each scope as in the ledger."""
    [report] = entries(accounted, "ghg-protocol")
    [total] = ask(
        accounted,
        "SELECT sum(co2e_ug) / 1e12 AS location, sum(co2e_market_ug) / 1e12 AS market, "
        "sum(co2e_embodied_ug) / 1e12 AS embodied, sum(grid_mj) / 3.6e12 AS grid FROM run_footprint",
    )
    assert report["Scope 2, location-based"]["value"] == pytest.approx(total["location"])
    assert report["Scope 2, market-based"]["value"] == pytest.approx(total["market"])
    assert report["Scope 3, category 2: capital goods"]["value"] == pytest.approx(total["embodied"])
    assert report["Electricity from the grid"]["value"] == pytest.approx(total["grid"])
    for entry in report.values():
        if entry["low"] is not None:
            assert entry["low"] <= entry["value"] <= entry["high"]


def test_data_points_that_the_ledger_cannot_know_are_empty(accounted: Settings) -> None:
    [report] = entries(accounted, "esrs")
    empty = {name for name, entry in report.items() if entry["value"] is None}
    assert len(empty) == 2
    assert all("Not in the ledger" in report[name]["remark"] for name in empty)
    assert (
        report["E1-6 §52 (a): total, location-based"]["value"]
        > report["E1-6 §49 (a): gross scope 2, location-based"]["value"]
    )


def test_a_period_and_what_lies_outside(accounted: Settings) -> None:
    [whole] = entries(accounted, "ghg-protocol")
    text = export(accounted, "ghg-protocol", "--from", "2024-05-01", "--to", "2024-05-01", "--json")
    day = json.loads(text)
    assert day["publication_id"].startswith("0001-")
    energy = next(
        e for e in day["reports"][0]["entries"] if e["field"] == "Electricity from the grid"
    )
    assert energy["value"] == whole["Electricity from the grid"]["value"]
    process = wattledger(
        "export", "ghg-protocol", "--from", "2030-01-01", "--project", accounted.root
    )
    assert process.returncode == 1
    assert "nothing is published for that period" in process.stderr
    process = wattledger("export", "ghg-protocol", "--run", "main", "--project", accounted.root)
    assert "--run makes no sense here: it is one report a period" in process.stderr
    assert "One of: ghg-protocol" in wattledger("export", "x", "--project", accounted.root).stderr


def test_the_energy_of_a_model_with_its_failures(accounted: Settings) -> None:
    [report] = entries(accounted, "eu-ai-act", family="llm")
    [total] = ask(
        accounted,
        "SELECT sum(facility_kwh) / 1000 AS mwh, sum(gpu_hours) AS hours FROM run_summary "
        "WHERE family = 'llm'",
    )
    assert report["2 (e): energy consumption of the model"]["value"] == pytest.approx(total["mwh"])
    assert report["2 (d): computational resources"]["value"] == pytest.approx(total["hours"])
    completed = report["2 (e): of it final training runs that completed"]["value"]
    assert 0 < completed < total["mwh"]
    # From the start of the experiment to the end of the restart.
    assert report["2 (d): training time"]["value"] == pytest.approx(20 / 60)


def test_a_model_card_block_is_yaml(accounted: Settings) -> None:
    text = export(accounted, "hugging-face", "--run", "main")
    block = yaml.safe_load(text)["co2_eq_emissions"]
    [run] = ask(accounted, "FROM run_summary WHERE run_id = 'main'")
    assert block["emissions"] == pytest.approx(run["co2e_kg"] * 1000, rel=1e-5)
    assert block["source"].startswith("Wattledger 0.1.0, 0001-")
    assert block["training_type"] == "pre-training"
    assert block["geographical_location"] == "XX"
    assert block["hardware_used"].startswith("2 x ")


def test_emissions_csv_has_codecarbons_columns_and_reads_back(
    accounted: Settings, tmp_path: Path
) -> None:
    from codecarbon.output_methods.emissions_data import EmissionsData

    text = export(accounted, "codecarbon")
    table = list(csv.DictReader(io.StringIO(text)))
    assert list(table[0]) == [field.name for field in fields(EmissionsData)]
    # Into another ledger, by the reader of codecarbon's own files.
    other = make_project(tmp_path / "other", "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")
    path = other.root / "emissions.csv"
    path.write_text(text)
    [outcome] = ingest_runs(other, [path], tz="UTC")
    assert outcome.verdict == "loaded", outcome.reason
    compute(other)
    again = {r["name"]: r for r in ask(other, "FROM run_summary")}
    for run in ask(accounted, "FROM run_summary"):
        assert again[run["run_id"]]["energy_kwh"] == pytest.approx(run["energy_kwh"], rel=1e-6)
        assert again[run["run_id"]]["co2e_kg"] == pytest.approx(run["co2e_kg"], rel=1e-4)


def test_every_frame_prints_for_people_and_as_csv(accounted: Settings) -> None:
    for name, frame in FRAMES.items():
        if frame.form != "csv":
            assert frame.entries[0].field in export(accounted, name)
    lines = export(accounted, "esrs", "--csv").splitlines()
    assert lines[0] == "subject,field,value,low,high,unit,remark"
    assert len(lines) == 1 + len(FRAMES["esrs"].entries)


def test_names_from_outside_are_data_in_every_form(accounted: Settings) -> None:
    """A name that is a formula, a second YAML key, a tag and a broken quote."""
    name = '=1+1"\n<script>alert(1)</script>\nowner: root'
    path = accounted.root / "evil.json"
    run = {
        "run_id": name,
        "name": "@SUM(A1)",
        "started_at": "2024-05-01T12:20:00Z",
        "ended_at": "2024-05-01T12:25:00Z",
        "labels": {"family": "=cmd()"},
        "allocations": [{"host": "node01", "gpu": "0"}],
    }
    path.write_text(json.dumps({"runs": [run]}))
    [outcome] = ingest_runs(accounted, [path])
    assert outcome.verdict == "loaded", outcome.reason
    compute(accounted)
    publish_candidate(accounted)
    card = yaml.safe_load(export(accounted, "hugging-face", "--run", name))
    assert card.keys() == {"co2_eq_emissions"}
    table = list(csv.DictReader(io.StringIO(export(accounted, "codecarbon", "--run", name))))
    assert table[0]["run_id"] == f"'{name}"
    assert (table[0]["project_name"], table[0]["experiment_id"]) == ("'@SUM(A1)", "'=cmd()")
    acts = list(csv.DictReader(io.StringIO(export(accounted, "eu-ai-act", "--csv"))))
    assert "'=cmd()" in {row["subject"] for row in acts}
    page = (accounted.published / "report.html").read_text()
    assert "<script" not in page
