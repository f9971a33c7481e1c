"""Generation per fuel, as providers answer it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import BadInput
from flows.sources.grid import generation
from tests.provider_projects import DAY


def test_eia_hours_end_where_their_name_says(tmp_path: Path) -> None:
    item = {"period": "2024-05-01T01", "fueltype": "NG", "value": 5, "respondent": "TVA"}
    answer = {"response": {"data": [{**item, "value-units": "megawatthours"}]}}
    frame = generation.read_eia_answer(answer, tmp_path / "x.json", "", "")
    assert frame["valid_from"].to_list() == [DAY]
    answer["response"]["data"][0]["fueltype"] = "XYZ"
    with pytest.raises(BadInput, match="unknown energy source 'XYZ'"):
        generation.read_eia_answer(answer, tmp_path / "x.json", "", "")
