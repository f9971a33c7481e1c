"""codecarbon: its history as runs, as a second meter, and its hardware tracking itself."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.ingest.meters import ingest_meter
from flows.ingest.runs import ingest_runs
from flows.publication.gate import check_candidate
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from tests.conftest import ask, make_project, runs_csv

COLUMNS = (
    "timestamp,project_name,run_id,duration,emissions,cpu_energy,gpu_energy,ram_energy,"
    "country_iso_code,codecarbon_version,gpu_count,gpu_model,tracking_mode,pue"
)


def emissions(folder: Path, *lines: str, name: str = "emissions.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return path


def line(
    at: str = "2024-05-01T14:15:00",
    run: str = "u-1",
    seconds: float = 600,
    gpu: str = "0.1",
    *,
    project: str = "train",
    cpu: str = "0.01",
    count: str = "2",
    pue: str = "1.0",
) -> str:
    return f"{at},{project},{run},{seconds},0.05,{cpu},{gpu},0.002,DEU,3.2,{count},{count} x NVIDIA H100 80GB HBM3,machine,{pue}"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")


def test_history_becomes_runs_with_our_carbon_and_water(site: Settings) -> None:
    path = emissions(
        site.root,
        line("2024-05-01T14:10:00", seconds=300, gpu="0.04", cpu="0.005"),
        line("2024-05-01T14:15:00"),
        line("2024-05-01T16:00:00", "u-2", gpu="0", count="0"),
    )
    [outcome] = ingest_runs(site, [path], "Europe/Berlin")
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 3), outcome.reason
    compute(site)
    first, second = ask(site, "FROM run_summary")
    assert (first["run_id"], first["name"], first["gpus"]) == ("u-1", "train", 2)
    assert str(first["started_at"]) == "2024-05-01 12:05:00+00:00"
    assert first["energy_kwh"] == pytest.approx(0.1, abs=1e-9)
    assert first["energy_measured_share"] == 1
    assert first["host_kwh"] == pytest.approx(0.012, abs=1e-9)
    assert first["host_measured_share"] == 0
    assert first["co2e_kg"] == pytest.approx((0.112 * 1.2) * 0.3, rel=1e-6)
    assert (second["gpus"], second["energy_kwh"]) == (0, 0)
    assert second["host_kwh"] == pytest.approx(0.012, abs=1e-9)
    assert publish_candidate(site).changed
    assert [o.verdict for o in ingest_runs(site, [path], "Europe/Berlin")] == ["known"]


def test_a_file_that_grew_adds_what_is_new(site: Settings) -> None:
    first = line("2024-05-01T14:10:00", seconds=300, gpu="0.04")
    ingest_runs(site, [emissions(site.root, first)], "UTC")
    grown = emissions(site.root, first, line("2024-05-01T14:15:00"))
    assert [o.verdict for o in ingest_runs(site, [grown], "UTC")] == ["loaded"]
    compute(site)
    [run] = ask(site, "FROM run_summary")
    assert run["energy_kwh"] == pytest.approx(0.1, abs=1e-9)


def test_energy_is_that_of_the_it_not_of_the_building(site: Settings) -> None:
    ingest_runs(site, [emissions(site.root, line(gpu="0.15", pue="1.5"))], "UTC")
    compute(site)
    [run] = ask(site, "FROM run_summary")
    assert run["energy_kwh"] == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(gpu="lots")], "row 2, column 'gpu_energy', value 'lots'"),
        ([line(gpu="-1")], "row 2, column 'gpu_energy', value '-1'"),
        ([line(seconds=0)], "no time or duration"),
        (
            [line("2024-05-01T14:10:00", seconds=300, gpu="0.2"), line()],
            "the gpu energy of run u-1 goes back",
        ),
        ([line(gpu="500")], "1,500,000 W on average for each GPU"),
        ([line(gpu="0.8")], "counter never rises faster"),
    ],
)
def test_bad_history_is_refused_by_place(site: Settings, lines: list[str], said: str) -> None:
    [outcome] = ingest_runs(site, [emissions(site.root, *lines)], "UTC")
    assert outcome.verdict == "quarantined"
    assert said in outcome.reason
    assert ask(site, "SELECT count(*) AS n FROM training_run") == [{"n": 0}]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "runs"),
    [("codecarbon/emissions.csv", 18), ("runs_codecarbon/nnlandmark_emissions.csv", 1)],
)
def test_real_files_add_up_to_what_they_say(
    site: Settings, data: Path, name: str, runs: int
) -> None:
    path = data / name
    [outcome] = ingest_runs(site, [path], "UTC")
    assert outcome.verdict == "loaded", outcome.reason
    compute(site)
    summary = ask(site, "FROM run_summary")
    last: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        if row["run_id"]:
            last[row["run_id"]] = row
    by_id = {row["run_id"]: row for row in summary}
    assert len(summary) >= len(last)
    assert len(summary) == runs
    for run_id, row in last.items():
        found = by_id[run_id]
        assert found["energy_kwh"] == pytest.approx(float(row["gpu_energy"]), abs=2e-10)
        host = float(row["cpu_energy"]) + float(row["ram_energy"])
        assert found["host_kwh"] == pytest.approx(host, rel=1e-3, abs=2e-9)


def metered(project: Settings, kwh: float) -> Path:
    return emissions(project.root, line(project="r1", gpu=f"{kwh}"), name="meter.csv")


def test_a_second_meter_that_agrees_and_one_that_does_not(loaded: Settings) -> None:
    compute(loaded)
    [ours] = ask(loaded, "SELECT energy_kwh FROM run_summary")
    kwh = float(ours["energy_kwh"])  # type: ignore[arg-type]
    [outcome] = ingest_meter(loaded, [metered(loaded, kwh * 1.02)], "Europe/Berlin")
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 1)
    [row] = ask(loaded, "FROM meter_agreement")
    assert (row["run_id"], row["label"]) == ("r1", "r1")
    assert row["gpu_difference"] == pytest.approx(-0.02 / 1.02, rel=1e-3)
    assert "second_meter_agrees" not in warnings(loaded)
    assert [
        o.verdict for o in ingest_meter(loaded, [metered(loaded, kwh * 1.5)], "Europe/Berlin")
    ] == ["loaded"]
    assert len(ask(loaded, "FROM meter_agreement")) == 1
    assert "second_meter_agrees" in warnings(loaded)
    report = publish_candidate(loaded).report.read_text()
    assert "Second meters" in report


def warnings(project: Settings) -> set[str]:
    compute(project)
    verdicts, _ = check_candidate(project)
    return {r.check.name for v in verdicts for r in v.warnings}


def test_a_second_meter_without_its_run_is_shown_without_one(loaded: Settings) -> None:
    path = emissions(loaded.root, line(project="nobody"), name="meter.csv")
    ingest_meter(loaded, [path], "UTC")
    compute(loaded)
    assert ask(loaded, "SELECT run_id FROM meter_agreement") == [{"run_id": None}]


def test_a_run_table_is_no_second_meter(loaded: Settings) -> None:
    [outcome] = ingest_meter(loaded, [runs_csv(loaded.root, [])], "UTC")
    assert outcome.verdict == "quarantined"
    assert "neither an emissions.csv" in outcome.reason
