"""One input at a time."""

from __future__ import annotations

import polars as pl

from transforms.constants import PPM
from transforms.embodied import EMBODIED
from transforms.sensitivity import INPUTS, compute_sensitivity

KWH_MJ = 3_600_000_000
_OF_ENERGY = ("energy", "host", "co2e_embodied")
_OF_GRID = ("intensity", "ewif", "withdrawal")


def swings(**given: tuple[float, float, float]) -> dict[str, tuple[int, int, int, int]]:
    """Totals by input, of 10 kWh with PUE 1, 100 g/kWh and 2 L/kWh, unless given as value, low, high."""
    values: dict[str, tuple[float, float, float]] = {
        **{column: (0, 0, 0) for columns in INPUTS.values() for column in columns},
        "withdrawal_ratio{}": (1, 1, 1),
        "withdrawal{}_l_per_kwh": (0, 0, 0),
        "energy{}_mj": (10 * KWH_MJ,) * 3,
        "pue{}": (1, 1, 1),
        "intensity{}_g_per_kwh": (100,) * 3,
        "ewif{}_l_per_kwh": (2,) * 3,
        **given,
    }
    integers = ("_mj", "_ug", "_mw_per_gpu")
    columns = {
        key.format(bound): [int(value) if key.endswith(integers) else float(value)]
        for key, three in values.items()
        for bound, value in zip(("", "_low", "_high"), three, strict=True)
    }
    of_energy = {k: v for k, v in columns.items() if k.startswith(_OF_ENERGY)}
    of_grid = {k: v for k, v in columns.items() if k.startswith(_OF_GRID) and "ratio" not in k}
    of_site = {k: v for k, v in columns.items() if k not in of_energy and k not in of_grid}
    place = {"site": ["s"], "slot": [0]}
    nothing = {
        f"{name}{b}_g_per_kwh": [None]
        for name in ("marginal", "residual")
        for b in ("", "_low", "_high")
    }
    energy = pl.LazyFrame(
        {
            "kind": ["run"],
            "run_id": ["r"],
            **place,
            "gpus": [1],
            **{
                name: [0]
                for name in (
                    "measured_mj",
                    "gap_mj",
                    "filled_mj",
                    "host_measured_mj",
                    "held_us",
                    "metered_us",
                )
            },
            **{name: [0] for name in EMBODIED},
            **of_energy,
        }
    )
    found = compute_sensitivity(
        energy,
        pl.LazyFrame({**place, "zone": ["z"], **of_site}),
        pl.LazyFrame(
            {
                "zone": ["z"],
                "slot": [0],
                "series_ppm": [PPM],
                "ewif_series_ppm": [PPM],
                **of_grid,
                **nothing,
            },
            schema_overrides=dict.fromkeys(nothing, pl.Float64),
        ),
        pl.LazyFrame(
            {
                **place,
                "contracted_ppm": [0],
                **{f"contracted{b}_g_per_kwh": [0.0] for b in ("", "_low", "_high")},
            }
        ),
        pl.LazyFrame(
            {**place, "price_per_kwh": [None]}, schema_overrides={"price_per_kwh": pl.Float64}
        ),
    ).collect()
    return {row[1]: row[2:] for row in found.iter_rows()}  # type: ignore[misc]


def test_an_input_without_bounds_moves_nothing() -> None:
    assert swings() == {}


def test_each_input_moves_what_it_should_and_nothing_else() -> None:
    g, ml = 1_000_000, 1000
    found = swings(**{"pue{}": (1.2, 1.0, 1.5), "intensity{}_g_per_kwh": (100, 50, 200)})
    assert found == {
        "PUE": (1000 * g, 1500 * g, 20_000 * ml, 30_000 * ml),
        "grid intensity": (600 * g, 2400 * g, 24_000 * ml, 24_000 * ml),
    }
    found = swings(**{"ewif{}_l_per_kwh": (2, 1, 3), "wue{}_l_per_kwh": (1, 0, 2)})
    assert found == {
        "EWIF": (1000 * g, 1000 * g, 20_000 * ml, 40_000 * ml),
        "WUE": (1000 * g, 1000 * g, 20_000 * ml, 40_000 * ml),
    }


def test_more_generation_on_site_can_be_less_co2e() -> None:
    """A plant of 50 g/kWh on a grid of 100: its high share is the lower total."""
    found = swings(**{"onsite_share{}": (0.5, 0.0, 1.0), "onsite{}_g_per_kwh": (50, 50, 50)})
    low, high, *_ = found["on-site share"]
    assert (low, high) == (1_000_000_000, 500_000_000)
