"""Attribution: every millijoule goes somewhere, once."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import T0, readings_frame
from transforms import attribution, energy
from transforms.constants import SLOT_US
from transforms.gaps import GapRule

RULE = GapRule()
Held = tuple[str, int, int, int | None, int]
"""run, gpu, from (ms after T0), to, share in ppm"""

_ALLOCATIONS = {
    "run_id": pl.String,
    "gpu_key": pl.Int32,
    "from_ts": pl.Datetime("us", "UTC"),
    "to_ts": pl.Datetime("us", "UTC"),
    "share_ppm": pl.Int32,
}


def attributed(
    frame: pl.DataFrame, held: list[Held], as_of_s: int = 3600
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(energy by run, metered slots) for readings and allocations."""
    allocations = pl.LazyFrame(
        [
            (
                run,
                gpu,
                T0 + timedelta(milliseconds=a),
                b if b is None else T0 + timedelta(milliseconds=b),
                share,
            )
            for run, gpu, a, b, share in held
        ],
        schema=_ALLOCATIONS,
        orient="row",
    )
    as_of = int((T0 + timedelta(seconds=as_of_s)).timestamp() * 1_000_000)
    spans = attribution.close_allocations(allocations, as_of).collect().lazy()
    stretches = energy.reduce_readings(frame, RULE)
    slots = (
        energy.compute_gpu_slots(stretches.lazy(), RULE, spans.collect())
        .with_columns(slot=pl.col("slot_start").to_physical() // SLOT_US)
        .collect()
    )
    cut = attribution.cut_slots(spans).collect().lazy()
    intervals = pl.concat(
        [
            energy.measure_intervals(frame.lazy(), RULE, spans.collect()),
            energy.measure_slot_crossings(stretches.lazy(), RULE, spans.collect()),
        ]
    )
    limits = (
        frame.lazy()
        .select("gpu_key")
        .unique()
        .with_columns(idle_mw=pl.lit(50_000, pl.Int64), limit_mw=pl.lit(700_000, pl.Int64))
    )
    found = attribution.attribute_energy(
        slots.lazy(),
        energy.compute_cell_energy(intervals, cut),
        attribution.list_held_cells(spans, cut),
        limits,
    ).collect()
    powers = attribution.find_usual_powers(found.lazy(), limits)
    return attribution.fill_unread_time(found.lazy(), powers).collect(), slots


def power_rows(seconds: int = 1200, gpus: int = 2, step: float = 1.0) -> pl.DataFrame:
    return readings_frame(
        [
            (gpu, i * step, 300_000 + 7_919 * ((i * 31 + gpu) % 40), None)
            for gpu in range(gpus)
            for i in range(int(seconds / step))
        ]
    )


def total(found: pl.DataFrame, *runs: str) -> int:
    mine = found.filter(pl.col("run_id").is_in(runs))
    return int(mine.select(pl.sum_horizontal(*attribution.METERED)).to_series().sum())


def kind(found: pl.DataFrame, name: str) -> int:
    mine = found.filter(pl.col("kind") == name)
    return int(mine.select(pl.sum_horizontal(*attribution.METERED)).to_series().sum())


@st.composite
def allocations(draw: st.DrawFn) -> list[Held]:
    """Up to four runs on two GPUs whose shares never exceed the GPU."""
    held: list[Held] = []
    for gpu in range(2):
        left = 1_000_000
        for number in range(draw(st.integers(0, 4))):
            share = draw(st.integers(1, left)) if draw(st.booleans()) else left
            start = draw(st.integers(0, 1_300_000))
            end = draw(st.none() | st.integers(start + 1, 2_000_000))
            held.append((f"r{number}", gpu, start, end, share))
            left -= share
            if left == 0:
                break
    return held


@given(allocations())
def test_energy_is_conserved_to_the_millijoule(held: list[Held]) -> None:
    found, slots = attributed(power_rows(), held)
    checked = attribution.check_conservation(slots.lazy(), found.lazy()).collect()
    assert checked["difference_mj"].abs().sum() == 0
    assert checked["metered_mj"].sum() == kind(found, "run") + kind(found, "idle") + kind(
        found, "unallocated"
    )
    for name in attribution.METERED:
        assert found[name].sum() == slots[name].sum()
        assert (found[name] >= 0).all()


@given(st.integers(1, 1_199_999), st.integers(1, 1_000_000))
def test_splitting_a_run_in_two_adds_up(at_ms: int, share: int) -> None:
    frame = power_rows(gpus=1)
    whole, _ = attributed(frame, [("a", 0, 0, 1_200_000, share)])
    halves, _ = attributed(frame, [("a", 0, 0, at_ms, share), ("b", 0, at_ms, 1_200_000, share)])
    # A share is floored in each cell; a cut makes one cell more.
    slack = 0 if share == 1_000_000 else 1
    assert 0 <= total(whole, "a") - total(halves, "a", "b") <= slack


def test_a_run_without_an_end_goes_on_to_the_last_reading() -> None:
    open_ended, _ = attributed(power_rows(), [("a", 0, 0, None, 1_000_000)], as_of_s=1200)
    closed, _ = attributed(power_rows(), [("a", 0, 0, 1_200_000, 1_000_000)])
    assert total(open_ended, "a") == total(closed, "a") > 0


def test_time_without_readings_is_filled_with_the_runs_mean_between_idle_and_limit() -> None:
    found, _ = attributed(power_rows(seconds=600), [("a", 0, 0, 1_200_000, 500_000)])
    row = found.filter(pl.col("run_id") == "a").sum()
    # 600 s and the last second without reading, half a GPU: 50 W, what it drew before, and 700 W.
    assert row["filled_us"].item() == 601 * 1_000_000 // 2
    assert row["filled_low_mj"].item() == 601 * 50_000 // 2
    assert row["filled_mj"].item() / 601 == pytest.approx(total(found, "a") / 599, rel=1e-5)
    assert row["filled_high_mj"].item() == 601 * 700_000 // 2


def test_two_runs_on_one_gpu_share_it_and_the_rest_is_unallocated() -> None:
    held: list[Held] = [("a", 0, 0, 600_000, 500_000), ("b", 0, 0, 600_000, 250_000)]
    found, slots = attributed(power_rows(seconds=601, gpus=1), held)
    metered = slots.filter(pl.col("slot") < slots["slot"].max()).select(
        pl.sum_horizontal(*attribution.METERED).sum()
    )
    in_run = metered.item()
    assert abs(total(found, "a") - in_run / 2) <= 3
    assert abs(total(found, "b") - in_run / 4) <= 3
    assert total(found, "a") + total(found, "b") + kind(found, "unallocated") == in_run


def test_bounds_hold_the_value_and_gaps_widen_them() -> None:
    frame = power_rows().filter(~pl.col("ts").dt.minute().is_between(3, 6))
    found, _ = attributed(frame, [("a", 0, 0, 1_100_000, 333_333)])
    bounded = attribution.add_bounds(found.lazy(), 50_000, 50_000).collect()
    assert (bounded["energy_low_mj"] <= bounded["energy_mj"]).all()
    assert (bounded["energy_mj"] <= bounded["energy_high_mj"]).all()
    assert (bounded["gap_low_mj"] <= bounded["gap_mj"]).all()
    assert (bounded["gap_mj"] <= bounded["gap_high_mj"]).all()
    assert bounded["gap_mj"].sum() > 0


def hole(seconds: int, run_w: float) -> pl.DataFrame:
    """Readings every 10 s: a run for ten minutes, ten idle minutes, a hole, ten idle minutes."""
    rows = [(0, t, run_w * 1000 if t < 600 else 60_000, None) for t in range(0, 1201, 10)]
    rows += [(0, 1200 + seconds + t, 60_000, None) for t in range(0, 601, 10)]
    return readings_frame([(gpu, float(t), int(power), c) for gpu, t, power, c in rows])


@settings(max_examples=20)
@given(st.integers(700, 20_000), st.integers(1, 90), st.integers(70, 690))
def test_a_run_inside_a_hole_has_its_own_mean_whatever_the_hole(
    seconds: int, start: int, run_w: int
) -> None:
    """The idle readings around the hole say nothing of it, up to `max_bridge_s` as beyond."""
    start_ms, end_ms = (1200 + start) * 1000, (1200 + start + 600) * 1000
    held: list[Held] = [("a", 0, 0, 590_000, 1_000_000), ("a", 0, start_ms, end_ms, 1_000_000)]
    found, slots = attributed(hole(seconds, run_w), held, as_of_s=30_000)
    assert found["filled_us"].sum() == 600_000_000
    filled = found["filled_mj"].sum()
    # Each slot is rounded down to a millijoule.
    assert run_w * 600_000 - 10 <= filled <= run_w * 600_000
    assert found["filled_low_mj"].sum() <= 50_000 * 600 <= filled
    assert filled <= 700_000 * 600 <= found["filled_high_mj"].sum() + 10
    # Nothing of the hole is held by the run as metered; what nobody held at its ends is idle.
    assert total(found, "a") == run_w * 590_000
    bridged = 60_000 * (seconds - 600) if seconds <= 3600 else 0
    assert slots["gap_mj"].sum() == found["gap_mj"].sum() == bridged


def test_a_run_that_nobody_ever_read_stays_at_the_limit() -> None:
    found, _ = attributed(hole(2000, 400), [("a", 0, 1_300_000, 1_900_000, 1_000_000)], 30_000)
    assert found["filled_mj"].sum() == found["filled_high_mj"].sum() == 700_000 * 600


def test_a_run_that_goes_on_through_a_hole_has_the_trapezoid_of_its_own_readings() -> None:
    """No jump at `max_bridge_s`, and the bounds are idle and limit."""
    for seconds in (3590, 3610, 20_000):
        found, _ = attributed(hole(seconds, 60), [("a", 0, 0, 40_000_000, 1_000_000)], 40_000)
        [gap] = found.select(pl.col("gap_mj", "gap_low_mj", "gap_high_mj").sum()).rows()
        assert gap == (60_000 * seconds, 50_000 * seconds, 700_000 * seconds)


def test_what_other_gpus_of_a_run_drew_stands_in_for_one_that_nobody_read() -> None:
    frame = pl.concat([hole(2000, 400), hole(2000, 60).with_columns(gpu_key=pl.lit(1, pl.Int32))])
    held: list[Held] = [
        ("a", 0, 0, 590_000, 1_000_000),
        ("a", 1, 1_300_000, 1_900_000, 1_000_000),
    ]
    found, _ = attributed(frame, held, as_of_s=30_000)
    assert found["filled_mj"].sum() == 400_000 * 600
