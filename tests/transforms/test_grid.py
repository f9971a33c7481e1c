"""One intensity per zone and slot, from series and mixes of any resolution."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import T0
from transforms import grid
from transforms.constants import SLOT_US

SLOT0 = int(T0.timestamp() * 1_000_000) // SLOT_US


Row = tuple[datetime, datetime, float, bool]


def series(rows: list[Row], rung: str = "live", rank: int = 0) -> pl.LazyFrame:
    times = pl.Datetime("us", "UTC")
    return pl.LazyFrame(
        [
            ("XX", a, b, rank, rung, "file", "test", estimated, value, value * 0.9, value * 1.1)
            for a, b, value, estimated in rows
        ],
        schema={
            "zone": pl.String,
            "valid_from": times,
            "valid_to": times,
            "rank": pl.Int64,
            "rung": pl.String,
            "feed": pl.String,
            "source": pl.String,
            "is_estimated": pl.Boolean,
            "value": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
        },
        orient="row",
    )


def slots(count: int) -> pl.LazyFrame:
    return pl.LazyFrame({"zone": ["XX"] * count, "slot": [SLOT0 + i for i in range(count)]})


def signal(ladder: list[pl.LazyFrame], count: int) -> pl.DataFrame:
    parts = grid.cut_at_slots(grid.select_best(pl.concat(ladder)), slots(count))
    return grid.compute_slot_signal(parts, slots(count)).collect()


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_every_resolution_lands_on_slots(minutes: int) -> None:
    step = timedelta(minutes=minutes)
    rows = [(T0, T0 + step, 100, False), (T0 + step, T0 + 2 * step, 300, False)]
    found = signal([series(rows)], 2 * minutes // 5)
    half = minutes // 5
    assert found["value"].to_list() == [100.0] * half + [300.0] * half
    assert found["series_ppm"].unique().to_list() == [1_000_000]


def test_an_interval_off_the_slot_grid_is_weighted_by_time() -> None:
    cut = T0 + timedelta(minutes=2)
    rows = [(T0, cut, 100, False), (cut, T0 + timedelta(minutes=5), 600, True)]
    found = signal([series(rows)], 1)
    assert found["value"].item() == pytest.approx(100 * 0.4 + 600 * 0.6)
    assert found.select("series_ppm", "estimated_ppm", "fallback_ppm").row(0) == (
        400_000,
        600_000,
        0,
    )


def minutes(first: int, last: int, value: float) -> Row:
    return (T0 + timedelta(minutes=first), T0 + timedelta(minutes=last), value, False)


def test_a_gap_is_null_and_the_next_tier_covers_it_for_as_long_as_it_lasts() -> None:
    live = series([minutes(0, 7, 100)])
    assert signal([live], 2)["value"].to_list() == [100.0, None]
    found = signal([live, series([minutes(-60, 60, 400)], "world", 9)], 2)
    assert found["value"].to_list() == [100.0, pytest.approx(0.4 * 100 + 0.6 * 400)]
    assert found["series_ppm"].to_list() == [1_000_000, 400_000]
    assert found["fallback_ppm"].to_list() == [0, 600_000]


def test_the_better_rank_counts_wherever_it_says_anything() -> None:
    first = series([minutes(0, 5, 100), minutes(10, 15, 300)])
    second = series([minutes(0, 10, 700), minutes(10, 20, 800)], rank=1)
    assert signal([second, first], 4)["value"].to_list() == [100.0, 700.0, 300.0, 800.0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 20)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_a_ladder_is_what_each_minute_says_on_its_own(
    spans: list[tuple[int, int, int]], random: Random
) -> None:
    """Against the plain definition: at each minute, the lowest rank that covers it."""
    taken: dict[int, set[int]] = {}
    rows: list[tuple[int, Row]] = []
    for rank, start, length in spans:
        mine = set(range(start, start + length))
        if not mine & taken.setdefault(rank, set()):
            taken[rank] |= mine
            rows.append((rank, minutes(start, start + length, 100 * rank + start)))
    random.shuffle(rows)
    ladder = [series([row], rank=rank) for rank, row in rows] or [series([])]
    found = grid.select_best(pl.concat(ladder)).collect()
    for minute in range(62):
        at = T0 + timedelta(minutes=minute)
        expected = min(
            ((rank, row[2]) for rank, row in rows if row[0] <= at < row[1]), default=None
        )
        here = found.filter((pl.col("valid_from") <= at) & (pl.col("valid_to") > at))
        assert here.select("rank", "value").rows() == ([] if expected is None else [expected])


def test_a_profile_is_the_mean_of_each_hour_with_its_range() -> None:
    day = T0.replace(hour=0)
    rows = [
        (at, at + timedelta(hours=1), 100.0 * hour + 10 * n, False)
        for n in range(8)
        for hour in range(24)
        for at in [day + timedelta(days=n, hours=hour)]
    ]
    asked = pl.LazyFrame(
        {"zone": ["XX", "XX"], "valid_from": [day + timedelta(days=90, hours=h) for h in (0, 7)]}
    )
    found = grid.compute_typical_profile(series(rows), asked).collect()
    assert found["value"].to_list() == [35.0, 735.0]
    assert found.select("low", "high").rows() == [(0.0, 70.0), (700.0, 770.0)]
    assert (found["valid_to"] - found["valid_from"]).unique().to_list() == [timedelta(hours=1)]
    assert grid.compute_typical_profile(series(rows[: 6 * 24]), asked).collect().is_empty()


def mix(**generation: int) -> pl.LazyFrame:
    return pl.LazyFrame(
        [
            ("XX", T0, T0 + timedelta(hours=1), fuel, kw, False, "test")
            for fuel, kw in generation.items()
        ],
        schema=[
            "zone",
            "valid_from",
            "valid_to",
            "fuel",
            "generation_kw",
            "is_estimated",
            "source",
        ],
        orient="row",
    )


FUELS = pl.LazyFrame(
    {"fuel": ["coal", "wind"], "value": [820.0, 11.0], "low": [740.0, 7.0], "high": [910.0, 56.0]}
)


def test_a_mix_is_weighed_by_generation() -> None:
    found = grid.weigh_mix(mix(coal=250, wind=750), FUELS).collect()
    assert found["value"].item() == pytest.approx(0.25 * 820 + 0.75 * 11)
    assert found["high"].item() == pytest.approx(0.25 * 910 + 0.75 * 56)


def test_pumping_and_storage_are_no_source() -> None:
    found = grid.weigh_mix(mix(coal=500, wind=-100, storage=900), FUELS).collect()
    assert found["value"].item() == pytest.approx(820)


def test_an_interval_where_nothing_generates_is_a_gap() -> None:
    assert grid.weigh_mix(mix(coal=0, wind=0), FUELS).collect().is_empty()


@given(st.permutations(["coal", "wind", "storage"]), st.integers(1, 10**8), st.integers(1, 10**8))
def test_the_order_of_fuels_changes_no_bit(order: list[str], coal: int, wind: int) -> None:
    amounts = {"coal": coal, "wind": wind, "storage": 7}
    first = grid.weigh_mix(mix(**amounts), FUELS).collect()
    other = grid.weigh_mix(mix(**{k: amounts[k] for k in order}), FUELS).collect()
    assert first.equals(other)
