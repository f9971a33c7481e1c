"""Mixes that lack a fuel, by hand and by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from flows.settings import Grid
from transforms.completeness import find_incomplete

T0 = datetime(2025, 3, 3, tzinfo=UTC)
Output = float | None | Callable[[int], float | None]


def sun(hour: int) -> float | None:
    """A feed that leaves the sun out at night."""
    return {7: 500.0, 8: 3000.0, 16: 2500.0, 17: 400.0}.get(
        hour % 24, 6000.0 if 8 < hour % 24 < 16 else None
    )


def mix(hours: int, fuels: Mapping[str, Output], first: int = 0) -> pl.LazyFrame:
    """Hourly generation in MW from T0; a function of the hour, or the same in all."""
    rows = [
        (fuel, T0 + timedelta(hours=h), round(value * 1000))
        for fuel, output in fuels.items()
        for h in range(first, first + hours)
        if (value := output(h) if callable(output) else output) is not None
    ]
    frame = pl.DataFrame(rows, schema=["fuel", "valid_from", "generation_kw"], orient="row")
    return frame.lazy().with_columns(
        zone=pl.lit("XX"),
        feed=pl.lit("files"),
        valid_to=pl.col("valid_from") + pl.duration(hours=1),
    )


def lacking(frame: pl.LazyFrame, **changed: float) -> dict[int, list[str]]:
    """Hour from T0 -> fuels that are missing in it."""
    found = find_incomplete(frame, Grid.model_validate(changed))
    return {
        int((row["valid_from"] - T0) / timedelta(hours=1)): row["fuels"]
        for row in found.iter_rows(named=True)
    }


def between(first: int, last: int, value: float, inside: float | None = None) -> Output:
    return lambda hour: inside if first <= hour < last else value


WEEKS = 40 * 24


def test_hours_without_the_thermal_plants_are_incomplete() -> None:
    """As Great Britain's in ENTSO-E's data: wind and sun are there, all else is not, or is zero."""
    for inside in (None, 0.0):
        gas, nuclear = (between(500, 503, mw, inside) for mw in (9000.0, 7000.0))
        found = lacking(mix(WEEKS, {"gas": gas, "nuclear": nuclear, "wind_onshore": 5000.0}))
        assert found == {slot: ["gas", "nuclear"] for slot in (500, 501, 502)}


def test_the_last_hours_of_a_live_answer() -> None:
    coal = between(WEEKS - 2, WEEKS, 4000.0)
    assert set(lacking(mix(WEEKS, {"coal": coal, "wind_onshore": 5000.0}))) == {958, 959}
    short = mix(4, {"coal": between(3, 4, 4000.0), "wind_onshore": 5000.0})
    assert lacking(short) == {3: ["coal"]}
    first = mix(4, {"coal": between(0, 1, 4000.0), "wind_onshore": 5000.0})
    assert lacking(first) == {0: ["coal"]}


def test_the_sun_may_be_left_out_at_night_and_not_at_noon() -> None:
    fuels = {"nuclear": 9000.0, "solar": sun}
    assert lacking(mix(WEEKS, fuels)) == {}
    assert lacking(mix(24, fuels)) == {}, "one day that begins and ends at night"

    def clouded(hour: int) -> float | None:
        return None if hour == 492 else sun(hour)  # 12:00 of a day

    assert lacking(mix(WEEKS, {**fuels, "solar": clouded})) == {492: ["solar"]}


def test_a_fuel_that_stops_for_good_condemns_nothing() -> None:
    """A small one is believed after a week; one that carried much is missed until nobody remembers it."""
    rest = {"gas": 9000.0, "wind_onshore": 5000.0}
    days = 60 * 24
    assert lacking(mix(days, {**rest, "coal": between(480, days, 800.0)})) == {}
    begins = lacking(mix(days, {**rest, "coal": between(0, 480, 800.0)}))
    assert set(begins) == set(range(7 * 24)), "what came before the first week is open"
    lately = lacking(mix(500, {**rest, "coal": between(480, 500, 800.0)}))
    assert set(lately) == set(range(480, 500)), "it may come back"
    large = lacking(mix(days, {**rest, "coal": between(480, days, 4000.0)}))
    assert (min(large), max(large)) == (480, 479 + 31 * 24)


def test_a_small_fuel_that_comes_back_had_not_stopped() -> None:
    waste = between(480, 480 + 9 * 24, 500.0)
    found = lacking(mix(WEEKS, {"gas": 9000.0, "waste": waste}))
    assert set(found) == set(range(480, 480 + 9 * 24))


def test_zeros_are_believed_of_plants_that_stop_and_start() -> None:
    def peaker(hour: int) -> float:
        return 3000.0 if 6 <= hour % 24 < 20 else 0.0

    def trips(hour: int) -> float:
        """Stops within an hour, and takes three to come back."""
        return {500: 400.0, 520: 300.0, 521: 900.0}.get(hour, 0.0 if 500 < hour < 520 else 2000.0)

    rest = {"coal": 5000.0}
    assert lacking(mix(WEEKS, {**rest, "gas": peaker})) == {}
    assert lacking(mix(48, {**rest, "gas": peaker})) == {}
    assert lacking(mix(WEEKS, {**rest, "nuclear": trips})) == {}
    jump = lacking(mix(WEEKS, {**rest, "nuclear": between(500, 503, 2000.0, 0.0)}))
    assert set(jump) == {500, 501, 502}


def test_what_carries_little_and_what_a_store_gives_back_may_be_missing() -> None:
    little = {"gas": 9000.0, "oil": between(500, 501, 100.0)}
    assert lacking(mix(WEEKS, little)) == {}
    assert set(lacking(mix(WEEKS, little), max_missing_share=0.01)) == {500}
    assert lacking(mix(WEEKS, {"gas": 9000.0, "storage": between(500, 501, 3000.0)})) == {}


def test_what_lies_beyond_the_reference_days_decides_nothing() -> None:
    """So a figure is the same, whatever span it is computed in."""
    fuels = {
        "gas": between(1500, 1512, 4000.0),
        "coal": between(900, 910, 2000.0, 0.0),
        "solar": sun,
        "wind_onshore": lambda hour: 3000.0 + 50 * (hour % 37),
    }
    whole = lacking(mix(100 * 24, fuels))
    first, last = 1480, 1530
    part = lacking(mix(last - first + 2 * 31 * 24, fuels, first - 31 * 24))
    inside = {hour: names for hour, names in part.items() if first <= hour < last}
    assert inside == {hour: names for hour, names in whole.items() if first <= hour < last}
    assert set(inside) == set(range(1500, 1512))


def test_each_feed_is_judged_by_itself() -> None:
    ours = mix(72, {"wind_onshore": 5000.0})
    theirs = mix(72, {"wind_onshore": 5000.0, "gas": between(70, 72, 4000.0)})
    both = pl.concat([ours, theirs.with_columns(feed=pl.lit("entsoe"))])
    found = find_incomplete(both, Grid())
    assert found.select("feed", "missing_share").unique().rows() == [("entsoe", 4 / 9)]
