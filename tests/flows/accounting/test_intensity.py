"""From the best tier that covers a slot to the figures, through a real warehouse."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import BadInput, GateFailed, SettingsError
from flows.factors import find_value, list_shipped_factors, read_country_mix, read_factors
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.project import override_factor
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import T0, ask, make_project, runs_csv, segment, wattledger
from transforms.schema import TABLES

HELD = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"


def project_of(folder: Path, zone: str = "DE", extra: str = "", site: str = "") -> Settings:
    """A run of ten minutes from 12:05 in a zone without any grid data."""
    project = make_project(folder)
    toml = project.root / "wattledger.toml"
    text = toml.read_text().replace('"XX"', f'"{zone}"')
    toml.write_text(f"{text}{site}\n{extra}")
    project = settings_module.load(folder)
    ingest_gpu(project, [segment(folder)])
    ingest_runs(project, [runs_csv(folder, [HELD])])
    return project


def series(folder: Path, zone: str, rows: list[tuple[int, float]], name: str = "s.csv") -> Path:
    """Hourly intensities; hours count from T0."""
    lines = [f"{zone},{(T0 + timedelta(hours=h)).isoformat()},{value}" for h, value in rows]
    path = folder / name
    path.write_text("\n".join(["zone,valid_from,intensity_g_per_kwh", *lines]) + "\n")
    return path


def sources(project: Settings, quantity: str = "intensity") -> dict[str, float]:
    found = ask(
        project,
        "SELECT rung, sum(energy_share) AS share FROM intensity_sources "
        f"WHERE quantity = '{quantity}' GROUP BY 1",
    )
    return {row["rung"]: row["share"] for row in found}


def figures(project: Settings) -> dict[str, Any]:
    compute(project)
    return ask(project, "FROM run_summary")[0]


def test_a_project_without_grid_data_uses_its_country_and_says_so(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", "US-TVA")
    run = figures(project)
    mean = find_value(read_factors(project), "country_lifecycle_g_per_kwh", "US")
    assert run["co2e_kg"] == pytest.approx(run["grid_kwh"] * mean / 1000, rel=1e-6)
    assert run["co2e_measured_share"] == 0
    assert sources(project) == {"country_year": 1.0}
    assert sources(project, "ewif") == {"country_year": 1.0}
    done = publish_candidate(project)
    assert any("no_fallback" in warning for warning in done.warnings)


def test_the_country_mean_is_its_mix_by_the_factors_per_fuel() -> None:
    """Germany 2023, by hand from the shipped tables."""
    fuels = {f.scope: f.value for f in list_shipped_factors() if f.factor == "lifecycle_g_per_kwh"}
    mix = read_country_mix().filter(country="DE")
    total = mix["generation_gwh"].sum()
    by_hand = (
        sum(g * fuels[fuel] for fuel, g in mix.select("fuel", "generation_gwh").rows()) / total
    )
    found = find_value(read_factors(Settings()), "country_lifecycle_g_per_kwh", "DE")
    assert found == pytest.approx(by_hand)
    assert 300 < found < 420


def test_a_country_can_be_named_and_the_world_too(tmp_path: Path) -> None:
    for country, tier in (("FR", "country_year"), ("world", "world")):
        extra = f'[zones.CAISO_NORTH]\ncountry = "{country}"\n'
        project = project_of(tmp_path / country, "CAISO_NORTH", extra)
        run = figures(project)
        mean = find_value(read_factors(project), "country_lifecycle_g_per_kwh", country)
        assert run["co2e_kg"] == pytest.approx(run["grid_kwh"] * mean / 1000, rel=1e-6)
        assert sources(project) == {tier: 1.0}


def test_a_zone_of_no_country_and_no_data_is_most_likely_a_slip(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", "DEE")
    with pytest.raises(BadInput, match=r"zone 'DEE' has no grid data.*zones.DEE.country"):
        compute(project)


def test_tiers_share_a_run_and_each_says_how_much(tmp_path: Path) -> None:
    """The series ends at 12:10; a fallback from wattledger.toml takes the second half."""
    project = project_of(tmp_path / "p", "XX", "[zones.XX]\nfallback_intensity_g_per_kwh = 500\n")
    path = tmp_path / "s.csv"
    path.write_text(
        "zone,valid_from,valid_to,intensity_g_per_kwh\n"
        "XX,2024-05-01T12:00:00Z,2024-05-01T12:05:00Z,100\n"
        "XX,2024-05-01T12:05:00Z,2024-05-01T12:10:00Z,100\n"
    )
    ingest_grid(project, [path])
    figures(project)
    shares = sources(project)
    assert set(shares) == {"live", "configured"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["live"] == pytest.approx(0.5, abs=0.05)


def test_a_week_of_history_gives_a_typical_profile(tmp_path: Path) -> None:
    """Eight days of a series that is 100 + 10 x hour; then it stops, months before the run."""
    project = project_of(tmp_path / "p")
    rows = [(h - 2400, 100.0 + 10 * ((h + 12) % 24)) for h in range(8 * 24)]
    ingest_grid(project, [series(project.root, "DE", rows)])
    run = figures(project)
    assert sources(project) == {"profile": 1.0}
    assert run["co2e_kg"] == pytest.approx(run["grid_kwh"] * 0.220, rel=1e-6)  # 12:05 to 12:15
    [said] = ask(project, "SELECT DISTINCT source FROM slot_source WHERE rung = 'profile'")
    assert "mean of this hour of the day" in said["source"]


def test_a_ladder_of_series_alone_leaves_the_rest_open(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", extra='[grid]\nladder = ["live", "cached"]\n')
    with pytest.raises(GateFailed, match="carbon_covered"):
        publish_after(project)
    limited = project_of(tmp_path / "q", extra="[gate]\nmax_fallback_share = 0.5\n")
    with pytest.raises(GateFailed, match="not_too_much_fallback"):
        publish_after(limited)


def publish_after(project: Settings) -> None:
    compute(project)
    publish_candidate(project)


def test_an_override_is_visible_in_every_figure_that_used_it(tmp_path: Path) -> None:
    extra = '[factors.lifecycle_g_per_kwh]\ngas = { value = 400, low = 390, high = 500, source = "ours" }\n'
    project = project_of(tmp_path / "p", extra=extra)
    plain = project_of(tmp_path / "plain")
    ours, theirs = figures(project), figures(plain)
    assert ours["overrides"] == "lifecycle_g_per_kwh gas"
    assert theirs["overrides"] is None
    assert ours["co2e_kg"] < theirs["co2e_kg"]
    publish_after(project)
    page = (project.published / "report.html").read_text()
    assert "own factors: lifecycle_g_per_kwh gas" in page
    # A run that rests on a series does not use the factor.
    ingest_grid(project, [series(project.root, "DE", [(0, 300.0), (1, 300.0)])])
    assert figures(project)["overrides"] is None


def test_factors_are_listed_shown_and_overridden_by_command(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    at = ("--project", project.root)
    told = wattledger("factors", "list", "ewif*", *at, "--json")
    assert {f["factor"] for f in json.loads(told.stdout)} == {"ewif_l_per_kwh"}
    assert wattledger("factors", "list", "nonsense*", *at).returncode == 1
    words = ("factors", "override", "pue", "default", "1.2", "--low", "1.1", "--high", "1.4")
    done = wattledger(*words, "--source", 'our "meter"', *at)
    assert done.returncode == 0, done.stderr
    shown = json.loads(wattledger("factors", "show", "pue", "default", *at, "--json").stdout)
    assert (shown["value"], shown["origin"], shown["source"]) == (1.2, "override", 'our "meter"')
    assert shown["shipped"]["value"] == 1.58
    assert "overridden already" in wattledger(*words, "--source", "x", *at).stderr
    before = (project.root / "wattledger.toml").read_bytes()
    wrong = wattledger("factors", "override", "pue", "b", "1.5", "--low", "2", "--source", "x", *at)
    assert wrong.returncode == 1
    assert "low <= value <= high" in wrong.stderr
    assert (project.root / "wattledger.toml").read_bytes() == before
    with pytest.raises(SettingsError, match="no factor is called"):
        override_factor(project.root, "nothing", "x", 1.2, low=1.2, high=1.2, source="s")


def test_a_site_can_be_described_by_operator_server_and_plant(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    make_project(folder)
    (folder / "wattledger.toml").write_text(
        '[[site]]\nname = "main"\nzone = "US-TVA"\nlike = "us-texas"\nserver = "DGX-H100"\n'
        'onsite = { share = { value = 0.4, low = 0.3, high = 0.5 }, plant = "gas_turbine" }\n'
    )
    project = settings_module.load(folder)
    ingest_gpu(project, [segment(folder)])
    ingest_runs(project, [runs_csv(folder, [HELD])])
    run = figures(project)
    assert run["facility_kwh"] == pytest.approx(run["it_kwh"] * 1.307, rel=1e-6)
    assert run["onsite_kwh"] == pytest.approx(0.4 * run["facility_kwh"], rel=1e-6)
    turbine = find_value(read_factors(project), "onsite_g_per_kwh", "gas_turbine")
    assert run["co2e_scope1_kg"] == pytest.approx(run["onsite_kwh"] * turbine / 1000, rel=1e-6)
    used = ask(project, "SELECT factor, scope FROM factor_use WHERE run_id = 'r1'")
    assert {"factor": "onsite_g_per_kwh", "scope": "gas_turbine"} in used
    assert {"factor": "pue", "scope": "us-texas"} in used
    wrong = (folder / "wattledger.toml").read_text().replace("us-texas", "atlantis")
    (folder / "wattledger.toml").write_text(wrong)
    with pytest.raises(SettingsError, match=r"pue has no scope 'atlantis'.*Known: aws"):
        compute(settings_module.load(folder))


CONTRACTS = """
[[contract]]
name = "wind park"
site = "main"
instrument = "ppa"
matching = "hourly"
deliveries = "wind.csv"
valid_from = 2024-01-01T00:00:00Z
valid_to = 2025-01-01T00:00:00Z
[zones.DE]
residual_g_per_kwh = 700
transmission_loss = 0.05
"""


def test_market_based_with_a_contract_hour_by_hour(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", extra=CONTRACTS)
    used = ask_site_kwh(project)
    (project.root / "wind.csv").write_text(
        f"valid_from,valid_to,energy_kwh\n2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,{used}\n"
    )
    run = figures(project)
    # The ledger knows the site for half of that hour, so half of the delivery counts there.
    assert run["contracted_share"] == pytest.approx(0.5, abs=0.01)
    assert run["residual_share"] == pytest.approx(1 - run["contracted_share"])
    assert run["co2e_market_kg"] == pytest.approx(
        run["grid_kwh"] * run["residual_share"] * 0.7, rel=1e-4
    )
    assert run["co2e_losses_kg"] == pytest.approx(run["co2e_kg"] * 0.05 / 0.95, rel=1e-6)
    (project.root / "wind.csv").write_text(
        "valid_from,valid_to,energy_kwh\n2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,lots\n"
    )
    with pytest.raises(BadInput, match=r"wind.csv, row 2, column 'energy_kwh', value 'lots'"):
        compute(project)


def ask_site_kwh(project: Settings) -> float:
    (project.root / "wind.csv").write_text("valid_from,valid_to,energy_kwh\n")
    compute(project)
    [row] = ask(project, "SELECT sum(grid_mj) / 3.6e9 AS kwh FROM run_footprint")
    return float(row["kwh"])


def test_marginal_stands_apart_and_is_no_average(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p")
    from flows.sources.grid.layouts import Options

    path = series(project.root, "DE", [(0, 900.0), (1, 900.0)])
    ingest_grid(project, [path], Options(signal="marginal"))
    run = figures(project)
    assert run["co2e_marginal_kg"] == pytest.approx(run["grid_kwh"] * 0.9, rel=1e-6)
    assert sources(project) == {"country_year": 1.0}
    with pytest.raises(SettingsError, match="average_lifecycle"):
        make_project(tmp_path / "m", '[zones.XX]\nsignal = "marginal"\n')


def test_alternatives_by_hour_and_zone(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", extra="[zones.FR]\n[grid]\nshift_h = 2\n")
    german = series(project.root, "DE", [(h, 300.0 + 100 * h) for h in range(-3, 4)], "de.csv")
    french = series(project.root, "FR", [(h, 60.0) for h in range(-1, 2)], "fr.csv")
    ingest_grid(project, [german, french])
    run = figures(project)
    found = ask(
        project,
        "SELECT zone, is_own_zone AS own, shift_h, co2e_kg / location_co2e_kg AS ratio "
        "FROM alternatives WHERE run_id = 'r1'",
    )
    own = {row["shift_h"]: row["ratio"] for row in found if row["own"]}
    assert own == pytest.approx({-2: 1 / 3, -1: 2 / 3, 0: 1, 1: 4 / 3, 2: 5 / 3}, rel=1e-6)
    other = {row["shift_h"]: row["ratio"] for row in found if not row["own"]}
    assert other == {
        -2: None,
        -1: pytest.approx(0.2),
        0: pytest.approx(0.2),
        1: pytest.approx(0.2),
        2: None,
    }
    assert {row["zone"] for row in found} == {"DE", "FR"}
    assert run["overrides"] is None
    publish_candidate(project)
    con = connect(project.published_database, read_only=True)
    [(count,)] = con.execute("SELECT count(*) FROM alternatives").fetchall()
    con.close()
    assert count == 10


def test_a_tier_that_covers_all_of_it_has_a_share_of_one(project: Settings) -> None:
    """To the last bit, whatever the energies: the gate compares it with a threshold of 1."""
    values = {
        **dict.fromkeys(TABLES["footprint_slot"].columns, "1"),
        "kind": "'run'",
        "site": "'main'",
        "zone": "'XX'",
        "run_id": "'r' || run",
        "facility_mj": "hash(run, slot) % 9876543210",
        "slot_start": "make_timestamptz(slot * 300000000)",
    }
    columns = ", ".join(f"{value} AS {name}" for name, value in values.items())
    with open_for_writing(store_of(project)) as con:
        con.execute(
            f"INSERT INTO footprint_slot BY NAME SELECT {columns} FROM range(200) AS r(run), range(97) AS s(slot)"
        )
        con.execute(
            "INSERT INTO slot_source SELECT 'XX', make_timestamptz(slot * 300000000), 'intensity', "
            "'world', '', 'x', true, 300000000 FROM range(97) AS s(slot)"
        )
    found = ask(project, "SELECT DISTINCT energy_share AS share FROM intensity_sources")
    assert found == [{"share": 1.0}]
