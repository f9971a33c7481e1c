"""Run tables, codecarbon's histories and meters as they come: ragged, contradictory, told twice; one bad file among good ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.ingest.meters import ingest_meter
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.warehouse.registry import Outcome
from tests.conftest import ask, make_project

GPUS = """
[zones.XX]
fallback_intensity_g_per_kwh = 300
[[gpu]]
host = "n1"
indices = [0, 1, 2, 3]
model = "NVIDIA A100-SXM4-40GB"
[[gpu]]
host = "n2"
uuids = ["GPU-x"]
model = "NVIDIA A100-SXM4-40GB"
"""
COLUMNS = "run_id,started_at,ended_at,host,gpu,share"
GOOD = "a,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,0,1"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return make_project(tmp_path / "p", GPUS)


def load(project: Settings, text: str, name: str = "runs.csv", tz: str = "") -> Outcome:
    path = project.root / name
    path.write_text(text)
    [outcome] = ingest_runs(project, [path], tz)
    trace(outcome)
    return outcome


def trace(outcome: Outcome) -> None:
    """Every row is somewhere."""
    if outcome.verdict == "loaded":
        assert outcome.rows_read == (
            outcome.rows_loaded
            + outcome.rows_duplicate
            + outcome.rows_skipped
            + outcome.rows_quarantined
        )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1", "5 fields where the header has 6"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1,1", "7 fields"),
        ('b,"2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1', "a quote without its other"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T07:00:00Z,n1,1,1", "ends before it starts"),
        ("b,2026-02-03T08:00:00Z,2126-02-03T07:00:00Z,n1,1,1", "in the future"),
        ("b,1970-01-01T08:00:00Z,2026-02-03T07:00:00Z,n1,1,1", "before 2000"),
        ("b,2026-02-03T08:00:00,2026-02-03T09:00:00Z,n1,1,1", "carries no zone"),
        ("b,noon,2026-02-03T09:00:00Z,n1,1,1", "not a time"),
        (",2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1", "no run_id"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,7,1", "unknown GPU '7'"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n9,all,1", "unknown GPU 'all'"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,0-99999999999,1", "no range of the GPUs"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1;1,1", "names a GPU twice"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,GPU-x,1", "is of host 'n2', not of 'n1'"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,nan", "not a share"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,-inf", "not a share"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,0", "not a share"),
        ("b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1.5", "not a share"),
    ],
)
def test_a_bad_row_is_set_aside_and_the_others_load(site: Settings, row: str, reason: str) -> None:
    outcome = load(site, "\n".join([COLUMNS, row, GOOD]) + "\n")
    assert (outcome.verdict, outcome.rows_loaded, outcome.rows_quarantined) == ("loaded", 1, 1)
    [bad] = ask(site, "SELECT row_no, reason FROM quarantined_row")
    assert bad["row_no"] == 2
    assert reason in str(bad["reason"])
    assert reason in outcome.warnings[0]


@pytest.mark.parametrize(
    "rows",
    [
        # Two different ends; one GPU at the same time twice; a part outside; one of two rows is bad.
        ["b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1", "b,2026-02-03T08:00:00Z,,n1,2,1"],
        [
            "b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,0.5",
            "b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1-2,0.5",
        ],
        [
            "b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,1,1",
            "b,2026-02-03T08:00:00Z,2026-02-03T09:00:00Z,n1,9,1",
        ],
    ],
)
def test_a_run_is_never_loaded_in_part(site: Settings, rows: list[str]) -> None:
    outcome = load(site, "\n".join([COLUMNS, GOOD, *rows]) + "\n")
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 2)
    assert [r["run_id"] for r in ask(site, "FROM training_run")] == ["a"]
    assert [r["row_no"] for r in ask(site, "FROM quarantined_row ORDER BY row_no")] == [3, 4]


def test_quotes_that_do_not_close_join_no_rows(site: Settings) -> None:
    rows = [f'"{run}{GOOD[1:]}' for run in "bcdf"]
    outcome = load(site, "\n".join([COLUMNS, *rows]) + "\n")
    assert (outcome.verdict, "a quote without its other" in outcome.reason) == ("quarantined", True)
    text = f'{COLUMNS},note\n{GOOD},"first\nsecond, with a comma"\n'
    assert load(site, text, "note.csv").rows_loaded == 1


def test_a_row_told_twice_counts_once(site: Settings) -> None:
    half = GOOD.replace(",0,1", ",0,0.5")
    outcome = load(site, "\n".join([COLUMNS, half, half]) + "\n")
    assert (outcome.rows_loaded, outcome.skipped) == (1, {"repeated rows": 1})
    assert [r["share_ppm"] for r in ask(site, "FROM run_allocation")] == [500_000]


@pytest.mark.parametrize(
    "text",
    [
        COLUMNS.replace(",", ";") + "\n" + GOOD.replace(",", ";"),
        COLUMNS.replace(",", "\t") + "\n" + GOOD.replace(",", "\t"),
        " Run ID , Started At,ENDED_AT,Host ,GPU,Share,\n" + GOOD + ",",
        COLUMNS + "\r\n\r\n" + GOOD + "\r\n,,,,,\r\n",
        '"run_id","started_at","ended_at","host","gpu","share"\n' + GOOD,
        COLUMNS + "\n" + GOOD + "\n" + COLUMNS + "\n",
    ],
)
def test_tables_are_read_as_programs_write_them(site: Settings, text: str) -> None:
    outcome = load(site, text)
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 0), outcome
    assert "1 run on 1 GPU, 2026-02-03 08:00:00 to 09:00:00 UTC, 1 GPU-hours" in outcome.understood


def test_start_and_end_settle_the_repeated_hour(site: Settings) -> None:
    row = "b,2025-10-26T02:50:00,2025-10-26T02:10:00,n1,1,1"
    outcome = load(site, "\n".join([COLUMNS, row, GOOD]) + "\n", tz="Europe/Berlin")
    assert outcome.rows_loaded == 2
    [run] = ask(
        site,
        "SELECT date_diff('minute', started_at, ended_at) AS m FROM training_run WHERE run_id = 'b'",
    )
    assert run["m"] == 20


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("deep2.json", '{"runs":' * 100_000, "nested too deeply"),
        ("deep.toml", "run = " + "[" * 100_000, ""),
        ("smi.csv", "timestamp, uuid, power.draw [W]\nx, y, 3 W\n", "a log of GPU readings"),
        ("empty.json", '{"runs": 7}', "no list of runs"),
        ("twice.csv", "run_id,started_at,started_at\n", "two columns are called"),
    ],
)
def test_a_bad_file_is_its_own_verdict(site: Settings, name: str, text: str, reason: str) -> None:
    (site.root / name).write_text(text)
    (site.root / "zgood.csv").write_text(f"{COLUMNS}\n{GOOD}\n")
    bad, good = ingest_runs(site, [site.root / name, site.root / "zgood.csv"])
    assert (bad.verdict, good.verdict) == ("quarantined", "loaded")
    assert reason in bad.reason


def test_parts_of_a_document_are_set_aside_one_by_one(site: Settings) -> None:
    run = {"run_id": "a", "started_at": "2026-02-03T08:00:00Z", "ended_at": "2026-02-03T09:00:00Z"}
    runs = [
        {**run, "allocations": [{"host": "n1", "gpu": 0}]},
        "no run",
        {**run, "run_id": "b", "allocations": [{"host": "n1", "gpu": 1}, {"host": "n1", "gpu": 2}]},
    ]
    outcome = load(site, json.dumps({"runs": runs}), "runs.json")
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_quarantined) == (4, 3, 1)


def test_a_run_that_claims_a_gpu_held_already_is_set_aside(site: Settings) -> None:
    load(site, f"{COLUMNS}\n{GOOD}\n")
    rows = [GOOD.replace("a,", "b,", 1), GOOD.replace("a,", "c,", 1).replace("n1,0", "n1,1")]
    outcome = load(site, "\n".join([COLUMNS, *rows]) + "\n", "more.csv")
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 1)
    assert "never add up to more than 100 %" in outcome.warnings[0]


EMISSIONS = (
    "timestamp,project_name,run_id,duration,emissions,cpu_energy,gpu_energy,ram_energy,"
    "country_iso_code,codecarbon_version,cpu_model,gpu_count,gpu_model,tracking_mode,pue"
)


def measured(
    run: str = "u",
    at: str = "2026-03-01T10:00:00",
    *,
    seconds: float = 3600,
    gpu: str = "2.0",
    cpu: str = "0.15",
    project: str = "vision",
    count: str = "4",
    model: str = "4 x NVIDIA A100-SXM4-40GB",
) -> str:
    return f"{at},{project},{run},{seconds},0.1,{cpu},{gpu},0.03,DEU,3.2,EPYC,{count},{model},machine,1.0"


def history(
    project: Settings, *lines: str, name: str = "emissions.csv", tz: str = "UTC"
) -> Outcome:
    return load(project, "\n".join([EMISSIONS, *lines]) + "\n", name, tz)


def test_ranks_that_measured_one_machine_count_once(site: Settings) -> None:
    ranks = [
        measured(f"rank-{i}", f"2026-03-01T10:00:0{i}", gpu=f"{2 + i / 1000}") for i in range(4)
    ]
    outcome = history(site, *ranks)
    assert (outcome.rows_loaded, outcome.rows_skipped) == (1, 3)
    assert "rank-0 and rank-1, rank-2, rank-3" in " ".join(outcome.warnings)
    compute(site)
    [run] = ask(site, "SELECT run_id, energy_kwh, gpu_hours FROM run_summary")
    assert (run["run_id"], run["gpu_hours"]) == ("rank-0", pytest.approx(4))
    assert run["energy_kwh"] == pytest.approx(2.0, abs=1e-9)
    [stored] = ask(site, "FROM training_run")
    assert json.loads(str(stored["labels"]))["counted_once_with"] == "rank-1, rank-2, rank-3"


def test_ranks_in_files_of_their_own_count_once(site: Settings) -> None:
    outcomes = [
        history(site, measured(f"rank-{i}", f"2026-03-01T10:00:0{i}"), name=f"e{i}.csv")
        for i in range(3)
    ]
    assert [o.rows_loaded for o in outcomes] == [1, 0, 0]
    assert "rank-0 and rank-1" in " ".join(outcomes[1].warnings)


def test_machines_that_may_be_one_are_named(site: Settings) -> None:
    outcome = history(
        site, measured("a"), measured("b", gpu="1.5"), measured("c", "2026-03-01T14:00:00")
    )
    assert outcome.rows_loaded == 3
    assert "2 runs (b, a)" in " ".join(outcome.warnings)


@pytest.mark.parametrize("gpu", ["0", "", "N/A", "0.0"])
def test_no_energy_of_a_named_gpu_is_unknown_and_bounded(site: Settings, gpu: str) -> None:
    outcome = history(site, measured(gpu=gpu))
    assert outcome.rows_loaded == 1
    compute(site)
    [run] = ask(site, "SELECT energy_kwh, energy_measured_share, gpu_hours FROM run_summary")
    assert run["gpu_hours"] == pytest.approx(4)
    assert run["energy_measured_share"] == 0
    assert run["energy_kwh"] == pytest.approx(1.6), "filled at the board limit of 400 W"
    if gpu.startswith("0"):
        assert "0 kWh of a GPU" in " ".join(outcome.warnings)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (measured("b").rsplit(",", 2)[0], "13 fields where the header has 15"),
        (measured("b") + "," + measured("c"), "30 fields"),
        (measured("b", count="3"), "not a number of GPUs"),
        (measured("b")[:-3] + "0.5", "not a PUE"),
        (measured("b", gpu="40"), "W on average for each GPU"),
        (measured("b", "2126-03-01T10:00:00"), "in the future"),
        (measured("b", seconds=0), "no time or duration"),
        ('"' + measured("b"), "a quote without its other"),
    ],
)
def test_a_bad_row_of_a_history_is_set_aside(site: Settings, line: str, reason: str) -> None:
    outcome = history(site, measured("a"), line, measured("z", "2026-03-02T10:00:00"))
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (2, 1), outcome
    assert reason in outcome.warnings[0]
    assert "row 3" in outcome.warnings[0]


def test_an_id_used_over_and_over_stays_apart(site: Settings) -> None:
    same = [measured("u", f"2026-03-0{day}T10:00:00", project="p") for day in (1, 2, 3)]
    other = measured("u", "2026-03-02T10:00:00", project="q", gpu="1.0")
    outcome = history(site, *same, other)
    assert outcome.rows_loaded == 4
    runs = [str(r["run_id"]) for r in ask(site, "SELECT run_id FROM training_run ORDER BY 1")]
    assert len(set(runs)) == 4


def test_other_rows_of_a_run_settle_its_repeated_hour(site: Settings) -> None:
    lines = [
        measured("u", "2025-10-26T01:30:00", seconds=1800, gpu="0.5"),
        measured("u", "2025-10-26T02:30:00", seconds=9000, gpu="2.5"),
    ]
    outcome = history(site, *lines, tz="Europe/Berlin")
    assert outcome.rows_loaded == 2, outcome
    [run] = ask(site, "SELECT date_diff('minute', started_at, ended_at) AS m FROM training_run")
    assert run["m"] == 150
    alone = history(site, lines[1], name="alone.csv", tz="Europe/Berlin")
    assert "showed this time twice" in alone.reason


def test_a_run_that_the_ledger_measures_itself_is_named(site: Settings) -> None:
    load(
        site,
        "run_id,name,started_at,ended_at,host,gpu\nr,vision,2026-03-01T09:00:00Z,2026-03-01T10:00:00Z,n1,all\n",
    )
    outcome = history(site, measured())
    assert "overlaps run r of the same name" in " ".join(outcome.warnings)


def test_bad_rows_of_meters_are_set_aside(site: Settings) -> None:
    path = site.root / "meter.csv"
    span = "2026-11-01T00:00:00Z;2026-11-02T00:00:00Z"
    path.write_text(
        "Meter;Scope;Metered;Valid From;Valid To;Energy kWh\n"
        f"pdu;host;n1;{span};4120,5\npdu;host;n1;{span};4120,5\nbill;site;main;{span}\n"
    )
    [outcome] = ingest_meter(site, [path])
    assert (outcome.rows_loaded, outcome.rows_skipped, outcome.rows_quarantined) == (1, 1, 1)
    trace(outcome)
    [row] = ask(site, "SELECT energy_mj FROM meter_reading")
    assert row["energy_mj"] == 4120.5 * 3_600_000_000
