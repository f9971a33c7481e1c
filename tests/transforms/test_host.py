"""Energy of CPU and memory: cut at slots, shared out over the GPUs of the host."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import T0
from transforms import attribution, host
from transforms.constants import PPM, SLOT_US

_SLOT0 = int(T0.timestamp() * 1e6) // SLOT_US


def readings(rows: list[tuple[str, float, float, int, bool]]) -> pl.LazyFrame:
    """From (component, end in seconds after T0, length in seconds, energy_mj, is_modelled)."""
    return pl.LazyFrame(
        [
            ("n", c, T0 + timedelta(seconds=end), round(span * 1e6), mj, modelled)
            for c, end, span, mj, modelled in rows
        ],
        schema={
            "host": pl.String,
            "component": pl.String,
            "ts": pl.Datetime("us", "UTC"),
            "span_us": pl.Int64,
            "energy_mj": pl.Int64,
            "is_modelled": pl.Boolean,
        },
        orient="row",
    )


def test_intervals_are_cut_at_slots_and_parts_added() -> None:
    found = host.sum_host_slots(
        readings(
            [
                ("cpu", 300, 300, 3_000, False),
                ("cpu", 330, 30, 301, False),
                ("dram", 310, 20, 100, True),
            ]
        )
    ).collect()
    assert found.select("host", "slot", "host_mj", "host_modelled_mj", "metered_us").rows() == [
        ("n", _SLOT0, 3_050, 50, 300_000_000),
        ("n", _SLOT0 + 1, 351, 50, 30_000_000),
    ]


@given(
    st.lists(st.tuples(st.integers(1, 2_000), st.integers(0, 10**7)), min_size=1, max_size=12),
)
def test_no_energy_is_lost_at_borders(parts: list[tuple[int, int]]) -> None:
    end = 0.0
    rows: list[tuple[str, float, float, int, bool]] = []
    for seconds, energy_mj in parts:
        end += seconds
        rows.append(("cpu", end, seconds, energy_mj, False))
    found = host.sum_host_slots(readings(rows)).collect()
    assert found["host_mj"].sum() == sum(mj for _, mj in parts)
    assert found["metered_us"].sum() == end * 1_000_000


def carriers(gpus: int) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "gpu_key": pl.Series(range(gpus), dtype=pl.Int32),
            "host": ["n"] * gpus,
            "place": list(range(gpus)),
            "count": [gpus] * gpus,
        }
    )


def allocations(rows: list[tuple[str, int, int, int, int]]) -> pl.LazyFrame:
    """From (run, gpu_key, from and to in seconds after T0, share_ppm), as `attribution.close_allocations`."""
    return pl.LazyFrame(
        [(run, key, _T0 + a * 10**6, _T0 + b * 10**6, ppm) for run, key, a, b, ppm in rows],
        schema={
            "run_id": pl.String,
            "gpu_key": pl.Int32,
            "from_us": pl.Int64,
            "to_us": pl.Int64,
            "share_ppm": pl.Int64,
        },
        orient="row",
    )


_T0 = _SLOT0 * SLOT_US


def attributed(
    given_readings: pl.LazyFrame, held: pl.LazyFrame, gpus: int = 2
) -> dict[tuple[str, str | None], tuple[int, int, int]]:
    """(kind, run) -> measured and modelled energy, and seconds metered."""
    cut = attribution.cut_slots(held)
    energy = host.divide_among_gpus(given_readings, carriers(gpus), cut)
    found = host.attribute_host_energy(energy, attribution.list_held_cells(held, cut)).collect()
    totals = found.group_by("kind", "run_id").agg(pl.col(*host.ENERGY, "metered_us").sum())
    return {(k, r): (a, b, us // 10**6) for k, r, a, b, us in totals.iter_rows()}


def test_a_run_gets_the_energy_of_its_own_time() -> None:
    # 10 W measured in the first half of the slot, 30 W in the second; memory modelled at 2 W.
    metered = readings(
        [
            ("cpu", 150, 150, 1_500_000, False),
            ("cpu", 300, 150, 4_500_000, False),
            ("dram", 300, 300, 600_000, True),
        ]
    )
    held = allocations([("a", 0, 0, 150, PPM), ("b", 0, 150, 300, PPM), ("b", 1, 150, 300, PPM)])
    assert attributed(metered, held) == {
        ("run", "a"): (750_000, 150_000, 150),
        ("run", "b"): (4_500_000, 300_000, 300),
        ("idle", None): (750_000, 150_000, 150),
    }


def test_shares_of_a_gpu_are_shares_of_what_it_carries() -> None:
    metered = readings([("cpu", 300, 300, 1_000_001, False)])
    held = allocations([("a", 0, 0, 300, PPM // 4), ("b", 0, 0, 300, PPM // 2)])
    found = attributed(metered, held, gpus=1)
    assert found == {
        ("run", "a"): (250_000, 0, 75),
        ("run", "b"): (500_000, 0, 150),
        ("unallocated", None): (250_001, 0, 75),
    }


def test_a_meter_that_was_away_gives_nothing_for_that_time() -> None:
    metered = readings([("cpu", 20, 20, 400_000, False)])
    held = allocations([("a", 0, 0, 200, PPM)])
    assert attributed(metered, held, gpus=1) == {("run", "a"): (400_000, 0, 20)}


@given(
    st.lists(
        st.tuples(st.integers(1, 900), st.integers(0, 10**7), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 900), st.integers(1, 600), st.integers(1, PPM // 3)
        ),
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_no_energy_of_a_host_is_lost_or_doubled(
    parts: list[tuple[int, int, bool]], runs: list[tuple[int, int, int, int]], gpus: int
) -> None:
    end = 0.0
    rows: list[tuple[str, float, float, int, bool]] = []
    for seconds, energy_mj, modelled in parts:
        end += seconds
        rows.append(("cpu", end, seconds, energy_mj, modelled))
    held = allocations(
        [(f"r{i}", key % gpus, a, a + n, ppm) for i, (key, a, n, ppm) in enumerate(runs[:3])]
    )
    found = attributed(readings(rows), held, gpus)
    assert sum(v[0] for v in found.values()) == sum(mj for _, mj, m in parts if not m)
    assert sum(v[1] for v in found.values()) == sum(mj for _, mj, m in parts if m)


def test_gpu_and_host_stand_side_by_side_with_bounds() -> None:
    key = {"kind": ["run"], "run_id": ["a"], "gpu_key": [0], "slot": [_SLOT0]}
    energy = pl.LazyFrame({**key, "energy_mj": [5], "held_us": [100]})
    idle = {"kind": ["idle"], "run_id": pl.Series([None], dtype=pl.String), "gpu_key": [1]}
    hosts = pl.concat(
        [
            pl.LazyFrame(
                {
                    **given_row,
                    "host_measured_mj": [1000],
                    "host_modelled_mj": [200],
                    "metered_us": [80],
                }
            )
            for given_row in (key, {**idle, "slot": [_SLOT0]})
        ]
    )
    found = (
        host.add_host_energy(
            energy,
            hosts,
            measured_ppm=PPM // 10,
            modelled_low_ppm=PPM // 2,
            modelled_high_ppm=2 * PPM,
        )
        .sort("kind")
        .collect()
    )
    assert found["kind"].to_list() == ["idle", "run"]
    assert found["energy_mj"].to_list() == [0, 5]
    assert found["host_mj"].to_list() == [1200, 1200]
    assert found["host_low_mj"].to_list() == [1000, 1000]
    assert found["host_high_mj"].to_list() == [1500, 1500]
    assert found["metered_us"].to_list() == [0, 80]
