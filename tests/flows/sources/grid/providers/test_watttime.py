"""WattTime, against a server that answers in its captured form."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flows.ingest.grid_days import Span
from tests.grid_server import Server
from tests.provider_projects import (
    DAY,
    describe_provider,
    fetch,
    list_values,
    make_provider_project,
)


def test_watttime_is_marginal_and_in_grams(provider_server: Server, tmp_path: Path) -> None:
    """1 lb/MWh = 0.45359237 g/kWh."""
    project = make_provider_project(
        tmp_path / "p", describe_provider("watttime", provider_server.url)
    )
    fetch(project)
    assert list_values(project)[0] == (2, "marginal", pytest.approx(400 * 0.45359237), False, 5.0)


def test_a_token_that_ends_between_two_pages_is_renewed(
    provider_server: Server, tmp_path: Path
) -> None:
    provider_server.state.expires_after = 2
    project = make_provider_project(
        tmp_path / "p", describe_provider("watttime", provider_server.url)
    )
    [outcome] = fetch(project, Span(DAY, DAY + timedelta(days=90)))
    assert outcome.verdict == "loaded"
    assert provider_server.state.logins >= 2
