"""A run explained: the arithmetic comes out, to the last digit."""

from __future__ import annotations

import json

import pytest

from flows.accounting.compute import compute
from flows.publication.publish import publish
from flows.reporting.explain import TOTALS, explain_run
from flows.settings import Settings
from flows.settings import load as load_settings
from flows.warehouse.connection import connect
from tests.conftest import wattledger


def test_every_slot_can_be_redone_by_hand(loaded: Settings) -> None:
    """With on-site generation, so that every product is there."""
    path = loaded.root / "wattledger.toml"
    onsite = "host_overhead_w_per_gpu = 250\nonsite = { share = 0.25 }\n"
    path.write_text(path.read_text() + onsite)
    project = load_settings(loaded.root)
    compute(project)
    publish(project)
    con = connect(project.published / "published.duckdb", read_only=True)
    found = explain_run(con, "r1")
    con.close()
    assert len(found["slots"]) == 2
    for slot in found["slots"]:
        assert slot["overhead_mj"] == 250_000 * slot["held_us"] // 1_000_000
        assert slot["it_mj"] == slot["energy_mj"] + slot["overhead_mj"]
        assert slot["facility_mj"] == round(slot["it_mj"] * slot["pue"])
        assert slot["onsite_mj"] == round(slot["facility_mj"] * slot["onsite_share"])
        assert slot["grid_mj"] == slot["facility_mj"] - slot["onsite_mj"]
        assert slot["co2e_ug"] == round(slot["grid_mj"] * (slot["intensity_g_per_kwh"] / 3600))
        assert slot["co2e_scope1_ug"] == round(
            slot["onsite_mj"] * (slot["onsite_g_per_kwh"] / 3600)
        )
        assert slot["water_onsite_ul"] == round(
            slot["it_mj"] * (slot["wue_l_per_kwh"] / 3600)
        ) + round(slot["onsite_mj"] * (slot["onsite_l_per_kwh"] / 3600))
        assert slot["water_offsite_ul"] == round(slot["grid_mj"] * (slot["ewif_l_per_kwh"] / 3600))
    for name in TOTALS:
        assert found["totals"][name] == sum(slot[name] for slot in found["slots"]), name
    assert sum(gpu["energy_mj"] for gpu in found["gpus"]) == found["totals"]["energy_mj"]
    for gpu in found["gpus"]:
        parts = ("counter_mj", "power_integral_mj", "gap_mj", "filled_mj")
        assert gpu["energy_mj"] == sum(gpu[part] for part in parts)
    names = {factor["factor"] for factor in found["factors"]}
    assert {"meter_tolerance", "onsite_g_per_kwh", "server_embodied_kg"} <= names


def test_it_is_told_as_lines_and_as_json(published: Settings) -> None:
    told = wattledger("explain", "r1", "--project", published.root, "--at", "2024-05-01T12:07:00Z")
    assert told.returncode == 0, told.stderr
    assert "2024-05-01 12:05Z at main, zone XX" in told.stdout
    assert "= IT energy x PUE 1.2" in told.stdout
    assert "x 300 g/kWh" in told.stdout
    found = json.loads(wattledger("explain", "r1", "--project", published.root, "--json").stdout)
    assert f"{found['totals']['co2e_ug']:,} ug" in told.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "no run 'nobody' is published. Known: r1"),
        (("r1", "--at", "2024-05-02T00:00:00Z"), "the run has no slot at 2024-05-02 00:00Z"),
    ],
)
def test_what_is_not_there_is_said(words: tuple[str, ...], said: str, published: Settings) -> None:
    done = wattledger("explain", *words, "--project", published.root)
    assert done.returncode == 1
    assert said in done.stderr
