"""Embodied carbon, withdrawal, cost, families and SCI, in a real warehouse."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import SettingsError
from flows.publication.recompute import recompute_publication
from flows.settings import Settings
from tests.conftest import ask, make_project


def test_embodied_by_the_time_held(accounted: Settings) -> None:
    """Two GPUs to the server: 150 kg + 2,500 kg / 2 each, over 6 years of which 85 % are used."""
    per_hour_kg = (150 + 1250) / (6 * 8766 * 0.85)
    [model] = ask(accounted, "SELECT DISTINCT model FROM gpu")
    if "H100" in model["model"]:
        per_hour_kg = (164 + 1250) / (6 * 8766 * 0.85)
    found = {r["run_id"]: r for r in ask(accounted, "FROM run_summary")}
    assert found["main"]["co2e_embodied_kg"] == pytest.approx(per_hour_kg * 2 / 6, rel=1e-5)
    assert found["probe"]["co2e_embodied_kg"] == pytest.approx(per_hour_kg / 12, rel=1e-5)
    assert (
        ask(accounted, "SELECT gpus_per_server FROM gpu_embodied") == [{"gpus_per_server": 2}] * 2
    )
    idle = "SELECT co2e_embodied_ug AS ug FROM run_footprint WHERE kind = 'idle'"
    assert ask(accounted, idle) == [{"ug": 0}]
    used = ask(accounted, "SELECT factor FROM factor_use WHERE run_id = 'main'")
    assert {"gpu_embodied_kg", "server_embodied_kg"} <= {row["factor"] for row in used}


def test_total_is_the_sum_of_its_scopes(accounted: Settings) -> None:
    for run in ask(accounted, "FROM run_summary"):
        parts = (
            run["co2e_scope1_kg"],
            run["co2e_kg"],
            run["co2e_losses_kg"],
            run["co2e_embodied_kg"],
        )
        assert run["co2e_total_kg"] == pytest.approx(sum(parts))
        assert run["co2e_total_low_kg"] <= run["co2e_total_kg"] <= run["co2e_total_high_kg"]


def test_withdrawal_and_cost(accounted: Settings) -> None:
    """12:05 to 12:15 UTC is 14:05 in Berlin, the dear hour."""
    [run] = ask(accounted, "FROM run_summary WHERE run_id = 'main'")
    assert run["water_withdrawal_l"] == pytest.approx(
        run["water_onsite_l"] * 1.25 + run["grid_kwh"] * 50, rel=1e-4
    )
    assert (run["currency"], run["priced_share"]) == ("USD", 1.0)
    assert run["cost"] == pytest.approx(run["facility_kwh"] * 0.5, abs=2e-6)


def test_a_family_with_its_experiments_and_failures(accounted: Settings) -> None:
    found = ask(accounted, "SELECT family, phase, outcome, runs, family_share FROM family_summary")
    shares = {(r["family"], r["phase"], r["outcome"]): r["family_share"] for r in found}
    assert shares.keys() == {
        ("llm", "training", "completed"),
        ("llm", "training", "stopped"),
        ("llm", "development", "failed"),
        (None, "training", "unknown"),
    }
    assert sum(share for key, share in shares.items() if key[0] == "llm") == pytest.approx(1)


def test_sci_and_a_unit_without_a_number(accounted: Settings) -> None:
    found = {r["run_id"]: r for r in ask(accounted, "FROM run_summary")}
    main = found["main"]
    per_token = (main["co2e_kg"] + main["co2e_embodied_kg"]) * 1000 / 2e6
    assert main["sci_g_per_unit"] == pytest.approx(per_token)
    assert found["restart"]["sci_g_per_unit"] is None
    [check] = ask(accounted, "FROM validation_result WHERE check_name = 'functional_units_count'")
    assert (check["success"], check["severity"]) == (False, "warn")
    assert "restart" in check["examples"]


def test_idle_energy_is_spread_whole(accounted: Settings) -> None:
    [spread] = ask(accounted, "SELECT sum(idle_facility_kwh) AS kwh FROM idle_spread")
    [idle] = ask(
        accounted, "SELECT sum(facility_kwh) AS kwh FROM fleet_summary WHERE kind <> 'run'"
    )
    assert spread["kwh"] == pytest.approx(idle["kwh"])
    assert idle["kwh"] > 0


def test_a_publication_with_tariffs_is_recomputed_alike(accounted: Settings) -> None:
    assert recompute_publication(accounted, "0001").identical


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ('[[tariff]]\nsite = "mars"\nprice_per_kwh = 1\n', "names no"),
        ('[[tariff]]\nsite = "main"\nprice_per_kwh = 1\ntz = "Mars/Base"\n', "no time zone"),
        ('[[tariff]]\nsite = "main"\nprice_per_kwh = 1\nweekdays = []\n', "at least one hour"),
    ],
)
def test_tariffs_that_make_no_sense_are_refused(extra: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        make_project(tmp_path / "p", extra)
