"""A run explained: the arithmetic comes out, to the last digit."""

from __future__ import annotations

import json

import pytest

from flows.accounting.compute import compute
from flows.publication.publish import publish_candidate
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
    publish_candidate(project)
    con = connect(project.published_database, read_only=True)
    explanation = explain_run(con, "r1")
    con.close()
    assert len(explanation["slots"]) == 2
    for slot in explanation["slots"]:
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
        assert explanation["totals"][name] == sum(slot[name] for slot in explanation["slots"]), name
    assert (
        sum(gpu["energy_mj"] for gpu in explanation["gpus"]) == explanation["totals"]["energy_mj"]
    )
    for gpu in explanation["gpus"]:
        parts = ("counter_mj", "power_integral_mj", "gap_mj", "filled_mj")
        assert gpu["energy_mj"] == sum(gpu[part] for part in parts)
    names = {factor["factor"] for factor in explanation["factors"]}
    assert {"meter_tolerance", "onsite_g_per_kwh", "server_embodied_kg"} <= names


def test_it_is_told_as_lines_and_as_json(published: Settings) -> None:
    process = wattledger(
        "explain", "r1", "--project", published.root, "--at", "2024-05-01T12:07:00Z"
    )
    assert process.returncode == 0, process.stderr
    assert "2024-05-01 12:05Z at main, zone XX" in process.stdout
    assert "= IT energy x PUE 1.2" in process.stdout
    assert "x 300 g/kWh" in process.stdout
    explanation = json.loads(
        wattledger("explain", "r1", "--project", published.root, "--json").stdout
    )
    assert f"{explanation['totals']['co2e_ug']:,} ug" in process.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nobody",), "no run 'nobody' is published. Known: r1"),
        (("r1", "--at", "2024-05-02T00:00:00Z"), "the run has no slot at 2024-05-02 00:00Z"),
    ],
)
def test_what_is_not_there_is_said(
    words: tuple[str, ...], message: str, published: Settings
) -> None:
    process = wattledger("explain", *words, "--project", published.root)
    assert process.returncode == 1
    assert message in process.stderr
