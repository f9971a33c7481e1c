"""Energy of CPU and memory: cut at slots, shared out over the GPUs of the host."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import T0
from transforms import host
from transforms.schemas import PPM, SLOT_US

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
    found = host.host_slots(
        readings(
            [
                ("cpu", 300, 300, 3_000, False),
                ("cpu", 330, 30, 301, False),
                ("dram", 310, 20, 100, True),
            ]
        )
    ).collect()
    assert found.rows() == [
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
    found = host.host_slots(readings(rows)).collect()
    assert found["host_mj"].sum() == sum(mj for _, mj in parts)
    assert found["metered_us"].sum() == end * 1_000_000


def shared(held: list[tuple[int, str | None, int]], carriers: int | None = 2) -> pl.DataFrame:
    """Rows of (gpu_key, run, held_us) on a host that drew 4 J measured and 2 J modelled."""
    energy = pl.LazyFrame(
        [(key, "run" if run else "idle", run, _SLOT0, us) for key, run, us in held],
        schema=["gpu_key", "kind", "run_id", "slot", "held_us"],
        orient="row",
    )
    devices = pl.LazyFrame(
        {
            "gpu_key": [0, 1],
            "site": ["s", "s"],
            "host": ["n", "n"],
            "is_gpu": [True, True],
            "carriers": pl.Series([carriers, carriers], dtype=pl.Int64),
        }
    )
    slots = pl.LazyFrame(
        {
            "host": ["n"],
            "slot": [_SLOT0],
            "host_mj": [6_000],
            "host_modelled_mj": [2_000],
            "metered_us": [SLOT_US],
        }
    )
    return (
        host.share_out(
            energy,
            devices,
            slots,
            measured_ppm=PPM // 10,
            modelled_low_ppm=PPM // 2,
            modelled_high_ppm=2 * PPM,
        )
        .sort("gpu_key", "run_id", nulls_last=True)
        .collect()
    )


def test_each_gpu_carries_its_part() -> None:
    found = shared([(0, "a", SLOT_US), (1, "b", SLOT_US // 4), (1, None, SLOT_US * 3 // 4)])
    assert found["host_mj"].to_list() == [3_000, 750, 2_250]
    assert found["host_measured_mj"].to_list() == [2_000, 500, 1_500]
    assert found["host_low_mj"].to_list() == [2_300, 575, 1_725]
    assert found["host_high_mj"].to_list() == [4_200, 1_050, 3_150]
    assert found["metered_us"].to_list() == [SLOT_US, SLOT_US // 4, SLOT_US * 3 // 4]


def test_a_host_device_beside_gpus_carries_nothing() -> None:
    assert shared([(0, "a", SLOT_US)], carriers=None)["host_mj"].to_list() == [0]


@given(st.lists(st.integers(0, SLOT_US), min_size=2, max_size=2))
def test_never_more_than_the_host_drew(held: list[int]) -> None:
    found = shared([(0, "a", held[0]), (0, None, SLOT_US - held[0]), (1, "b", held[1])])
    assert found["host_mj"].sum() <= 6_000
    assert (found["host_low_mj"] <= found["host_mj"]).all()
    assert (found["host_mj"] <= found["host_high_mj"]).all()
