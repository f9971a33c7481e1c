"""From one publication to another: figures, causes, and the history of a run."""

from __future__ import annotations

import pytest

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import UsageError
from flows.ingest.runs import ingest_runs
from flows.project import override_factor
from flows.publication.history import compare_publications, trace_run
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from tests.conftest import runs_csv, wattledger


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
