"""Projects in states that several tests of publications begin with."""

from __future__ import annotations

import pytest

from flows.accounting.compute import compute
from flows.ingest.grid import ingest_grid
from flows.publication.publish import publish_candidate
from flows.publication.status import read_status
from flows.settings import Settings
from tests.conftest import grid_csv


@pytest.fixture
def revised(loaded: Settings) -> Settings:
    """Published at 300 g/kWh (12:00 to 12:30); later the provider says 360."""
    compute(loaded)
    publish_candidate(loaded)
    assert read_status(loaded)["revised"] == []
    ingest_grid(loaded, [grid_csv(loaded.root, [100, 200, 360, 400])])
    return loaded
