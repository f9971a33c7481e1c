"""The UK Carbon Intensity API, against a server that answers in its captured form."""

from __future__ import annotations

from pathlib import Path

from tests.grid_server import Server
from tests.provider_projects import describe_provider, fetch, list_values, make_provider_project


def test_uk_intensity_is_direct_and_an_unmeasured_half_hour_a_forecast(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p",
        describe_provider("uk-carbon-intensity", provider_server.url),
        signal="average_direct",
    )
    fetch(project)
    assert list_values(project) == [
        (2, "average_direct", 400.0, False, 30.0),
        (3, "average_direct", 266.0, True, 30.0),
    ]
    regional = make_provider_project(
        tmp_path / "r",
        describe_provider("uk-carbon-intensity", provider_server.url, region="13"),
        signal="average_direct",
    )
    fetch(regional)
    assert {row[3] for row in list_values(regional)} == {True}
    assert provider_server.state.asked[-1][0].endswith("/regionid/13")


def test_uk_intensity_is_refused_where_life_cycle_is_wanted(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("uk-carbon-intensity", provider_server.url)
    )
    [outcome] = fetch(project)
    assert "gives average_direct, but zone 'XX' uses average_lifecycle" in outcome.reason
    assert provider_server.state.asked == []
