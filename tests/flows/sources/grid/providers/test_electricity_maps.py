"""Electricity Maps, against a server that answers in its captured form."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from flows.ingest.grid_days import Span
from tests.grid_server import Server
from tests.provider_projects import (
    DAY,
    describe_provider,
    fetch,
    list_values,
    make_provider_project,
)


def test_electricity_maps_marks_its_estimates(provider_server: Server, tmp_path: Path) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    fetch(project)
    assert list_values(project) == [
        (2, "average_lifecycle", 402.0, False, 60.0),
        (3, "average_lifecycle", 403.0, True, 60.0),
    ]


def test_long_spans_are_cut_as_the_provider_wants(provider_server: Server, tmp_path: Path) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    fetch(project, Span(DAY, DAY + timedelta(days=25)))
    spans = [
        datetime.fromisoformat(params["end"]) - datetime.fromisoformat(params["start"])
        for _, params in provider_server.state.asked
    ]
    assert [span.days for span in spans] == [10, 10, 5]
