"""What a publication restates of the one before, by how much, and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.project import override_factor
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from flows.sources.gpu import segments
from tests.conftest import T0, grid_csv, runs_csv
from tests.flows.publication.helpers import ask_published

SECOND = (pl.col("ts") - pl.lit(T0)).dt.total_seconds()


def other_grid(project: Settings) -> Settings:
    ingest_grid(project, [grid_csv(project.root, [100, 200, 360, 400])])
    return project


def other_factor(project: Settings) -> Settings:
    override_factor(
        project.root, "country_ewif_l_per_kwh", "world", 2.5, low=2, high=3, source="lab"
    )
    return settings_module.load(project.root)


def other_allocation(project: Settings) -> Settings:
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:10:00Z,node01,all,1"
    ingest_runs(project, [runs_csv(project.root, [row], "later.csv")])
    return project


def other_site(project: Settings) -> Settings:
    path = project.root / "wattledger.toml"
    path.write_text(path.read_text().replace("value = 1.2,", "value = 1.25,"))
    return settings_module.load(project.root)


def more_readings(project: Settings) -> Settings:
    frame = pl.read_parquet(project.root / "node01.parquet")
    moved = frame.filter(SECOND.is_between(400, 500)).with_columns(
        pl.col("ts") + timedelta(milliseconds=500), energy_mj=pl.col("energy_mj") + 3_000_000
    )
    path = project.root / "more.parquet"
    segments.write(moved, path)
    [outcome] = ingest_gpu(project, [path])
    assert outcome.verdict == "loaded", outcome.reason
    return project


@pytest.mark.parametrize(
    ("change", "cause", "figure"),
    [
        (other_grid, "grid", "co2e"),
        (other_factor, "factor country_ewif_l_per_kwh world, grid", "water_offsite"),
        (other_allocation, "allocation of GPUs, run", "energy"),
        (other_site, "site", "facility"),
        (more_readings, "GPU readings", "energy"),
    ],
)
def test_a_restatement_says_by_how_much_and_why(
    change: Any, cause: str, figure: str, published: Settings
) -> None:
    project = change(published)
    compute(project)
    before = publish_id(project)
    done = publish_candidate(project, reason="found in review")
    assert done.changed
    [row] = ask_published(project, "FROM restatement")
    assert (row["run_id"], row["previous_id"]) == ("r1", before)
    assert row["publication_id"] == done.publication_id
    assert row["causes"] == cause
    unit = {"energy": "mj", "facility": "mj", "co2e": "ug"}.get(figure, "ul")
    [now] = ask_published(
        project, f"SELECT {figure}_{unit} AS value FROM run_footprint WHERE run_id = 'r1'"
    )
    assert row[f"{figure}_after_{unit}"] == now["value"] != row[f"{figure}_before_{unit}"]
    [entry] = ask_published(project, "FROM publication WHERE sequence = 2")
    assert entry["reason"] == "found in review"
    text = (project.published / "summary.html").read_text("utf-8")
    assert "Restated" in text
    assert "found in review" in text


def publish_id(project: Settings) -> str:
    return project.published.resolve().name


def test_a_run_that_is_new_or_gone_is_restated_too(published: Settings) -> None:
    row = "r2,2024-05-01T12:15:00Z,2024-05-01T12:20:00Z,node01,all,1"
    ingest_runs(published, [runs_csv(published.root, [row], "more.csv")])
    compute(published)
    publish_candidate(published)
    [new] = ask_published(published, "FROM restatement")
    assert (new["run_id"], new["energy_before_mj"]) == ("r2", None)
    assert new["energy_after_mj"] > 0


def test_a_publication_without_news_restates_nothing(published: Settings) -> None:
    path = published.root / "wattledger.toml"
    path.write_text(path.read_text() + "\n[project]\ntitle = 'Renamed'\n")
    project = settings_module.load(published.root)
    assert publish_candidate(project).changed
    assert ask_published(project, "FROM restatement") == []
    assert "Renamed" in (project.published / "report.html").read_text("utf-8")
