"""The formulas, against published figures."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from transforms import figures, footprint
from transforms.embodied import EMBODIED

KWH_MJ = 3_600_000_000
MWH_MJ = KWH_MJ * 1000


def one_slot(energy_mj: int, **given: float | None) -> dict[str, float]:
    """A footprint of one run in one slot, all measured, no overhead unless given."""
    values: dict[str, Any] = {
        "pue": 1.0,
        "wue_l_per_kwh": 0.0,
        "overhead_mw_per_gpu": 0,
        "rest_mw_per_gpu": 0,
        "metered_us": 0,
        "host_mj": 0,
        "host_measured_mj": 0,
        "intensity_g_per_kwh": 0.0,
        "ewif_l_per_kwh": 0.0,
        "withdrawal_l_per_kwh": 0.0,
        "withdrawal_ratio": 1.0,
        "price_per_kwh": None,
        "held_us": 0,
        "onsite_share": 0.0,
        "onsite_g_per_kwh": 0.0,
        "onsite_l_per_kwh": 0.0,
        "loss": 0.0,
        "marginal_g_per_kwh": None,
        "residual_g_per_kwh": None,
        "contracted_ppm": 0,
        "contracted_g_per_kwh": 0.0,
        **given,
    }
    energy = pl.LazyFrame(
        {
            "kind": ["run"],
            "run_id": ["r"],
            "site": ["s"],
            "slot": [0],
            "gpus": [1],
            "energy_mj": [energy_mj],
            "energy_low_mj": [energy_mj * 9 // 10],
            "energy_high_mj": [energy_mj * 11 // 10],
            "measured_mj": [energy_mj],
            "gap_mj": [0],
            "filled_mj": [0],
            "held_us": [int(values["held_us"])],
            "metered_us": [int(values["metered_us"])],
            "host_mj": [int(values["host_mj"])],
            "host_measured_mj": [int(values["host_measured_mj"])],
            "host_low_mj": [int(values["host_mj"])],
            "host_high_mj": [int(values["host_mj"])],
            **{name: [0] for name in EMBODIED},
        }
    )
    site = {"site": ["s"], "slot": [0], "zone": ["z"]}
    for name, unit in (
        ("pue", ""),
        ("wue", "_l_per_kwh"),
        ("overhead", "_mw_per_gpu"),
        ("rest", "_mw_per_gpu"),
        ("onsite", "_g_per_kwh"),
        ("onsite", "_l_per_kwh"),
        ("onsite_share", ""),
        ("withdrawal_ratio", ""),
        ("loss", ""),
    ):
        for bound in ("", "_low", "_high"):
            site[f"{name}{bound}{unit}"] = [values[f"{name}{unit}"]]  # type: ignore[list-item]
    signal = {"zone": ["z"], "slot": [0], "series_ppm": [1_000_000], "ewif_series_ppm": [1_000_000]}
    contract = {"site": ["s"], "slot": [0], "contracted_ppm": [values["contracted_ppm"]]}
    for table, name, unit in (
        (signal, "intensity", "_g_per_kwh"),
        (signal, "ewif", "_l_per_kwh"),
        (signal, "withdrawal", "_l_per_kwh"),
        (signal, "marginal", "_g_per_kwh"),
        (signal, "residual", "_g_per_kwh"),
        (contract, "contracted", "_g_per_kwh"),
    ):
        for bound in ("", "_low", "_high"):
            table[f"{name}{bound}{unit}"] = [values[f"{name}{unit}"]]  # type: ignore[index]
    price = pl.LazyFrame(
        {"site": ["s"], "slot": [0], "price_per_kwh": [values["price_per_kwh"]]},
        schema_overrides={"price_per_kwh": pl.Float64},
    )
    sites = pl.LazyFrame(site).with_columns(pl.col("^(overhead|rest).*$").cast(pl.Int64))
    factors = pl.col("^.*_g_per_kwh$").cast(pl.Float64)
    facility = footprint.compute_facility_slots(energy, sites)
    return (
        footprint.compute_footprint_slots(
            facility, pl.LazyFrame(signal).with_columns(factors), pl.LazyFrame(contract), price
        )
        .collect()
        .row(0, named=True)
    )


LI = [
    ("US average", 1.170, 0.550, 3.142, 0.708, 4.731),
    ("Wyoming", 1.125, 0.230, 2.574, 0.296, 3.727),
    ("Iowa", 1.160, 0.190, 3.104, 0.245, 4.634),
    ("Arizona", 1.223, 2.240, 4.959, 2.883, 7.805),
    ("Washington", 1.156, 1.090, 9.501, 1.403, 14.136),
    ("Virginia", 1.144, 0.170, 2.385, 0.219, 3.511),
    ("Texas", 1.307, 1.820, 1.287, 2.342, 2.165),
]


@pytest.mark.parametrize(("place", "pue", "wue", "ewif", "on_site", "off_site"), LI)
def test_water_of_gpt3_by_region(
    place: str, pue: float, wue: float, ewif: float, on_site: float, off_site: float
) -> None:
    """Li et al. 2023, GPT-3 training, 1,287 MWh, in million litres.

    Within half a unit of the last digit of the result and of PUE and EWIF, which are rounded too.
    """
    found = one_slot(1287 * MWH_MJ, pue=pue, wue_l_per_kwh=wue, ewif_l_per_kwh=ewif)
    assert found["water_onsite_ul"] / 1e12 == pytest.approx(on_site, abs=5e-4), place
    assert found["water_offsite_ul"] / 1e12 == pytest.approx(
        off_site, abs=5e-4 + off_site * (5e-4 / pue + 5e-4 / ewif)
    ), place


def test_carbon_of_bloom() -> None:
    """Luccioni et al. 2022: 433,196 kWh at 57 g/kWh = 24.69 t."""
    found = one_slot(433_196 * 3_600_000_000, intensity_g_per_kwh=57)
    assert found["co2e_ug"] / 1e12 == pytest.approx(24.69, abs=0.005)


def test_carbon_of_gpt3_with_pue() -> None:
    """Patterson et al. 2021, Table 4: 10,000 V100 x 330 W x 14.8 days, PUE 1.10, 0.429 kg/kWh."""
    it_mj = 10_000 * 330_000 * int(14.8 * 24 * 3600)
    found = one_slot(it_mj, pue=1.10, intensity_g_per_kwh=429)
    assert found["facility_mj"] / MWH_MJ == pytest.approx(1287, rel=0.002)
    assert found["co2e_ug"] / 1e12 == pytest.approx(552.1, rel=0.002)


def test_host_overhead_is_it_energy_that_was_not_measured() -> None:
    found = one_slot(1_000_000, overhead_mw_per_gpu=250_000, held_us=4_000_000, pue=1.5)
    assert found["overhead_mj"] == 1_000_000
    assert found["it_mj"] == 2_000_000
    assert found["facility_mj"] == 3_000_000
    assert found["facility_measured_mj"] == 1_500_000


def test_a_slot_without_intensity_has_no_carbon_and_says_so() -> None:
    found = one_slot(1_000_000, intensity_g_per_kwh=None)
    assert found["co2e_ug"] is None
    assert found["facility_uncovered_mj"] == 1_000_000


def test_a_metered_host_counts_as_metered_and_the_rest_is_added() -> None:
    found = one_slot(
        1_000_000,
        overhead_mw_per_gpu=250_000,
        rest_mw_per_gpu=50_000,
        held_us=4_000_000,
        metered_us=3_000_000,
        host_mj=600_000,
        host_measured_mj=400_000,
        pue=1.5,
    )
    # 600 J metered, 3 s x 50 W of the rest, 1 s x 250 W of the model where it was not.
    assert found["overhead_mj"] == 600_000 + 150_000 + 250_000
    assert found["it_mj"] == 2_000_000
    assert found["facility_measured_mj"] == 2_100_000


KWH_MJ = 3_600_000_000


def test_on_site_generation_is_scope_1_and_takes_nothing_from_the_grid() -> None:
    found = one_slot(
        100 * KWH_MJ,
        intensity_g_per_kwh=400,
        ewif_l_per_kwh=2,
        wue_l_per_kwh=1,
        onsite_share=0.25,
        onsite_g_per_kwh=600,
        onsite_l_per_kwh=0.2,
    )
    assert (found["grid_mj"], found["onsite_mj"]) == (75 * KWH_MJ, 25 * KWH_MJ)
    assert found["co2e_ug"] == 75 * 400 * 1_000_000
    assert found["co2e_scope1_ug"] == 25 * 600 * 1_000_000
    assert found["water_offsite_ul"] == 75 * 2 * 1_000_000
    assert found["water_onsite_ul"] == (100 * 1 + 25 * 0.2) * 1_000_000


def test_market_based_counts_contracts_first_and_the_rest_with_the_residual_mix() -> None:
    found = one_slot(
        100 * KWH_MJ,
        intensity_g_per_kwh=400,
        residual_g_per_kwh=600,
        contracted_ppm=250_000,
        contracted_g_per_kwh=0.25 * 20,
    )
    assert found["contracted_mj"] == 25 * KWH_MJ
    assert found["residual_mj"] == 75 * KWH_MJ
    assert found["co2e_market_ug"] == (25 * 20 + 75 * 600) * 1_000_000
    assert found["co2e_ug"] == 100 * 400 * 1_000_000  # location-based knows of no contract


def test_without_a_residual_mix_the_rest_counts_with_the_location_and_says_so() -> None:
    found = one_slot(100 * KWH_MJ, intensity_g_per_kwh=400, contracted_ppm=250_000)
    assert found["co2e_market_ug"] == 75 * 400 * 1_000_000
    assert found["residual_mj"] == 0


def test_energy_that_contracts_cover_wholly_needs_no_intensity() -> None:
    found = one_slot(100 * KWH_MJ, intensity_g_per_kwh=None, contracted_ppm=1_000_000)
    assert found["co2e_market_ug"] == 0
    assert found["contracted_mj"] == 100 * KWH_MJ


def test_the_marginal_effect_stands_apart() -> None:
    found = one_slot(100 * KWH_MJ, intensity_g_per_kwh=400, marginal_g_per_kwh=700)
    assert found["co2e_marginal_ug"] == 100 * 700 * 1_000_000
    assert found["co2e_ug"] == 100 * 400 * 1_000_000
    unknown = one_slot(100 * KWH_MJ, intensity_g_per_kwh=400)
    assert (unknown["co2e_marginal_ug"], unknown["marginal_mj"]) == (None, 0)


def test_losses_are_what_was_generated_beyond_what_arrived() -> None:
    """5 % lost: 100 kWh delivered were 105.26 kWh generated."""
    found = one_slot(100 * KWH_MJ, intensity_g_per_kwh=400, loss=0.05)
    assert found["co2e_losses_ug"] == pytest.approx(100 * 400e6 * 0.05 / 0.95, abs=1)
    assert one_slot(100 * KWH_MJ, intensity_g_per_kwh=400)["co2e_losses_ug"] == 0


def test_withdrawal_stands_beside_consumption_and_is_no_less() -> None:
    """10 kWh: 5 L on site, of which 4/5 evaporate; 2 L/kWh consumed off site, 30 withdrawn."""
    given = {"wue_l_per_kwh": 0.5, "withdrawal_ratio": 1.25, "ewif_l_per_kwh": 2.0}
    found = one_slot(10 * KWH_MJ, withdrawal_l_per_kwh=30.0, **given)
    assert found["water_withdrawal_ul"] == round(5e6 * 1.25) + 300_000_000
    assert found["water_onsite_ul"] + found["water_offsite_ul"] == 25_000_000
    impossible = one_slot(10 * KWH_MJ, withdrawal_l_per_kwh=1.0, **given)
    assert impossible["water_withdrawal_ul"] == round(5e6 * 1.25) + 20_000_000


def test_cost_is_of_the_facility_and_unknown_without_a_price() -> None:
    found = one_slot(10 * KWH_MJ, pue=1.2, price_per_kwh=0.25)
    assert (found["cost_micro"], found["priced_mj"]) == (3_000_000, 12 * KWH_MJ)
    free = one_slot(10 * KWH_MJ)
    assert (free["cost_micro"], free["priced_mj"]) == (0, 0)


def test_overhead_of_a_hundred_thousand_gpus_fits() -> None:
    """575 W for 100,000 GPUs over 5 minutes: more than 2^63 mW us."""
    found = one_slot(0, held_us=100_000 * 300_000_000, overhead_mw_per_gpu=575_000)
    assert found["it_mj"] == 100_000 * 300 * 575_000


def test_a_total_beyond_64_bits_is_refused_and_wraps_around_nowhere() -> None:
    def total(slots: int) -> pl.DataFrame:
        rows = pl.LazyFrame(
            {"kind": ["idle"] * slots, "run_id": pl.Series([None] * slots, dtype=pl.String)}
            | {"slot": range(slots)}
            | dict.fromkeys(figures.SUMMED, [2**62] * slots)
        )
        gpus = rows.select("kind", "run_id", gpus=1).unique()
        return footprint.sum_runs(rows, gpus).collect()

    assert total(1)["energy_mj"].to_list() == [2**62]
    with pytest.raises(pl.exceptions.InvalidOperationError, match="i128"):
        total(2)
