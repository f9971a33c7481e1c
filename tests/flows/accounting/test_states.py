"""Every declared run stands in run_summary, with its state; missing is not zero."""

from __future__ import annotations

import pytest

from flows.accounting.compute import compute
from flows.errors import UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.publication.reader import read_runs
from flows.reporting.explain import explain_run
from flows.settings import Settings, load
from flows.sources.gpu.nvidia_smi import Options
from flows.warehouse.store import store_of
from tests.conftest import ask, runs_csv

GPU = '[[gpu]]\nhost = "dark"\nindices = [0]\nmodel = "NVIDIA H100 80GB HBM3"\n'
RUNS = [
    "unread,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,dark,0,1",
    "later,2024-05-02T12:05:00Z,,node01,1,1",
    "empty,2024-05-01T12:16:00Z,2024-05-01T12:16:00Z,node01,0,1",
    "open,2024-05-01T12:20:00Z,,node01,0,1",
]


def test_every_declared_run_stands_there_with_its_state(loaded: Settings) -> None:
    toml = loaded.root / "wattledger.toml"
    toml.write_text(toml.read_text() + GPU)
    project = load(loaded.root)
    assert ingest_runs(project, [runs_csv(project.root, RUNS, "more.csv")])[0].verdict == "loaded"
    compute(project)
    rows = {row["run_id"]: row for row in ask(project, "FROM run_summary")}
    assert {name: row["state"] for name, row in rows.items()} == {
        "r1": "ended",
        "unread": "no readings",
        "later": "not begun",
        "empty": "holds nothing",
        "open": "open",
    }
    # Nobody metered it: 700 W for ten minutes is what it can have drawn at most, and nothing is measured.
    unread = rows["unread"]
    assert unread["energy_measured_share"] == 0
    assert unread["energy_kwh"] == unread["filled_kwh"] == pytest.approx(0.7 / 6)
    assert unread["energy_low_kwh"] < unread["energy_kwh"] <= unread["energy_high_kwh"]
    for name in ("later", "empty"):
        figures = {k for k, v in rows[name].items() if v is not None}
        assert not {k for k in figures if k.endswith(("_kwh", "_kg", "_l"))}, figures
    # All of them are published and shown, those without figures too.
    publish_candidate(project)
    assert {row["run_id"] for row in read_runs(project)} == set(rows)
    assert "not begun" in (project.published / "report.html").read_text()
    con = store_of(project).connect(read_only=True)
    try:
        with pytest.raises(UsageError, match="no figures: not begun"):
            explain_run(con, "later")
    finally:
        con.close()


def test_rows_that_were_set_aside_stand_in_the_report(loaded: Settings) -> None:
    rows = [
        f"s{n},2024-05-01T12:0{n}:00Z,2024-05-01T12:0{n + 1}:00Z,node01,0,0.1" for n in range(4)
    ]
    bad = "b,2024-05-01T12:00:00Z,<b>soon</b>,node01,0,0.1"
    [outcome] = ingest_runs(loaded, [runs_csv(loaded.root, [*rows, bad], "slip.csv")])
    assert (outcome.verdict, outcome.rows_quarantined) == ("loaded", 1)
    compute(loaded)
    publish_candidate(loaded)
    report = (loaded.published / "report.html").read_text()
    assert "slip.csv</code>: 1 row, not a time (first: row 6)" in report
    assert "<b>soon" not in report


def test_a_run_on_a_board_that_no_table_knows_is_flagged(loaded: Settings) -> None:
    log = loaded.root / "odd.csv"
    lines = ["timestamp, index, uuid, name, power.draw [W]"]
    lines += [
        f"2024/05/01 12:00:{s:02d}.000, 0, GPU-odd, NVIDIA H100 Nobody Knows, 300 W"
        for s in range(60)
    ]
    log.write_text("\n".join(lines) + "\n")
    assert ingest_gpu(loaded, [log], Options(tz="UTC", host="odd"))[0].verdict == "loaded"
    rows = ["on-odd,2024-05-01T12:00:00Z,2024-05-01T12:00:30Z,odd,0,1"]
    ingest_runs(loaded, [runs_csv(loaded.root, rows, "odd_runs.csv")])
    compute(loaded)
    flags = {row["run_id"]: row["flags"] for row in ask(loaded, "FROM run_summary")}
    assert flags == {"r1": None, "on-odd": "board limit known by class only"}
