"""Retention: readings become sums, and every figure that was published still follows from what is left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import SettingsError, UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.publication.bundle import verify_bundle, write_bundle
from flows.publication.publish import publish_candidate
from flows.publication.retention import roll_up_old_readings
from flows.publication.verify import verify_ledger
from flows.settings import Settings
from flows.warehouse.store import store_of
from tests import preloaded
from tests.conftest import T0, ask, readings_frame, runs_csv, segment, wattledger
from transforms import energy
from transforms.constants import SLOT_US
from transforms.gaps import GapRule

FIGURES = "SELECT * FROM run_footprint ORDER BY ALL"
RUN = "r1,2024-05-01T12:05:00Z,2024-05-01T12:{},node01,all,1"


def test_figures_stay_and_readings_go(uneven: Settings) -> None:
    before = ask(uneven, FIGURES)
    done = roll_up_old_readings(uneven, 30)
    # Of two GPUs the slot from 12:10 keeps its readings: the run ends in it.
    assert (done.segments, done.readings, done.readings_left) == (1, 3600, 600)
    assert done.pieces == 10
    assert ask(uneven, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 600}]
    compute(uneven)
    assert ask(uneven, FIGURES) == before
    # A new publication names what is left; it restates nothing.
    assert publish_candidate(uneven).changed
    assert ask(uneven, "FROM restatement") == []
    assert not publish_candidate(uneven).changed
    assert roll_up_old_readings(uneven, 30).segments == 0
    said = wattledger("roll-up", "--older-than", "30", "--project", uneven.root)
    assert said.returncode == 0
    assert "0 files" in said.stdout


def test_verification_says_what_can_still_be_computed(uneven: Settings, tmp_path: Path) -> None:
    roll_up_old_readings(uneven, 30)
    found = list(verify_ledger(uneven))
    assert [one for one in found if one.ok is False] == []
    [gone] = [one for one in found if one.what == "kept" and one.ok is None]
    assert gone.place.endswith("node01.parquet")
    assert "after 30 days: of 3,600 readings 600 are left and 10 sums" in gone.detail
    assert {one.ok for one in found if one.what == "figures"} == {True}
    done = write_bundle(uneven, "r1", target=tmp_path / "r1.zip")
    assert {one.ok for one in verify_bundle(done.path) if one.what == "figures"} == {True}
    # The next publication names the sums, so that these are held to their digest too.
    path = uneven.root / "wattledger.toml"
    path.write_text(path.read_text().replace("value = 1.2,", "value = 1.25,"))
    project = settings_module.load(uneven.root)
    compute(project)
    publish_candidate(project)
    kept = [one for one in verify_ledger(project) if one.what == "kept"]
    assert {one.ok for one in kept} == {True}
    assert any(one.place.startswith("gpu_piece ") for one in kept)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE gpu_piece SET last_c = last_c + 1 WHERE rowid = 3",
        "DELETE FROM gpu_piece WHERE rowid = 3",
        "UPDATE rolled_up SET readings_sha256 = 'f'",
        "UPDATE gpu_reading SET temp_c = temp_c + 1 WHERE rowid = (SELECT min(rowid) FROM gpu_reading)",
    ],
)
def test_changed_sums_are_found(tampering: str, uneven: Settings) -> None:

    roll_up_old_readings(uneven, 30)
    con = store_of(uneven).connect()
    con.execute(tampering)
    con.close()
    assert any(one.ok is False for one in verify_ledger(uneven))


def test_what_is_new_or_not_published_stays(loaded: Settings) -> None:
    compute(loaded)
    assert roll_up_old_readings(loaded, 30).segments == 0
    publish_candidate(loaded)
    recent = segment(loaded.root, "node02")
    ingest_gpu(loaded, [recent])
    done = roll_up_old_readings(loaded, 30)
    assert (done.segments, done.segments_waiting) == (1, 0)
    assert roll_up_old_readings(loaded, 36500).segments == 0
    with pytest.raises(UsageError, match="no age is given"):
        roll_up_old_readings(loaded)


def test_segments_that_overlap_are_left_alone(loaded: Settings) -> None:
    frame = pl.read_parquet(loaded.root / "node01.parquet")
    from flows.sources.gpu import segments

    between = frame.filter(pl.col("ts").dt.second() == 7).with_columns(
        pl.col("ts") + timedelta(milliseconds=500), energy_mj=pl.lit(None, pl.Int64)
    )
    segments.write(between, loaded.root / "between.parquet")
    ingest_gpu(loaded, [loaded.root / "between.parquet"])
    compute(loaded)
    publish_candidate(loaded)
    done = roll_up_old_readings(loaded, 30)
    assert (done.segments, done.segments_waiting) == (0, 2)


def test_readings_of_time_that_was_rolled_up_are_refused(uneven: Settings) -> None:
    roll_up_old_readings(uneven, 30)
    longer = segment(uneven.root, "node01", seconds=2400)
    [outcome] = ingest_gpu(uneven, [longer])
    assert outcome.verdict == "quarantined"
    assert "from 2024-05-01T12:00:00Z to" in outcome.reason
    assert "were rolled up" in outcome.reason
    later = segment(uneven.root, "node01", start=T0 + timedelta(minutes=40))
    assert ingest_gpu(uneven, [later])[0].verdict == "loaded"


def test_a_border_that_is_corrected_later_divides_sums_evenly(uneven: Settings) -> None:
    """Conserved to the millijoule, though the readings of that slot are gone."""
    roll_up_old_readings(uneven, 30)
    ingest_runs(uneven, [runs_csv(uneven.root, [RUN.format("21:40Z")], "later.csv")])
    compute(uneven)
    assert ask(uneven, "SELECT sum(abs(difference_mj))::BIGINT AS d FROM conservation") == [
        {"d": 0}
    ]
    publish_candidate(uneven)
    assert [one for one in verify_ledger(uneven) if one.ok is False] == []


def test_gaps_cannot_be_judged_anew(uneven: Settings) -> None:
    roll_up_old_readings(uneven, 30)
    path = uneven.root / "wattledger.toml"
    path.write_text(path.read_text() + "\n[readings]\nmax_gap_s = 60\n")
    project = settings_module.load(uneven.root)
    with pytest.raises(SettingsError, match=r"rolled up with max_gap_s = 30.*Set it back"):
        compute(project)
    with pytest.raises(UsageError, match="not what it was when the figures were published"):
        roll_up_old_readings(project, 30)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.3])
def test_a_kill_leaves_readings_or_sums(
    after_s: float, uneven: Settings, kill_while: Callable[..., None]
) -> None:
    before = ask(uneven, FIGURES)
    kill_while(preloaded.roll_up, uneven.root, after_s=after_s)
    [rolled] = ask(uneven, "SELECT count(*) AS n FROM rolled_up")
    [left] = ask(uneven, "SELECT count(*) AS n FROM gpu_reading")
    assert left["n"] == (600 if rolled["n"] else 3600)
    compute(uneven)
    assert ask(uneven, FIGURES) == before


READING = st.tuples(
    st.integers(1, 700_000), st.booleans(), st.integers(1, 40_000_000), st.integers(0, 900_000)
)


@given(st.lists(READING, min_size=2, max_size=60), st.integers(1, 299_999_999))
def test_stretches_stand_for_their_intervals(
    steps: list[tuple[int, bool, int, int]], cut_at: int
) -> None:
    """However a slot is cut, the sums of its cells are those of its slot."""
    at, count, rows = 0.0, 0, []
    for power, has_counter, step_us, rise in steps:
        at += step_us / 1e6
        count += rise
        rows.append((1, at, power, count if has_counter else None))
    rule = GapRule()
    readings = readings_frame(rows)
    stretches = energy.reduce_readings(readings, rule)
    slots = energy.compute_gpu_slots(stretches.lazy(), rule).collect()
    numbers = slots["slot_start"].to_physical() // SLOT_US
    cells = pl.DataFrame({"gpu_key": slots["gpu_key"], "slot": numbers}).with_columns(
        start=pl.col("slot") * SLOT_US
    )
    borders = [(0, cut_at), (cut_at, SLOT_US)]
    cut = pl.concat(
        cells.with_columns(cell_start=pl.col("start") + a, cell_end=pl.col("start") + b)
        for a, b in borders
    ).drop("start")
    spans = pl.concat(
        [energy.spread_stretches(stretches.lazy()), energy.measure_seams(stretches.lazy(), rule)]
    )
    found = energy.compute_cell_energy(spans, cut.lazy()).collect()
    names = ["counter_mj", "power_integral_mj", "gap_mj", "covered_us", "gap_us"]
    summed = found.group_by("slot").agg(pl.col(names).sum()).sort("slot")
    assert summed.select(names).equals(slots.select(names))
