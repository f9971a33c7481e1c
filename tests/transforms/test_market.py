"""Contracts against the energy of a site."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import T0
from transforms import market
from transforms.constants import PPM, SLOT_US

KWH_MJ = 3_600_000_000
HOUR_US = 3_600_000_000
T0_US = int(T0.timestamp() * 1_000_000)
SLOT0 = T0_US // SLOT_US


def energy(kwh: list[int], site: str = "s") -> pl.LazyFrame:
    """Energy of a site, one value per hour, all of it in the hour's first slot."""
    return pl.LazyFrame(
        {
            "site": [site] * len(kwh),
            "slot": [SLOT0 + 12 * hour for hour in range(len(kwh))],
            "grid_mj": [k * KWH_MJ for k in kwh],
        }
    )


def contract(name: str, matching: str = "hourly", share: float | None = None) -> dict[str, object]:
    return {
        "contract": name,
        "site": "s",
        "matching": matching,
        "share_ppm": None if share is None else round(share * PPM),
        "first_us": T0_US - 24 * HOUR_US,
        "last_us": T0_US + 240 * HOUR_US,
        "intensity_g_per_kwh": 20.0,
        "intensity_low_g_per_kwh": 10.0,
        "intensity_high_g_per_kwh": 30.0,
    }


def covered(
    used: pl.LazyFrame,
    contracts: list[dict[str, object]],
    deliveries: list[tuple[str, int, int, float]],
) -> dict[tuple[str, int], int]:
    """Covered ppm by contract and hour; deliveries as (contract, first hour, last hour, kWh)."""
    table = pl.LazyFrame(
        [{"position": n, **contract} for n, contract in enumerate(contracts)],
        schema_overrides={"share_ppm": pl.Int64},
    )
    volumes = pl.LazyFrame(
        [(c, T0_US + a * HOUR_US, T0_US + b * HOUR_US, float(k)) for c, a, b, k in deliveries],
        schema={
            "contract": pl.String,
            "first_us": pl.Int64,
            "last_us": pl.Int64,
            "energy_kwh": pl.Float64,
        },
        orient="row",
    )
    shares = market.match_contracts(used, table, volumes).collect()
    return {(row[0], (row[2] - SLOT0) // 12): row[3] for row in shares.rows()}


def test_hourly_matching_covers_each_hour_with_what_was_delivered_in_it() -> None:
    shares = covered(
        energy([10, 10, 10]), [contract("wind")], [("wind", 0, 1, 5), ("wind", 1, 2, 40)]
    )
    assert shares == {("wind", 0): 500_000, ("wind", 1): PPM}


def test_annual_matching_carries_a_surplus_to_other_hours() -> None:
    shares = covered(energy([10, 10, 10]), [contract("wind", "annual")], [("wind", 1, 2, 15)])
    assert shares == {("wind", hour): 500_000 for hour in range(3)}


def test_a_volume_accrues_evenly_and_only_while_the_site_is_known() -> None:
    """2,640 kWh over 264 hours are 10 an hour; the ledger knows 2 hours and 5 minutes of the site."""
    shares = covered(energy([20, 20, 20]), [contract("ppa", "annual")], [("ppa", -24, 240, 2640)])
    known_kwh = 10 * (2 + 5 / 60)
    assert shares[("ppa", 1)] == int(known_kwh / 60 * PPM)


def test_a_year_ends_with_its_last_hour() -> None:
    """What was delivered in December covers nothing in January."""
    december = pl.datetime(2024, 12, 31, 23, time_zone="UTC")
    start = pl.select(december.dt.epoch("us")).item()
    used = pl.LazyFrame(
        {
            "site": ["s", "s"],
            "slot": [start // SLOT_US, start // SLOT_US + 12],
            "grid_mj": [10 * KWH_MJ] * 2,
        }
    )
    year = {**contract("c", "annual"), "first_us": start - HOUR_US, "last_us": start + 9 * HOUR_US}
    offset = (start - T0_US) // HOUR_US
    shares = covered(used, [year], [("c", offset, offset + 1, 20)])
    assert [key[1] * 12 + SLOT0 for key in shares] == [start // SLOT_US]


def test_contracts_are_used_in_order_and_never_twice() -> None:
    shares = covered(
        energy([10, 10]),
        [contract("first"), contract("tariff", share=1.0), contract("late", share=1.0)],
        [("first", 0, 1, 4)],
    )
    assert shares == {("first", 0): 400_000, ("tariff", 0): 600_000, ("tariff", 1): PPM}


def test_another_site_has_no_part_in_it() -> None:
    assert covered(energy([10], "other"), [contract("c", share=1.0)], []) == {}


def test_intensities_are_weighed_by_what_each_contract_covers() -> None:
    contracts = pl.LazyFrame([contract("a"), {**contract("b"), "intensity_g_per_kwh": 100.0}])
    slots = pl.LazyFrame(
        {
            "contract": ["a", "b"],
            "site": ["s"] * 2,
            "slot": [7] * 2,
            "covered_ppm": [250_000, 500_000],
        }
    )
    total = market.sum_contracts(slots, contracts).collect().row(0, named=True)
    assert total["contracted_ppm"] == 750_000
    assert total["contracted_g_per_kwh"] == pytest.approx(0.25 * 20 + 0.5 * 100)


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 10**7)), max_size=10),
    st.sampled_from(["hourly", "annual"]),
)
def test_no_contract_covers_more_than_it_delivered_or_than_was_used(
    kwh: list[int], delivered: list[tuple[int, int]], matching: str
) -> None:
    shares = covered(
        energy(kwh),
        [contract("a", matching), contract("b", matching)],
        [(name, hour, hour + 1, float(k)) for name in "ab" for hour, k in delivered],
    )
    for hour, used in enumerate(kwh):
        ppm = [shares.get((name, hour), 0) for name in "ab"]
        assert sum(ppm) <= PPM
        if matching == "hourly":
            limit = sum(k for h, k in delivered if h == hour)
            assert all(used * share <= limit * PPM for share in ppm)
    total = sum(used * shares.get(("a", hour), 0) for hour, used in enumerate(kwh))
    assert total <= sum(k for _, k in delivered) * PPM


def tariff(price: float, **others: object) -> dict[str, object]:
    return {
        "site": "s",
        "price_per_kwh": price,
        "from_hour": 0,
        "to_hour": 24,
        "weekdays": [1, 2, 3, 4, 5, 6, 7],
        "tz": "UTC",
        "first_us": None,
        "last_us": None,
        **others,
    }


def price_at(moment: datetime, *tariffs: dict[str, object], site: str = "s") -> float | None:
    slot = int(moment.timestamp() * 1_000_000) // SLOT_US
    priced = market.price_slots(pl.LazyFrame({"site": [site], "slot": [slot]}), tariffs).collect()
    return priced["price_per_kwh"][0]  # type: ignore[no-any-return]


def test_of_the_tariffs_that_fit_the_last_counts() -> None:
    night = tariff(0.1, from_hour=22, to_hour=6, tz="Europe/Berlin")
    weekend = tariff(0.05, weekdays=[6, 7])
    friday = datetime(2024, 5, 3, tzinfo=UTC)
    assert price_at(friday + timedelta(hours=12), tariff(0.3), night, weekend) == 0.3
    # 20:00 UTC is 22:00 in Berlin in summer, 21:00 in winter.
    assert price_at(friday + timedelta(hours=20), tariff(0.3), night, weekend) == 0.1
    assert price_at(datetime(2024, 1, 5, 20, tzinfo=UTC), tariff(0.3), night) == 0.3
    assert price_at(friday + timedelta(hours=27), tariff(0.3), night, weekend) == 0.05
    assert price_at(friday, night, site="elsewhere") is None
    soon = int((friday + timedelta(hours=13)).timestamp() * 1_000_000)
    later = tariff(0.4, first_us=soon)
    assert price_at(friday + timedelta(hours=12), tariff(0.3), later) == 0.3
    assert price_at(friday + timedelta(hours=13), tariff(0.3), later) == 0.4
