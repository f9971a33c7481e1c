"""What can be found wrong in a second is said before any reading is reduced."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.errors import WattledgerError
from flows.ingest.gpu import ingest_gpu
from flows.settings import load
from tests.conftest import ask, make_project, segment

SITE = '[[site]]\nname = "{name}"\nzone = "{zone}"\nhosts = ["{hosts}"]\n{more}\n'
COUNTRY = '[zones.{zone}]\ncountry = "DE"\n'


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (SITE.format(name="a", zone="ZZ", hosts="*", more=""), "zone 'ZZ' has no grid data"),
        (
            COUNTRY.format(zone="YY") + SITE.format(name="a", zone="YY", hosts="other*", more=""),
            "host 'node01' belongs to no site",
        ),
        (
            COUNTRY.format(zone="YY")
            + SITE.format(name="a", zone="YY", hosts="*", more="valid_from = 2024-05-01T12:10:00Z"),
            "site 'a' is not described for 2024-05-01T12:00Z",
        ),
        (
            COUNTRY.format(zone="YY")
            + SITE.format(name="a", zone="YY", hosts="*", more="")
            + '[[contract]]\nname = "c"\nsite = "a"\ninstrument = "ppa"\ndeliveries = "none.csv"\n'
            "valid_from = 2024-01-01T00:00:00Z\nvalid_to = 2025-01-01T00:00:00Z\n",
            "cannot read the deliveries of contract 'c'",
        ),
    ],
    ids=["zone", "host", "site period", "contract"],
)
def test_it_is_said_before_the_work(tmp_path: Path, toml: str, message: str) -> None:
    folder = tmp_path / "project"
    project = make_project(folder)
    (folder / "wattledger.toml").write_text(toml)
    project = load(folder)
    assert ingest_gpu(project, [segment(tmp_path)])[0].verdict == "loaded"
    with pytest.raises(WattledgerError, match=message):
        compute(project)
    assert ask(project, "SELECT count(*) AS n FROM segment_piece") == [{"n": 0}]
