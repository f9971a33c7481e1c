"""ENTSO-E, against a server that answers in its captured form."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from tests.conftest import ask, segment
from tests.grid_server import Server
from tests.provider_projects import describe_provider, fetch, make_provider_project


def test_a_mix_of_several_resolutions_takes_the_finest(
    provider_server: Server, tmp_path: Path
) -> None:
    """6 GW nuclear, 3 GW gas by the hour, 1 GW sun by the quarter: (6*12 + 3*490 + 48) / 10."""
    project = make_provider_project(
        tmp_path / "p", describe_provider("entsoe", provider_server.url)
    )
    fetch(project)
    [mix] = ask(
        project,
        "SELECT count(*) AS n, count(DISTINCT valid_from) AS starts, sum(generation_kw) AS kw FROM grid_mix",
    )
    assert mix == {"n": 3 * 96, "starts": 96, "kw": 96 * 10_000_000}
    ingest_gpu(project, [segment(project.root)])
    compute(project)
    [signal] = ask(project, "SELECT DISTINCT intensity_g_per_kwh AS g FROM slot_signal")
    assert signal["g"] == pytest.approx((6 * 12 + 3 * 490 + 48) / 10)


def test_an_area_that_entsoe_does_not_have_is_named(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("entsoe", provider_server.url, region="ATLANTIS")
    )
    [outcome] = fetch(project)
    assert "ENTSO-E knows no area 'ATLANTIS'" in outcome.reason
