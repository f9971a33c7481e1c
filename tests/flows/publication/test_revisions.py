"""Grid data that is revised after figures were published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.project import override_factor
from flows.publication.history import compare_publications, trace_run
from flows.publication.publish import publish_candidate
from flows.publication.recompute import recompute_publication
from flows.publication.status import read_status
from flows.settings import Settings
from flows.warehouse.connection import connect
from tests.conftest import grid_csv, runs_csv, segment, wattledger


@pytest.fixture
def revised(loaded: Settings) -> Settings:
    """Published at 300 g/kWh (12:00 to 12:30); later the provider says 360."""
    compute(loaded)
    publish_candidate(loaded)
    assert read_status(loaded)["revised"] == []
    ingest_grid(loaded, [grid_csv(loaded.root, [100, 200, 360, 400])])
    return loaded


def test_status_says_what_a_revision_would_change_and_by_how_much(revised: Settings) -> None:
    [run] = read_status(revised)["revised"]
    assert run["run_id"] == "r1"
    assert run["slots"] == 2  # 12:05 to 12:15
    assert run["co2e_change_kg"] == pytest.approx(run["co2e_kg"] * 60 / 300, rel=1e-6)
    assert run["water_offsite_change_l"] == 0
    told = wattledger("status", "--project", revised.root)
    assert "revised    r1: grid data of 2 slots changed since it was published" in told.stdout
    compute(revised)
    publish_candidate(revised)
    assert read_status(revised)["revised"] == []


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


def test_two_publications_differ_by_figures_and_causes(revised: Settings) -> None:
    compute(revised)
    publish_candidate(revised)
    done = compare_publications(revised, "0001", "0002")
    [run] = done.runs
    assert run["co2e_kg_after"] == pytest.approx(run["co2e_kg_before"] * 360 / 300, rel=1e-6)
    assert run["energy_kwh_after"] == run["energy_kwh_before"]
    causes = {cause.table: (cause.gone, cause.new) for cause in done.causes}
    assert causes.keys() == {"segment", "slot_signal"}
    # Another file, and the six slots from 12:00 to 12:30.
    assert causes["segment"] == (0, 1)
    assert causes["slot_signal"] == (6, 6)
    told = wattledger("diff", "0001", "0002", "--project", revised.root)
    assert (
        "grid by slot, from its data and factors: 6 rows gone, 6 new; new: zone XX" in told.stdout
    )
    none = wattledger("diff", "0001", "0009", "--project", revised.root)
    assert none.returncode == 1
    assert "there is no publication '0009'" in none.stderr


@pytest.mark.parametrize(
    ("what", "table"),
    [("factor", "factor"), ("site", "site"), ("allocation", "run_allocation")],
)
def test_each_cause_is_named(what: str, table: str, published: Settings) -> None:
    root = published.root
    if what == "factor":
        override_factor(root, "meter_tolerance", "counter", 0.02, low=0.02, high=0.02, source="lab")
    elif what == "site":
        path = root / "wattledger.toml"
        path.write_text(path.read_text().replace("value = 1.2,", "value = 1.25,"))
    else:
        row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:10:00Z,node01,all,1"
        ingest_runs(published, [runs_csv(root, [row], "later.csv")])
    settings = settings_module.load(root)
    compute(settings)
    assert publish_candidate(settings).changed
    causes = {cause.table: cause for cause in compare_publications(settings, "0001", "0002").causes}
    assert table in causes
    if what == "factor":
        assert list(causes) == ["factor"]
        assert "meter_tolerance" in causes["factor"].example


def test_the_history_of_a_run_goes_through_all_publications(revised: Settings) -> None:
    compute(revised)
    publish_candidate(revised)
    path = revised.root / "wattledger.toml"
    path.write_text(path.read_text().replace("value = 1.2,", "value = 1.25,"))
    settings = settings_module.load(revised.root)
    compute(settings)
    publish_candidate(settings)
    found = trace_run(settings, "r1")
    assert [row["publication_id"][:4] for row in found] == ["0001", "0002", "0003"]
    causes = [[cause["table"] for cause in row["causes"]] for row in found]
    assert causes == [[], ["segment", "slot_signal"], ["site"]]
    told = wattledger("history", "r1", "--project", settings.root)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("kg CO2e (location)") == 3
    assert "sites: 1 rows gone, 1 new" in told.stdout
    with pytest.raises(UsageError, match="no publication has a run 'nobody'"):
        trace_run(settings, "nobody")


def test_a_publication_against_itself_differs_in_nothing(published: Settings) -> None:
    with pytest.raises(UsageError, match="one and the same"):
        compare_publications(published, "0001", "0001")
