"""Embodied carbon and water, against published figures and by hand."""

from __future__ import annotations

import polars as pl
import pytest

from transforms.embodied import add_embodied, compute_hourly_rates

LUCCIONI = {"gpu_kg": 150.0, "server_kg": 2500.0, "gpu_l": 0.0, "years": 6.0, "utilisation": 0.85}


def rates(gpus_per_server: int = 8, **others: float) -> pl.LazyFrame:
    values = {
        f"{name}{bound}": [value]
        for name, value in {**LUCCIONI, **others}.items()
        for bound in ("", "_low", "_high")
    }
    return compute_hourly_rates(
        pl.LazyFrame({"gpu_key": [1], "gpus_per_server": [gpus_per_server], **values})
    )


def test_embodied_carbon_of_bloom() -> None:
    """Luccioni et al. 2022: 1,082,990 GPU hours, 2,500 kg a server of 8, 150 kg a GPU: 11.2 t."""
    per_hour = rates().collect()["embodied_ug_per_h"][0]
    assert per_hour * 1_082_990 / 1e12 == pytest.approx(11.2, abs=0.05)


def test_embodied_counts_held_time_and_idle_hardware_has_none() -> None:
    energy = pl.LazyFrame(
        {"kind": ["run", "idle"], "gpu_key": [1, 1], "slot": [0, 1], "held_us": [300_000_000] * 2},
        schema_overrides={"gpu_key": pl.Int64},
    )
    hourly = rates(gpu_l=199.0)
    held = add_embodied(energy, hourly).sort("slot").collect()
    [per_hour] = hourly.collect()["embodied_ug_per_h"]
    assert held["co2e_embodied_ug"].to_list() == [per_hour // 12, 0]
    assert held["water_embodied_ul"][0] == hourly.collect()["embodied_ul_per_h"][0] // 12


def test_a_longer_life_and_more_gpus_to_a_server_embody_less() -> None:
    value = rates().collect()["embodied_ug_per_h"][0]
    assert rates(years=12.0).collect()["embodied_ug_per_h"][0] == pytest.approx(value / 2, abs=1)
    assert rates(gpus_per_server=1).collect()["embodied_ug_per_h"][0] > 5 * value
