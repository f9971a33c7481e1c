"""A computation does what changed, and its figures are those of a computation from nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from flows import settings as settings_module
from flows.accounting import device_update
from flows.accounting.candidate import compute_candidate
from flows.accounting.changes import CANDIDATE
from flows.accounting.compute import compute
from flows.accounting.stretches import read_gap_rule, reduce_all_readings
from flows.factors import read_factors
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.retention import roll_up_old_readings
from flows.samples import host as simulator
from flows.samples.host import Work
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.segments import HOST_COLUMNS
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import T0, ask, grid_csv, make_project, runs_csv, segment
from transforms import changes
from transforms.schema import TABLES

EXTRA = """
[readings]
max_gap_s = 120

[zones.XX]
country = "DE"

[[contract]]
name = "wind"
site = "main"
instrument = "ppa"
matching = "hourly"
energy_mwh = 0.01
valid_from = 2024-05-01
valid_to = 2024-05-03
intensity_g_per_kwh = 10
"""
HOURS = 30


def tables(project: Settings) -> dict[str, pl.DataFrame]:
    con = store_of(project).connect(read_only=True)
    try:
        return {
            name: con.execute(f"SELECT * FROM {name} ORDER BY ALL").pl()
            for name in (*CANDIDATE, "computed_span", "computed_device", "computed_facts")
        }
    finally:
        con.close()


def assert_as_from_nothing(project: Settings) -> int:
    """Compute what changed, then everything, then once more in another way: the same to the last digit."""
    done = compute(project)
    found = tables(project)
    whole = compute(project, everything=True)
    for name, frame in tables(project).items():
        assert frame.equals(found[name]), f"{name}\n{frame}\n{found[name]}"
    assert (whole.slots, whole.runs) == (done.slots, done.runs)
    assert whole.recomputed >= done.recomputed
    with open_for_writing(store_of(project)) as con:
        stretches = reduce_all_readings(con, read_gap_rule(project))
        other = compute_candidate(con, project, read_factors(project), stretches)
        for name, frame in other.items():
            con.register("other", frame.select(TABLES[name].columns).to_arrow())
            again = con.execute("SELECT * FROM other ORDER BY ALL").pl()
            assert again.cast(dict(found[name].schema)).equals(found[name]), name  # type: ignore[arg-type]
    [(off,)] = [
        tuple(r.values()) for r in ask(project, "SELECT sum(abs(difference_mj)) FROM conservation")
    ]
    assert not off
    return done.recomputed


class Fleet:
    """A small fleet whose readings arrive in parts, in any order."""

    def __init__(self, project: Settings, seed: int) -> None:
        self.project, self.random, self.files = project, random.Random(seed), 0
        self.readings: dict[str, pl.DataFrame] = {}

    def _of(self, host: str) -> pl.DataFrame:
        if host not in self.readings:
            self.readings[host] = simulator.generate_host_readings(
                host, gpus=3, start=T0, seconds=HOURS * 3600, period_s=60.0,
                work=[Work((0, 1), 3600, 40_000), Work((2,), 20_000, 90_000)],
            )  # fmt: skip
        return self.readings[host]

    def _path(self) -> Path:
        self.files += 1
        return self.project.root / f"file{self.files}"

    def _span(self, most_min: int) -> tuple[int, int]:
        first = self.random.randrange(HOURS * 60)
        return first, first + self.random.randrange(1, most_min)

    def segment(self) -> None:
        """Some time of some GPUs; now and then without counters, or with holes."""
        host = self.random.choice(["node01", "node02", "node03", "node04", "node05"])
        first, last = self._span(240)
        frame = self._of(host).filter(
            pl.col("ts").is_between(T0 + timedelta(minutes=first), T0 + timedelta(minutes=last)),
            pl.col("gpu_index") < self.random.choice([1, 2, 3]),
        )
        kind = self.random.random()
        if kind < 0.2:
            frame = frame.with_columns(energy_mj=pl.lit(None, pl.Int64))
        elif kind < 0.4:
            frame = frame.gather_every(self.random.choice([2, 7]))
        if frame.is_empty():
            return
        path = self._path().with_suffix(".parquet")
        segments.write(frame, path)
        ingest_gpu(self.project, [path])

    def host(self) -> None:
        """CPU and memory of a host for some time."""
        first, last = self._span(90)
        node = self.random.choice(["node01", "node02"])
        made = [
            (node, T0 + timedelta(minutes=i, seconds=self.random.random()), 50_000_000, part, 5_000_000 + i, part == "dram", "x")
            for i in range(first, last)
            for part in ("cpu", "dram")
        ]  # fmt: skip
        path = self._path().with_suffix(".host.parquet")
        pl.DataFrame(made, schema=HOST_COLUMNS, orient="row").sort("component", "ts").write_parquet(
            path
        )
        ingest_gpu(self.project, [path])

    def grid(self) -> None:
        """A series, part of which is other than it was."""
        values = [
            self.random.choice([100.0, 250.0, 400.0]) for _ in range(self.random.randrange(4, 60))
        ]
        ingest_grid(self.project, [grid_csv(self.project.root, values)])

    def runs(self) -> None:
        """A run that begins, moves, ends, goes on, or holds other shares."""
        rows = []
        name = self.random.choice(["r1", "r2", "r3"])
        for host in self.random.sample(["node01", "node02", "node03"], k=2):
            first, last = self._span(900)
            begin, end = (
                T0 + timedelta(minutes=m, seconds=self.random.randrange(60)) for m in (first, last)
            )
            ended = "" if self.random.random() < 0.3 else end.isoformat()
            share = self.random.choice(["0.25", "0.3"])
            rows.append(
                f"{name},{begin.isoformat()},{ended},{host},{self.random.choice(['all', '0', '1'])},{share}"
            )
        ingest_runs(self.project, [runs_csv(self.project.root, rows, f"runs{self.files}.csv")])
        self.files += 1

    def step(self) -> None:
        """One of these."""
        steps: list[tuple[Callable[[], None], int]] = [
            (self.segment, 5), (self.host, 1), (self.grid, 1), (self.runs, 2),
        ]  # fmt: skip
        [one] = self.random.choices([s for s, _ in steps], [w for _, w in steps])
        one()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_whatever_arrives_in_whatever_order(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "GROUP", 4)
    monkeypatch.setattr(device_update, "PART", 1500)
    project = make_project(tmp_path / "project", EXTRA)
    fleet = Fleet(project, seed)
    fleet.segment()
    fleet.runs()
    for _ in range(5):
        for _ in range(fleet.random.choice([1, 1, 2])):
            fleet.step()
        assert_as_from_nothing(project)


def test_it_costs_what_changed(loaded: Settings) -> None:
    """Two GPUs for half an hour are 14 slots with their borders; then what is new, and no more."""
    assert compute(loaded).recomputed == compute(loaded, everything=True).recomputed == 12
    assert compute(loaded).recomputed == 0
    late = segment(loaded.root, "node01", start=T0 + timedelta(hours=1), seconds=300, seed=3)
    ingest_gpu(loaded, [late])
    # From the last slot with readings to the new one: the counter knows what was in between.
    assert compute(loaded).recomputed == 2 * 8
    ingest_runs(
        loaded, [runs_csv(loaded.root, ["r2,2024-05-01T12:16:00Z,2024-05-01T12:19:00Z,node01,0,1"])]
    )
    # The slot and those of the readings around it, on both GPUs of the group: a gap could reach into them.
    assert compute(loaded).recomputed == 2 * 3
    ingest_grid(loaded, [grid_csv(loaded.root, [100, 200, 360, 400])])
    before = ask(loaded, "SELECT co2e_ug FROM run_footprint WHERE run_id = 'r1'")
    assert compute(loaded).recomputed == 0
    [after] = ask(loaded, "SELECT co2e_ug FROM run_footprint WHERE run_id = 'r1'")
    assert after["co2e_ug"] == pytest.approx(before[0]["co2e_ug"] * 1.2, rel=1e-6)
    toml = loaded.root / "wattledger.toml"
    toml.write_text(toml.read_text().replace("value = 1.2", "value = 1.25"))
    changed = settings_module.load(loaded.root)
    assert compute(changed).recomputed == 12 + 14
    assert_as_from_nothing(changed)


def test_a_device_that_joins_a_host_changes_its_past(loaded: Settings) -> None:
    """Its energy of CPU and memory is divided among more GPUs then."""
    from tests.flows.ingest.test_host import host_segment

    ingest_gpu(loaded, [host_segment(loaded.root)])
    compute(loaded)
    ingest_gpu(
        loaded, [segment(loaded.root, "node01", gpus=3, start=T0 + timedelta(hours=5), seed=3)]
    )
    assert_as_from_nothing(loaded)


def test_rolled_up_readings_change_nothing(uneven: Settings) -> None:
    assert compute(uneven).recomputed == 0
    roll_up_old_readings(uneven, 30)
    assert compute(uneven).recomputed == 0
    late = segment(uneven.root, "node09", start=T0 + timedelta(hours=9), seconds=300)
    ingest_gpu(uneven, [late])
    assert_as_from_nothing(uneven)
