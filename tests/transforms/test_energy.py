"""Energy of GPUs in slots: against an exact oracle, and whatever the order and the pieces."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import defaultdict
from fractions import Fraction
from unittest import mock

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT, T0, readings_frame
from transforms import energy
from transforms.constants import SLOT_US
from transforms.gaps import GapRule

RULE = GapRule()
BASE_US = int(T0.timestamp() * 1_000_000)
Row = tuple[int, float, int | None, int | None]


@st.composite
def readings(draw: st.DrawFn) -> list[Row]:
    """Up to three GPUs with odd steps, holes, missing values, and counters that reset."""
    rows: list[Row] = []
    for gpu in range(draw(st.integers(1, 3))):
        has_counter = draw(st.booleans())
        at = Fraction(draw(st.integers(0, 600_000_000)), 1_000_000)
        counter = draw(st.integers(0, 10**12))
        for _ in range(draw(st.integers(1, 25))):
            power = draw(st.none() | st.integers(0, 1_200_000))
            value = counter if has_counter and draw(st.booleans()) else None
            rows.append((gpu, float(at), power, value))
            step = draw(
                st.sampled_from([Fraction(1, 10), Fraction(1), Fraction(7, 3), Fraction(29)])
                | st.integers(1, 5000).map(Fraction)
            )
            at += Fraction(round(step * 1_000_000), 1_000_000)
            counter += draw(st.integers(0, 10**7))
            if draw(st.integers(0, 9)) == 0:
                counter = draw(st.integers(0, 1000))
    return rows


def reduce(frame: pl.DataFrame, rule: GapRule = RULE) -> pl.DataFrame:
    """As the flow does it: as the readings come, and sorted only where that will not do."""
    parts = energy.reduce_readings(frame, rule)
    if not energy.find_overlaps(parts).is_empty():
        parts = energy.reduce_readings(frame.sort(frame.columns), rule)
    return energy.compute_gpu_slots(parts.lazy(), rule).collect()


def oracle(rows: list[Row], rule: GapRule = RULE) -> dict[tuple[int, int, str], Fraction]:
    """Exact energy in mJ per (gpu, slot, kind), interval by interval, in fractions."""
    total: dict[tuple[int, int, str], Fraction] = defaultdict(Fraction)
    for gpu in {r[0] for r in rows}:
        mine = sorted(r for r in rows if r[0] == gpu and (r[2] is not None or r[3] is not None))
        for (_, s0, p0, c0), (_, s1, p1, c1) in itertools.pairwise(mine):
            t0, t1 = (BASE_US + round(s * 1e6) for s in (s0, s1))
            dt = t1 - t0
            if dt == 0:
                continue
            if c0 is not None and c1 is not None and c1 >= c0:
                kind, amount = "counter_mj", Fraction(c1 - c0)
            elif p0 is not None and p1 is not None:
                kind = "power_integral_mj" if dt <= rule.max_gap_us else "gap_mj"
                if dt > rule.max_bridge_us:
                    continue
                amount = Fraction((p0 + p1) * dt, 2_000_000)
            else:
                continue
            for slot in range(t0 // SLOT_US, (t1 - 1) // SLOT_US + 1):
                part = min(t1, (slot + 1) * SLOT_US) - max(t0, slot * SLOT_US)
                total[gpu, slot, kind] += amount * Fraction(part, dt)
    return total


@given(readings())
def test_matches_the_exact_integral(rows: list[Row]) -> None:
    found = reduce(readings_frame(rows))
    expected = oracle(rows)
    seen = set()
    for row in found.iter_rows(named=True):
        slot = int(row["slot_start"].timestamp() * 1_000_000) // SLOT_US
        for kind in ("counter_mj", "power_integral_mj", "gap_mj"):
            exact = expected.get((row["gpu_key"], slot, kind), Fraction(0))
            # Power is rounded once per slot; counters floor once at each end of an interval.
            slack = Fraction(1, 2) if kind != "counter_mj" else Fraction(1)
            assert abs(row[kind] - exact) <= slack
            seen.add((row["gpu_key"], slot, kind))
    assert {key for key, value in expected.items() if value} <= seen


@given(readings())
def test_counters_lose_nothing_across_slots(rows: list[Row]) -> None:
    found = reduce(readings_frame(rows))
    exact = sum(v for (_, _, kind), v in oracle(rows).items() if kind == "counter_mj")
    assert found["counter_mj"].sum() == exact


def test_a_step_back_hidden_by_a_reading_without_value() -> None:
    rows: list[Row] = [(0, 0.5, 7000, None), (0, 0.6, None, None), (0, 0.4, 5000, None)]
    apart = [rows[0], (1, 0.0, None, None), rows[2]]
    assert reduce(readings_frame(apart)).equals(reduce(readings_frame(sorted(rows))))


@given(readings(), st.randoms(use_true_random=False), st.lists(st.integers(0, 80), max_size=6))
def test_order_pieces_and_chunks_change_nothing(
    rows: list[Row], random: object, cuts: list[int]
) -> None:
    whole = reduce(readings_frame(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reduce(readings_frame(shuffled)).equals(whole)

    ordered = readings_frame(rows)
    edges = sorted({0, ordered.height, *(c for c in cuts if c < ordered.height)})
    pieces = [ordered.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    stretches = pl.concat([energy.reduce_readings(p, RULE) for p in pieces])
    assert energy.find_overlaps(stretches).is_empty()
    assert (
        energy.compute_gpu_slots(stretches.lazy(), RULE)
        .collect()
        .drop("readings")
        .equals(whole.drop("readings"))
    )
    chunked = pl.concat([ordered.slice(i, 1) for i in range(ordered.height)], rechunk=False)
    assert reduce(chunked).equals(whole)
    with mock.patch.object(energy, "_BLOCK", 3):
        assert reduce(readings_frame(rows)).equals(whole)


@given(readings())
def test_the_same_readings_twice_change_no_millijoule(rows: list[Row]) -> None:
    once = reduce(readings_frame(rows)).drop("readings")
    assert reduce(readings_frame(rows + rows)).drop("readings").equals(once)


@given(readings(), st.lists(st.integers(0, 6_000_000_000), min_size=1, max_size=5))
def test_cut_slots_add_up_to_whole_ones(rows: list[Row], cuts: list[int]) -> None:
    frame = readings_frame(rows)
    stretches = energy.reduce_readings(frame, RULE)
    whole = energy.compute_gpu_slots(stretches.lazy(), RULE).collect()
    slots = sorted({(BASE_US + c) // SLOT_US for c in cuts})
    cells = []
    for gpu in frame["gpu_key"].unique():
        for slot in slots:
            inner = {BASE_US + c for c in cuts if (BASE_US + c) // SLOT_US == slot}
            edges = sorted({slot * SLOT_US, (slot + 1) * SLOT_US, *inner})
            cells += [(gpu, slot, a, b) for a, b in itertools.pairwise(edges)]
    schema = {"gpu_key": pl.Int32, "slot": pl.Int64, "cell_start": pl.Int64, "cell_end": pl.Int64}
    table = pl.LazyFrame(cells, schema=schema, orient="row")
    spans = pl.concat(
        [
            energy.measure_intervals(frame.lazy(), RULE),
            energy.measure_slot_crossings(stretches.lazy(), RULE),
        ]
    )
    found = energy.compute_cell_energy(spans, table).collect()
    kinds = ["counter_mj", "power_integral_mj", "gap_mj", "covered_us", "gap_us"]
    by_slot = found.group_by("gpu_key", "slot").agg(pl.col(kinds).sum())
    expected = whole.with_columns(slot=pl.col("slot_start").to_physical() // SLOT_US)
    joined = by_slot.join(expected, on=["gpu_key", "slot"], how="left", suffix="_whole")
    for kind in kinds:
        assert (joined[kind] == joined[f"{kind}_whole"].fill_null(0)).all()
    assert (found.select(pl.min_horizontal(kinds).min()).item() or 0) >= 0


def test_a_one_second_average_stands_for_the_second_before_it() -> None:
    frame = readings_frame([(1, 0, 100_000, None), (1, 1, 300_000, None)])
    averaged = frame.with_columns(averaged=pl.lit(True))
    assert reduce(frame)["power_integral_mj"].sum() == 200_000
    assert reduce(averaged)["power_integral_mj"].sum() == 300_000
    far = readings_frame([(1, 0, 100_000, None), (1, 5, 300_000, None)])
    assert reduce(far.with_columns(averaged=pl.lit(True)))["power_integral_mj"].sum() == 1_000_000


def test_counter_reset_falls_back_to_power() -> None:
    rows: list[Row] = [(1, 0, 100_000, 5_000), (1, 1, 100_000, 105_000), (1, 2, 100_000, 10)]
    found = reduce(readings_frame(rows))
    assert found.select("counter_mj", "power_integral_mj", "counter_resets").row(0) == (
        100_000,
        100_000,
        1,
    )


@pytest.mark.parametrize(
    ("step_s", "measured", "estimated"),
    [(30, 3_000_000, 0), (31, 0, 3_100_000), (3600, 0, 360_000_000), (3601, 0, 0)],
)
def test_gaps_are_estimated_and_holes_claim_nothing(
    step_s: int, measured: int, estimated: int
) -> None:
    found = reduce(readings_frame([(1, 0, 100_000, None), (1, step_s, 100_000, None)]))
    assert found["power_integral_mj"].sum() == measured
    assert found["gap_mj"].sum() == estimated


def test_overlapping_pieces_are_noticed() -> None:
    """In their slot; in the next one, the pieces only touch."""
    frame = readings_frame([(1, s, 100_000, None) for s in range(290, 300)])
    after = readings_frame([(1, s, 100_000, None) for s in range(300, 310)])
    odd, even = frame.gather_every(2), frame.gather_every(2, 1)
    parts = [energy.reduce_readings(p, RULE) for p in (odd, even, after[:5], after[4:])]
    slot = (BASE_US + 290_000_000) // SLOT_US
    assert energy.find_overlaps(pl.concat(parts)).rows() == [(1, slot)]


_SCRIPT = """
import polars as pl
from flows.samples.host import Work, generate_host_readings
from tests.conftest import T0
from transforms import energy
r = generate_host_readings("n", gpus=8, start=T0, seconds=20000, work=[Work(range(8), 5, 15000)], counter=False)
r = r.with_columns(gpu_key=pl.col("gpu_index"), averaged=pl.lit(False))
parts = energy.reduce_readings(r, energy.GapRule())
slots = energy.compute_gpu_slots(parts.lazy(), energy.GapRule()).collect(engine="streaming")
print(slots.sum().row(0), slots.height, slots.hash_rows().sum())
"""


def test_thread_count_changes_nothing() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 7)
    }
    assert len(said) == 1
