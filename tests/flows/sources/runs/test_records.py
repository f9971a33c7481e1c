"""Runs from the records of nodes: joined, shared, exactly once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.runs import records as run_records
from flows.sources.runs.records import Claim
from flows.warehouse.frames import query_rows
from flows.warehouse.store import store_of
from tests.conftest import T0, runs_csv, segment
from transforms.constants import PPM
from wattledger.readings import Held
from wattledger.runs.records import Record


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def record(
    folder: Path,
    run_id: str,
    begin: float,
    end: float | None,
    gpus: list[str],
    *,
    key: str = "",
    host: str = "node01",
    share: int = PPM,
    instance: str = "",
    code: int | None = 0,
) -> Path:
    made = Record(
        record_id=key or f"{run_id}-{host}-{begin}",
        run_id=run_id,
        name=run_id,
        owner="me",
        host=host,
        started_at=at(begin).isoformat(),
        ended_at=None if end is None else at(end).isoformat(),
        ended_by="" if end is None else "exit",
        exit_code=None if end is None else code,
        gpus=[Held(uuid, i, "H100", share, instance) for i, uuid in enumerate(gpus)],
    )
    folder.mkdir(exist_ok=True)
    return made.save(folder)


def held(project: Settings) -> list[tuple[object, ...]]:
    con = store_of(project).connect(read_only=True)
    try:
        return con.execute(
            "SELECT run_id, gpu_uuid, date_diff('minute', $t0, from_ts), "
            "date_diff('minute', $t0, to_ts), share_ppm FROM run_allocation "
            "WHERE superseded_at IS NULL ORDER BY ALL",
            {"t0": T0},
        ).fetchall()
    finally:
        con.close()


def verdicts(project: Settings, *paths: Path) -> list[str]:
    return [o.verdict for o in ingest_runs(project, list(paths))]


def test_ranks_and_nodes_become_one_run(project: Settings, tmp_path: Path) -> None:
    paths = [
        record(tmp_path / "r", "job", 0, 10, ["a", "b"], key="n1-0"),
        record(tmp_path / "r", "job", 1, 11, ["a", "b"], key="n1-1", code=3),
        record(tmp_path / "r", "job", 0, 10, ["c"], key="n2-0", host="node02"),
    ]
    assert verdicts(project, *paths) == ["loaded"] * 3
    assert held(project) == [
        ("job", "a", 0, 11, PPM),
        ("job", "b", 0, 11, PPM),
        ("job", "c", 0, 10, PPM),
    ]
    con = store_of(project).connect(read_only=True)
    [run] = query_rows(con, "FROM training_run")
    assert run["ended_at"] == at(11)
    assert json.loads(run["labels"]) == {"exit_code": "3", "hosts": "2"}
    assert {row["host"] for row in query_rows(con, "FROM gpu")} == {"node01", "node02"}


def test_again_changes_nothing_in_any_order(project: Settings, tmp_path: Path) -> None:
    early = record(tmp_path / "early", "job", 0, None, ["a"], key="k")
    late = record(tmp_path / "late", "job", 0, 9, ["a"], key="k")
    assert verdicts(project, early) == ["loaded"]
    assert held(project) == [("job", "a", 0, None, PPM)]
    assert verdicts(project, late) == ["loaded"]
    before = held(project)
    assert before == [("job", "a", 0, 9, PPM)]
    assert verdicts(project, early, late) == ["known", "known"]
    # A copy from before the end that is new by its bytes changes nothing either.
    copy = tmp_path / "early" / "copy.json"
    copy.write_text(early.read_text() + "\n")
    assert verdicts(project, copy) == ["loaded"]
    assert held(project) == before


def test_two_runs_on_one_gpu_share_it_and_say_so(project: Settings, tmp_path: Path) -> None:
    first = record(tmp_path / "r", "one", 0, 10, ["a"])
    second = record(tmp_path / "r", "two", 6, 12, ["a"])
    assert verdicts(project, first) == ["loaded"]
    assert verdicts(project, second) == ["loaded"]
    assert held(project) == [
        ("one", "a", 0, 6, PPM),
        ("one", "a", 6, 10, PPM // 2),
        ("two", "a", 6, 10, PPM // 2),
        ("two", "a", 10, 12, PPM),
    ]
    con = store_of(project).connect(read_only=True)
    labels = query_rows(con, "SELECT labels FROM training_run WHERE superseded_at IS NULL")
    assert all(json.loads(row["labels"])["shares_assumed"] == "true" for row in labels)


def test_instances_of_one_gpu_are_parts_of_it(project: Settings, tmp_path: Path) -> None:
    paths = [
        record(tmp_path / "r", "one", 0, 10, ["a"], share=571_428, instance="MIG-1"),
        record(tmp_path / "r", "two", 0, 10, ["a"], share=285_714, instance="MIG-2"),
        record(tmp_path / "r", "two", 0, 10, ["a"], share=142_857, instance="MIG-3", key="x"),
    ]
    assert verdicts(project, *paths) == ["loaded"] * 3
    assert held(project) == [("one", "a", 0, 10, 571_428), ("two", "a", 0, 10, 428_571)]


def test_a_record_that_contradicts_a_run_table_is_refused_alone(
    project: Settings, tmp_path: Path
) -> None:
    from flows.ingest.gpu import ingest_gpu

    ingest_gpu(project, [segment(tmp_path)])
    con = store_of(project).connect(read_only=True)
    uuid = con.execute("SELECT gpu_uuid FROM gpu ORDER BY 1").fetchall()[0][0]
    con.close()
    table = runs_csv(tmp_path, ["tab,2024-05-01T12:00:00Z,2024-05-01T12:10:00Z,node01,all,1"])
    assert verdicts(project, table) == ["loaded"]
    good = record(tmp_path / "r", "good", 0, 10, ["other"])
    bad = record(tmp_path / "r", "bad", 5, 10, [uuid])
    outcomes = {Path(o.path).name: o for o in ingest_runs(project, [good, bad])}
    assert outcomes[good.name].verdict == "loaded"
    assert outcomes[bad.name].verdict == "quarantined"
    assert "never add up to more than 100 %" in outcomes[bad.name].reason


def test_a_damaged_record_goes_to_quarantine(project: Settings, tmp_path: Path) -> None:
    path = record(tmp_path / "r", "x", 10, 5, ["a"])
    [outcome] = ingest_runs(project, [path])
    assert outcome.verdict == "quarantined"
    assert "before it starts" in outcome.reason
    assert str(path) in outcome.reason


_claims = st.builds(
    Claim,
    st.sampled_from(["r1", "r2", "r3"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "m1", "m2"]),
    st.integers(1, PPM),
    st.integers(0, 9).map(at),
    st.integers(1, 10).map(at),
)


@given(st.lists(_claims, max_size=8))
def test_no_gpu_is_given_away_more_than_once(claims: list[Claim]) -> None:
    given_away = list(run_records.divide_gpus(claims))
    for minute in range(10):
        moment = at(minute) + timedelta(seconds=30)
        for uuid in ("a", "b"):
            present = [g for g in given_away if g[1] == uuid and g[2] <= moment < g[3]]
            wanted = {c.run_id for c in claims if c.gpu_uuid == uuid and c.start <= moment < c.end}
            # Each run that claims the GPU now has one part of it, and no other has any.
            assert sorted(g[0] for g in present) == sorted(wanted)
            assert sum(g[4] for g in present) <= PPM
    assert given_away == list(run_records.divide_gpus(reversed(claims)))


def test_related_runs_are_found_through_others(tmp_path: Path) -> None:
    from wattledger.runs.records import load_record

    every = [
        load_record(record(tmp_path / "r", run, begin, end, gpus))
        for run, begin, end, gpus in (
            ("one", 0, 5, ["a"]),
            ("two", 4, 8, ["a", "b"]),
            ("three", 7, 9, ["b"]),
            ("four", 9, 10, ["b"]),
            ("five", 0, 10, ["c"]),
        )
    ]
    assert run_records.find_related_runs(every, ["one"]) == {"one", "two", "three"}
    assert T0.tzinfo == UTC
