"""The same energy at other hours and in other zones."""

from __future__ import annotations

import polars as pl

from transforms import alternatives
from transforms.constants import PPM

KWH_MJ = 3_600_000_000


def energy(zones: list[str]) -> pl.LazyFrame:
    """One kWh in each of two slots, an hour apart."""
    return pl.LazyFrame(
        {"run_id": ["r"] * 2, "zone": zones, "slot": [0, 12], "grid_mj": [KWH_MJ] * 2}
    )


INTENSITY = pl.LazyFrame(
    {
        "zone": ["A", "A", "A", "B", "B", "B"],
        "slot": [0, 12, 24, 0, 12, 24],
        "value": [100.0, 200.0, 300.0, 10.0, 20.0, None],
    }
)


def grams(zones: list[str], shift_h: int) -> dict[str, tuple[int, int | None]]:
    shifted = alternatives.shift_runs(energy(zones), INTENSITY, ["B"], shift_h).collect()
    return {
        row["zone"]: (row["covered_ppm"], row["co2e_ug"] and row["co2e_ug"] // 1_000_000)
        for row in shifted.to_dicts()
    }


def test_no_shift_is_what_it_was_and_elsewhere_what_it_would_have_been() -> None:
    assert grams(["A", "A"], 0) == {"": (PPM, 300), "B": (PPM, 30)}


def test_a_shift_meets_the_intensities_of_that_time() -> None:
    assert grams(["A", "A"], 1)[""] == (PPM, 500)


def test_what_is_not_wholly_covered_has_no_figure() -> None:
    assert grams(["A", "A"], 1)["B"] == (PPM // 2, None)
    assert grams(["A", "A"], 9)[""] == (0, None)


def test_a_run_in_two_zones_stays_where_it_was_or_moves_as_a_whole() -> None:
    assert grams(["A", "B"], 0) == {"": (PPM, 120), "B": (PPM, 30)}
