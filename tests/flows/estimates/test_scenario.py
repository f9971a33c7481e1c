"""Scenarios, through the command and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.errors import SettingsError
from flows.estimates.scenario import estimate_scenario, load_scenario
from tests.conftest import wattledger

BOUNDED = (
    "facility_kwh",
    "co2e_kg",
    "co2e_embodied_kg",
    "co2e_total_kg",
    "water_onsite_l",
    "water_offsite_l",
    "water_withdrawal_l",
)


def test_colossus_from_the_bottom_up() -> None:
    process = wattledger("scenario", "colossus", "--json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    power, water = result["public"]
    assert power["ours"] == pytest.approx(150, rel=0.01)
    assert water["ours"] == pytest.approx(1.0, rel=0.01)
    grid, turbines = result["options"]
    day, year, more, _, together, *_ = grid["rows"]
    assert (day["period"], year["period"], more["what"]) == ("a day", "a year", "50,000 H200 more")
    assert year["co2e_kg"] == pytest.approx(365 * day["co2e_kg"])
    assert together["facility_kwh"] == pytest.approx(day["facility_kwh"] + more["facility_kwh"])
    assert together["power_mw"] == pytest.approx(225.7, abs=0.1)
    # 100,000 x 1,275 W x 1.18 x 24 h x 291.5 g/kWh
    assert day["co2e_kg"] == pytest.approx(100_000 * 1.275 * 1.18 * 24 * 0.2915)
    for option in result["options"]:
        for row in option["rows"]:
            for name in BOUNDED:
                head, _, unit = name.rpartition("_")
                assert row[f"{head}_low_{unit}"] <= row[name] <= row[f"{head}_high_{unit}"]
        for inputs in option["inputs"].values():
            assert all(entry["source"] for entry in inputs.values() if entry["high"])
    assert grid["rows"][0]["co2e_scope1_kg"] == 0
    assert turbines["rows"][0]["co2e_scope1_kg"] == pytest.approx(day["facility_kwh"] * 0.5 * 0.561)
    grok = grid["rows"][-2]
    assert (grok["what"], grok["gpus"]) == ("Grok-2 (15,000 H100)", 15_000)
    output = wattledger("scenario", "colossus").stdout
    assert "about 150 MW" in output
    assert "gas turbines on site" in output


def test_any_cluster_can_be_described(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        f'title = "One server"\n{FLEET}'
        '[[site]]\nname = "here"\nzone = "FR"\npue = 1.5\nwue_l_per_kwh = 0\n'
        "host_overhead_w_per_gpu = 100\n[load]\nutilisation = 1\n"
    )
    result = estimate_scenario(*load_scenario(str(path)))
    [option] = result["options"]
    day = option["rows"][0]
    assert day["power_mw"] == pytest.approx(8 * 500e-6 * 1.5)
    assert result["public"] == []


FLEET = '[[fleet]]\nname = "eight"\ngpu = "A100"\ncount = 8\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "title"),
        (f'title = "x"\n{FLEET}', "one [[site]]"),
        (f'title = "x"\nspeed = 3\n{FLEET}', "speed"),
        ('title = "x"\nfleet = []\n', "at least 1"),
        ("title = ", "not valid TOML"),
    ],
)
def test_scenarios_that_make_no_sense_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_scenario(str(path))
    assert message in str(caught.value)
    with pytest.raises(SettingsError, match="colossus"):
        load_scenario("nowhere")
