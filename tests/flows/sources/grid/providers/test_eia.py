"""The EIA, against a server that answers in its captured form."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from flows.ingest.grid_days import Span
from tests.conftest import ask
from tests.grid_server import Server
from tests.provider_projects import DAY, describe_provider, fetch, make_provider_project


def test_eia_pages_and_hours_are_named_by_their_end(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(tmp_path / "p", describe_provider("eia", provider_server.url))
    long = Span(DAY, DAY + timedelta(days=60))
    [outcome] = fetch(project, long)
    assert outcome.verdict == "loaded"
    assert [params["offset"] for _, params in provider_server.state.asked] == ["0", "5000"]
    [mix] = ask(project, "SELECT count(*) AS n, min(valid_from) AS a FROM grid_mix")
    assert mix == {"n": 60 * 24 * 4, "a": DAY}
