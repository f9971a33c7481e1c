"""Estimates: the ledger's formulas on one GPU-hour, times the GPU-hours."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.constants import BOUNDS
from transforms.estimate import (
    FIGURES,
    INPUTS,
    SUMS,
    bound_column,
    bound_columns,
    estimate_footprints,
)

Bounds = tuple[float, float, float]


def estimate_one(**inputs: float | Bounds) -> dict[str, float]:
    """The figures of one case; an input is a value, or value, low and high."""
    row: dict[str, object] = {"case": "c", "gpus_per_server": 8}
    for name, neutral in INPUTS.items():
        value = inputs.get(name, neutral)
        three = value if isinstance(value, tuple) else (value, value, value)
        row |= {bound_column(name, b): float(v) for b, v in zip(BOUNDS, three, strict=True)}
    return estimate_footprints(pl.LazyFrame([row])).collect().row(0, named=True)


def test_an_hour_by_hand() -> None:
    """700 W + 300 W for 10 hours, PUE 1.2, a tenth from gas at 500 g/kWh, 400 g/kWh from the grid."""
    figures = estimate_one(
        gpu_hours=10,
        gpu_w=700,
        overhead_w=300,
        pue=1.2,
        onsite_share=0.1,
        onsite_g_per_kwh=500,
        intensity_g_per_kwh=400,
        residual_g_per_kwh=600,
        wue_l_per_kwh=0.5,
        ewif_l_per_kwh=2,
        withdrawal_l_per_kwh=20,
        withdrawal_ratio=1.25,
        price_per_kwh=0.1,
        gpu_kg=87.66,
        server_kg=0,
        years=1,
    )
    assert figures["energy_kwh"] == pytest.approx(7)
    assert figures["it_kwh"] == pytest.approx(10)
    assert figures["facility_kwh"] == pytest.approx(12)
    assert figures["grid_kwh"] == pytest.approx(10.8)
    assert figures["co2e_scope1_kg"] == pytest.approx(0.6)
    assert figures["co2e_kg"] == pytest.approx(4.32)
    assert figures["co2e_market_kg"] == pytest.approx(6.48)
    assert figures["co2e_embodied_kg"] == pytest.approx(0.1)
    assert figures["co2e_total_kg"] == pytest.approx(5.02)
    assert figures["water_l"] == pytest.approx(5 + 21.6)
    assert figures["water_withdrawal_l"] == pytest.approx(6.25 + 216)
    assert figures["cost"] == pytest.approx(1.2)


def test_cases_keep_their_names_and_apart() -> None:
    rows = []
    for name, power in (("b", 100.0), ("a", 200.0)):
        row = {"case": name, "gpus_per_server": 8}
        row |= {bound_column(k, b): v for k, v in INPUTS.items() for b in BOUNDS}
        row |= {
            bound_column(k, b): v for k, v in (("gpu_hours", 1.0), ("gpu_w", power)) for b in BOUNDS
        }
        rows.append(row)
    figures = estimate_footprints(pl.LazyFrame(rows)).collect()
    assert dict(figures.select("case", "energy_kwh").iter_rows()) == {"a": 0.2, "b": 0.1}
    assert figures.columns == ["case", *bound_columns(FIGURES)]


positive = st.floats(0.001, 1e4)
share = st.floats(0, 1)


@st.composite
def spread(draw: st.DrawFn, values: st.SearchStrategy[float]) -> Bounds:
    low, value, high = sorted(draw(values) for _ in range(3))
    return value, low, high


@given(
    gpu_hours=spread(st.floats(0, 1e7)),
    gpu_w=spread(positive),
    overhead_w=spread(positive),
    pue=spread(st.floats(1, 3)),
    wue_l_per_kwh=spread(st.floats(0, 5)),
    onsite_share=spread(share),
    onsite_g_per_kwh=spread(st.floats(0, 1000)),
    intensity_g_per_kwh=spread(st.floats(0, 1000)),
    ewif_l_per_kwh=spread(st.floats(0, 70)),
    withdrawal_l_per_kwh=spread(st.floats(0, 200)),
    gpu_kg=spread(st.floats(0, 500)),
    years=spread(st.floats(1, 10)),
    utilisation=spread(st.floats(0.1, 1)),
)
def test_figures_lie_within_their_bounds_and_add_up(**inputs: Bounds) -> None:
    figures = estimate_one(**inputs)
    room = 1 + 1e-9
    for name in FIGURES:
        if name != "cost":
            value, low, high = (figures[bound_column(name, b)] for b in BOUNDS)
            assert 0 <= low <= value * room + 1e-9, name
            assert value <= high * room + 1e-9, name
    for name, parts in SUMS.items():
        assert figures[name] == pytest.approx(sum(figures[part] for part in parts))
    assert figures["water_withdrawal_l"] * room >= figures["water_l"]


def test_twice_the_hours_are_twice_of_everything() -> None:
    inputs = {"gpu_w": 333.3, "overhead_w": 77.7, "pue": 1.23, "intensity_g_per_kwh": 456.7}
    small, large = estimate_one(gpu_hours=1e3, **inputs), estimate_one(gpu_hours=2e9, **inputs)
    for name in FIGURES:
        assert large[name] == pytest.approx(small[name] * 2e6)
