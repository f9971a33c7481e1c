"""Energy of CPU and memory through the ledger: loaded once, checked, in the figures."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from flows.sources.gpu.segments import HOST_COLUMNS
from tests.conftest import T0, ask, grid_csv, make_project
from wattledger.runs.records import Record


def host_segment(
    folder: Path,
    node: str = "node01",
    *,
    watts: float = 200,
    minutes: int = 30,
    modelled: bool = False,
    name: str = "",
    **columns: object,
) -> Path:
    """Ten-second intervals of a CPU at `watts` and memory, modelled, at a tenth of it."""
    made = []
    for i in range(minutes * 6):
        end = T0 + timedelta(seconds=10 * (i + 1))
        made.append((node, end, 10_000_000, "cpu", round(watts * 10_000), modelled, "RAPL"))
        made.append((node, end, 10_000_000, "dram", round(watts * 1_000), True, "model"))
    frame = pl.DataFrame(made, schema=HOST_COLUMNS, orient="row").sort("component", "ts")
    path = folder / f"{name or node}.host.parquet"
    frame.with_columns(**{k: pl.lit(v) for k, v in columns.items()}).write_parquet(path)
    return path


def test_a_metered_host_is_in_the_figures_of_its_runs(loaded: Settings) -> None:
    path = host_segment(loaded.root)
    assert [o.verdict for o in ingest_gpu(loaded, [path])] == ["loaded"]
    compute(loaded)
    [run] = ask(loaded, "FROM run_summary")
    # Ten minutes of both GPUs: all of the host, 200 W measured and 20 W modelled.
    assert run["host_kwh"] == pytest.approx(220 / 6 / 1000)
    assert run["host_measured_share"] == pytest.approx(200 / 220, rel=1e-6)
    assert run["it_kwh"] == pytest.approx(run["energy_kwh"] + run["host_kwh"])  # type: ignore[operator]
    [total] = ask(
        loaded,
        "SELECT sum(host_mj)::BIGINT AS shared, (SELECT sum(host_mj)::BIGINT FROM host_slot) AS metered "
        "FROM run_footprint",
    )
    assert total["metered"] == total["shared"] == 220 * 1800 * 1000
    assert publish_candidate(loaded).changed


def test_loading_it_again_changes_nothing(loaded: Settings) -> None:
    path = host_segment(loaded.root)
    longer = host_segment(loaded.root, minutes=40, name="longer")
    outcomes = ingest_gpu(loaded, [path, longer])
    assert [(o.verdict, o.rows_loaded, o.rows_duplicate) for o in outcomes] == [
        ("loaded", 360, 0),
        ("loaded", 120, 360),
    ]
    assert [o.verdict for o in ingest_gpu(loaded, [path, longer])] == ["known", "known"]
    assert ask(loaded, "SELECT count(*) AS n FROM host_reading") == [{"n": 480}]


def test_a_second_meter_of_the_same_host_is_refused(loaded: Settings) -> None:
    path = host_segment(loaded.root)
    assert [o.verdict for o in ingest_gpu(loaded, [path])] == ["loaded"]
    other = loaded.root / "other.host.parquet"
    shifted = pl.read_parquet(path).with_columns(pl.col("ts") + timedelta(seconds=3))
    shifted.write_parquet(other)
    [outcome] = ingest_gpu(loaded, [other])
    assert outcome.verdict == "quarantined"
    assert "Two collectors measured this host" in outcome.reason


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"energy_mj": -5}, "No energy is below zero"),
        ({"span_us": 0}, "Every interval has a length"),
        ({"component": "fan"}, "Components are cpu and dram"),
        ({"energy_mj": 10**12}, "No part of a host draws more than"),
        ({"span_us": 20_000_000}, "do not overlap, also with those stored"),
        ({"host": None}, "Every interval has a value for host"),
        ({"ts": T0.replace(year=2999)}, "in the future"),
        ({"energy_mj": "x"}, "Copy the file again"),
    ],
)
def test_bad_intervals_go_to_quarantine_and_good_ones_in(
    project: Settings, columns: dict[str, object], said: str
) -> None:
    good = host_segment(project.root, "good")
    bad = host_segment(project.root, "bad", **columns)  # type: ignore[arg-type]
    outcomes = {Path(o.path).stem: o for o in ingest_gpu(project, [bad, good])}
    assert outcomes["good.host"].verdict == "loaded"
    assert outcomes["bad.host"].verdict == "quarantined"
    assert said in outcomes["bad.host"].reason
    assert str(bad) in outcomes["bad.host"].reason


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("energy_mj", -5, "below zero"),
        ("energy_mj", 0, "draws nothing"),
        ("energy_mj", None, "a value for energy_mj"),
        ("energy_mj", 10**15, "draws more than"),
        ("span_us", 0, "has a length"),
        ("ts", T0.replace(year=2999), "in the future"),
        ("component", "fan", "Components are"),
    ],
)
def test_a_bad_interval_is_set_aside_and_the_rest_loads(
    field: str, value: object, reason: str, project: Settings
) -> None:
    path = host_segment(project.root)
    frame = pl.read_parquet(path)
    bad = pl.int_range(pl.len()) == 20
    changed = frame.with_columns(
        pl.when(bad).then(pl.lit(value, frame.schema[field])).otherwise(field).alias(field)
    )
    changed.write_parquet(path)
    [outcome] = ingest_gpu(project, [path])
    assert outcome.verdict == "loaded", outcome.reason
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_quarantined) == (360, 359, 1)
    [row] = ask(project, "SELECT row_no, field_name, reason FROM quarantined_row")
    assert (row["row_no"], row["field_name"]) == (21, field)
    assert reason in row["reason"]
    assert "host node01: cpu, dram" in outcome.understood[0]


def test_a_run_without_any_gpu_has_the_energy_of_its_host(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    Record(
        record_id="k",
        run_id="cpu-only",
        name="cpu-only",
        owner="me",
        host="node07",
        started_at=T0.isoformat(),
        ended_at=(T0 + timedelta(minutes=15)).isoformat(),
        ended_by="exit",
        exit_code=0,
    ).save(project.root)
    ingest_gpu(project, [host_segment(project.root, "node07")])
    ingest_grid(project, [grid_csv(project.root, [100, 200, 300, 400])])
    assert [o.verdict for o in ingest_runs(project, [project.root / "k.json"])] == ["loaded"]
    compute(project)
    [run] = ask(project, "FROM run_summary")
    assert (run["gpus"], run["gpu_hours"], run["energy_kwh"], run["filled_kwh"]) == (0, 0, 0, 0)
    assert run["host_kwh"] == pytest.approx(220 * 0.25 / 1000)
    assert run["co2e_kg"] == pytest.approx(run["facility_kwh"] * 0.3, rel=0.01)  # type: ignore[operator]
    assert publish_candidate(project).changed


@given(st.integers(1, 30))
def test_figures_do_not_depend_on_how_intervals_are_cut(minutes: int) -> None:
    from transforms import host

    at = timedelta(minutes=minutes)
    spans = [(T0 + at, minutes * 60_000_000, minutes * 60_000)]
    ones = [(T0 + timedelta(minutes=i + 1), 60_000_000, 60_000) for i in range(minutes)]
    totals = []
    for given_spans in (spans, ones):
        frame = pl.LazyFrame(
            [("n", ts, span, "cpu", mj, False, "") for ts, span, mj in given_spans],
            schema=HOST_COLUMNS,
            orient="row",
        )
        totals.append(host.sum_host_slots(frame).collect())
    assert totals[0].equals(totals[1])
