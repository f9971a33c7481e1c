"""Answers as they are kept, and read again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from flows.ingest.grid import ingest_grid
from tests.conftest import ask
from tests.grid_server import Server
from tests.provider_projects import describe_provider, fetch, make_provider_project


def test_an_answer_about_another_time_is_refused(provider_server: Server, tmp_path: Path) -> None:
    provider_server.state.shift = timedelta(days=30)
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    [outcome] = fetch(project)
    assert "the answer is about 2024-05-31" in outcome.reason
    assert "Check the clock of this host" in outcome.reason


def test_the_kept_answers_alone_give_the_same_series(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    fetch(project)
    other = make_provider_project(tmp_path / "other")
    [outcome] = ingest_grid(other, sorted((project.root / "fetched").rglob("*.json")))
    assert outcome.verdict == "loaded"
    columns = "SELECT * EXCLUDE (fetched_at) FROM grid_intensity ORDER BY valid_from"
    assert ask(other, columns) == ask(project, columns)
