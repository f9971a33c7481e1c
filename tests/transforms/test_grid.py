"""One intensity per zone and slot, from series and mixes of any resolution."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import T0
from transforms import grid
from transforms.schemas import SLOT_US

SLOT0 = int(T0.timestamp() * 1_000_000) // SLOT_US


def series(rows: list[tuple[datetime, datetime, float, bool]]) -> pl.LazyFrame:
    times = pl.Datetime("us", "UTC")
    return pl.LazyFrame(
        [
            ("XX", a, b, estimated, value, value * 0.9, value * 1.1)
            for a, b, value, estimated in rows
        ],
        schema={
            "zone": pl.String,
            "valid_from": times,
            "valid_to": times,
            "is_estimated": pl.Boolean,
            "intensity_g_per_kwh": pl.Float64,
            "intensity_low_g_per_kwh": pl.Float64,
            "intensity_high_g_per_kwh": pl.Float64,
        },
        orient="row",
    )


def slots(count: int) -> pl.LazyFrame:
    return pl.LazyFrame({"zone": ["XX"] * count, "slot": [SLOT0 + i for i in range(count)]})


def fallback(value: float | None) -> pl.LazyFrame:
    rows = [] if value is None else [("XX", value, value / 2, value * 2)]
    return pl.LazyFrame(
        rows,
        schema={"zone": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )


def signal(
    rows: list[tuple[datetime, datetime, float, bool]], count: int, other: float | None
) -> pl.DataFrame:
    return grid.slot_signal(
        series(rows), slots(count), fallback(other), "intensity", "g_per_kwh"
    ).collect()


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_every_resolution_lands_on_slots(minutes: int) -> None:
    step = timedelta(minutes=minutes)
    found = signal(
        [(T0, T0 + step, 100, False), (T0 + step, T0 + 2 * step, 300, False)],
        2 * minutes // 5,
        None,
    )
    half = minutes // 5
    assert found["intensity_g_per_kwh"].to_list() == [100.0] * half + [300.0] * half
    assert found["series_ppm"].unique().to_list() == [1_000_000]


def test_an_interval_off_the_slot_grid_is_weighted_by_time() -> None:
    cut = T0 + timedelta(minutes=2)
    found = signal([(T0, cut, 100, False), (cut, T0 + timedelta(minutes=5), 600, True)], 1, None)
    assert found["intensity_g_per_kwh"].item() == pytest.approx(100 * 0.4 + 600 * 0.6)
    assert found.select("series_ppm", "estimated_ppm", "fallback_ppm").row(0) == (
        400_000,
        600_000,
        0,
    )


def test_a_gap_is_null_without_fallback_and_marked_with_one() -> None:
    rows = [(T0, T0 + timedelta(minutes=5), 100.0, False)]
    assert signal(rows, 2, None)["intensity_g_per_kwh"].to_list() == [100.0, None]
    found = signal(rows, 2, 400.0)
    assert found["intensity_g_per_kwh"].to_list() == [100.0, 400.0]
    assert found["intensity_low_g_per_kwh"].to_list() == [90.0, 200.0]
    assert found["fallback_ppm"].to_list() == [0, 1_000_000]


def mix(**generation: int) -> pl.LazyFrame:
    return pl.LazyFrame(
        [("XX", T0, T0 + timedelta(hours=1), fuel, kw, False) for fuel, kw in generation.items()],
        schema=["zone", "valid_from", "valid_to", "fuel", "generation_kw", "is_estimated"],
        orient="row",
    )


FUELS = pl.LazyFrame(
    {"fuel": ["coal", "wind"], "value": [820.0, 11.0], "low": [740.0, 7.0], "high": [910.0, 56.0]}
)


def test_a_mix_is_weighed_by_generation() -> None:
    found = grid.mix_factors(mix(coal=250, wind=750), FUELS, "v", "l", "h").collect()
    assert found["v"].item() == pytest.approx(0.25 * 820 + 0.75 * 11)
    assert found["h"].item() == pytest.approx(0.25 * 910 + 0.75 * 56)


def test_pumping_and_storage_are_no_source() -> None:
    found = grid.mix_factors(mix(coal=500, wind=-100, storage=900), FUELS, "v", "l", "h").collect()
    assert found["v"].item() == pytest.approx(820)


def test_an_interval_where_nothing_generates_is_a_gap() -> None:
    assert grid.mix_factors(mix(coal=0, wind=0), FUELS, "v", "l", "h").collect().is_empty()


@given(st.permutations(["coal", "wind", "storage"]), st.integers(1, 10**8), st.integers(1, 10**8))
def test_the_order_of_fuels_changes_no_bit(order: list[str], coal: int, wind: int) -> None:
    amounts = {"coal": coal, "wind": wind, "storage": 7}
    first = grid.mix_factors(mix(**amounts), FUELS, "v", "l", "h").collect()
    other = grid.mix_factors(mix(**{k: amounts[k] for k in order}), FUELS, "v", "l", "h").collect()
    assert first.equals(other)
