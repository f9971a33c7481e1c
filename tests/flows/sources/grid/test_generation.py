"""Generation per fuel, as providers answer it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import BadInput
from flows.sources.grid.answers import read_answer
from flows.sources.grid.series import Limits
from flows.sources.grid.tables import Options
from tests.provider_projects import DAY


def test_eia_hours_end_where_their_name_says(tmp_path: Path) -> None:
    item = {"period": "2024-05-01T01", "fueltype": "NG", "value": 5, "respondent": "TVA"}
    answer = {"response": {"data": [{**item, "value-units": "megawatthours"}]}}
    data = read_answer(answer, tmp_path / "x.json", Options(), Limits())
    assert data.rows["valid_from"].to_list() == [DAY]
    answer["response"]["data"][0]["fueltype"] = "XYZ"
    with pytest.raises(BadInput, match="'XYZ': unknown energy source"):
        read_answer(answer, tmp_path / "x.json", Options(), Limits())
