"""Fixtures that tests of sources, ingest and orchestration share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.grid_server import Server, grid_server
from tests.provider_projects import DAY, PROVIDERS, build_entsoe_document


@pytest.fixture
def provider_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that answers as all providers do, with their secrets in the environment."""
    for name, secret in PROVIDERS.values():
        if name:
            monkeypatch.setenv(name, secret)
    with grid_server() as running:
        running.state.xml = build_entsoe_document(DAY, 24)
        yield running
