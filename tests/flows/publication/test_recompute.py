"""Published figures computed again as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.errors import UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.publication.recompute import recompute_publication
from flows.settings import Settings
from flows.warehouse.connection import connect
from tests.conftest import runs_csv, segment, wattledger


def test_a_published_figure_is_computed_again_as_it_was(revised: Settings) -> None:
    """Also after a new publication, later readings, another run and a moved one."""
    root = revised.root
    compute(revised)
    second = publish_candidate(revised)
    assert second.changed
    ingest_gpu(revised, [segment(root, "node02")])
    rows = [
        "r1,2024-05-01T12:05:00Z,2024-05-01T12:20:00Z,node01,all,1",
        "r2,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node02,all,1",
    ]
    ingest_runs(revised, [runs_csv(root, rows, "later.csv")])
    compute(revised)
    publish_candidate(revised)
    figures = []
    for number in ("0001", "0002", "0003"):
        done = recompute_publication(revised, number)
        assert done.identical, done
        figures.append({run["run_id"]: run["co2e_again_kg"] for run in done.runs}["r1"])
    assert figures[1] == pytest.approx(figures[0] * 360 / 300, rel=1e-6)
    assert figures[2] > figures[1]
    told = wattledger("recompute", "0001", "--project", root)
    assert (told.returncode, "the same to the last digit" in told.stdout) == (0, True)


def test_a_figure_that_was_tampered_with_differs(revised: Settings) -> None:
    folder = (revised.root / "published").resolve()
    con = connect(folder / "published.duckdb")
    con.execute("UPDATE run_footprint SET co2e_scope1_ug = co2e_scope1_ug + 1 WHERE run_id = 'r1'")
    con.close()
    told = wattledger("recompute", folder.name, "--project", revised.root, "--json")
    assert told.returncode == 3
    assert [r["run_id"] for r in json.loads(told.stdout)["runs"] if not r["identical"]] == ["r1"]


def test_an_unknown_publication_names_the_known_ones(revised: Settings) -> None:
    known = Path(revised.published).resolve().name
    with pytest.raises(UsageError, match=f"no publication '0099'.*Known: {known}"):
        recompute_publication(revised, "0099")
