"""Grid data that is revised after figures were published."""

from __future__ import annotations

import pytest

from flows.accounting.compute import compute
from flows.publication.publish import publish_candidate
from flows.publication.status import read_status
from flows.settings import Settings
from tests.conftest import wattledger


def test_status_says_what_a_revision_would_change_and_by_how_much(revised: Settings) -> None:
    [run] = read_status(revised)["revised"]
    assert run["run_id"] == "r1"
    assert run["slots"] == 2  # 12:05 to 12:15
    assert run["co2e_change_kg"] == pytest.approx(run["co2e_kg"] * 60 / 300, rel=1e-6)
    assert run["water_offsite_change_l"] == 0
    told = wattledger("status", "--project", revised.root)
    assert "revised    r1: grid data of 2 slots changed since it was published" in told.stdout
    compute(revised)
    publish_candidate(revised)
    assert read_status(revised)["revised"] == []
