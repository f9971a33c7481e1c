"""Slurm's accounting through the ledger: requeues, ids that come again, clock changes, MIG, bars in names, JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.gpu.nvidia_smi import Options
from flows.warehouse.registry import Outcome
from tests.conftest import ask, make_project
from wattledger.readings import Held
from wattledger.runs.records import Record

HEADER = (
    "JobID|Cluster|User|Account|Partition|QOS|Start|End|Elapsed|State|ExitCode|NNodes|AllocTRES|"
    "NodeList|JobName"
)
A100 = "NVIDIA A100-SXM4-40GB"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")


def log(
    project: Settings, host: str, hours: range, watts: int, *, models: tuple[str, ...] = (A100,)
) -> None:
    """Readings of the third of February 2026, once a minute."""
    lines = ["timestamp, index, uuid, name, power.draw [W]"]
    for minute in range(hours.start * 60, hours.stop * 60 + 1):
        at = f"2026/02/{3 + minute // 1440:02d} {minute // 60 % 24:02d}:{minute % 60:02d}:00.000"
        lines += [
            f"{at}, {i}, GPU-{host}-{i}, {model}, {watts}.00 W" for i, model in enumerate(models)
        ]
    path = project.root / f"{host}.csv"
    path.write_text("\n".join(lines) + "\n")
    [outcome] = ingest_gpu(project, [path], Options(host=host, tz="UTC"))
    assert outcome.verdict == "loaded", outcome.reason


def job(
    job_id: str = "7",
    start: str = "08:30:00",
    end: str = "09:30:00",
    *,
    elapsed: str = "",
    state: str = "COMPLETED",
    tres: str = "gres/gpu=1",
    nodes: str = "node7",
    name: str = "train",
    user: str = "ada",
    day: str = "2026-02-03",
) -> str:
    span = [
        f"{day}T{text}" if text[:1].isdigit() and len(text) == 8 else text for text in (start, end)
    ]
    return f"{job_id}|c1|{user}|lab|gpu|normal|{span[0]}|{span[1]}|{elapsed}|{state}|0:0|1|{tres}|{nodes}|{name}"


def load(
    project: Settings, *lines: str, header: str = HEADER, name: str = "sacct.txt", tz: str = "UTC"
) -> Outcome:
    path = project.root / name
    path.write_text("\n".join([header, *lines]) + "\n")
    [outcome] = ingest_runs(project, [path], tz)
    counted = (
        outcome.rows_loaded
        + outcome.rows_duplicate
        + outcome.rows_skipped
        + outcome.rows_quarantined
    )
    assert outcome.verdict != "loaded" or counted == outcome.rows_read
    return outcome


def kwh(project: Settings) -> dict[str, float]:
    compute(project)
    rows = ask(project, "SELECT run_id, energy_kwh FROM run_summary ORDER BY run_id")
    return {str(row["run_id"]): row["energy_kwh"] for row in rows}  # type: ignore[misc]


REQUEUED = (
    job("235929", "08:30:00", "09:34:49", state="REQUEUED", elapsed="01:04:49"),
    job("235929.batch", "08:30:00", "09:34:49", state="FAILED"),
    job("235929", "09:40:00", "10:54:33", state="REQUEUED", elapsed="01:14:33"),
    job("235929", "11:00:00", "12:42:02", elapsed="01:42:02"),
)


def test_a_requeued_job_is_one_run(site: Settings) -> None:
    log(site, "node7", range(8, 14), 300)
    outcome = load(site, *REQUEUED)
    assert (outcome.rows_loaded, outcome.skipped) == (3, {"job steps": 1})
    assert kwh(site) == {"c1-235929": pytest.approx(1.207, abs=1e-9)}
    [held] = ask(site, "SELECT count(*) AS n, min(from_ts) AS first FROM run_allocation")
    assert held["n"] == 3
    [run] = ask(site, "FROM training_run WHERE superseded_at IS NULL")
    assert json.loads(str(run["labels"]))["slurm_attempts"] == "3"
    [total] = ask(site, "SELECT sum(energy_kwh) AS kwh, count(*) AS n FROM run_summary")
    assert (total["kwh"], total["n"]) == (pytest.approx(1.207, abs=1e-9), 1)


def test_attempts_that_come_in_several_files_are_kept(site: Settings) -> None:
    log(site, "node7", range(8, 14), 300)
    load(site, REQUEUED[0])
    load(site, REQUEUED[2])
    load(site, REQUEUED[3])
    assert kwh(site) == {"c1-235929": pytest.approx(1.207, abs=1e-9)}
    again = load(site, *REQUEUED)
    assert (again.rows_loaded, again.rows_duplicate) == (0, 3)


def test_a_job_that_ran_when_it_was_loaded_ends_where_it_began_anew(site: Settings) -> None:
    log(site, "node7", range(8, 14), 300)
    load(site, job("5", "08:30:00", "Unknown", state="RUNNING"))
    outcome = load(site, job("5", "09:40:00", "10:40:00"))
    assert "still running when it was loaded" in " ".join(outcome.warnings)
    assert kwh(site) == {"c1-5": pytest.approx(0.3 * (70 + 60) / 60, abs=1e-9)}


def test_an_id_that_comes_again_is_another_run(site: Settings) -> None:
    log(site, "node7", range(8, 14), 300)
    earlier = job("5", day="2024-02-03")
    load(site, earlier, job("5"))
    runs = ask(site, "SELECT run_id FROM training_run WHERE superseded_at IS NULL ORDER BY 1")
    assert [run["run_id"] for run in runs] == ["c1-5", "c1-5-20260203T083000Z"]
    # Another user's is another run even on the same day.
    load(site, job("5", "11:00:00", "12:00:00", user="bob"), name="later.txt")
    assert len(ask(site, "FROM training_run WHERE superseded_at IS NULL")) == 3
    # Whatever is loaded again, in whatever company, keeps its name.
    again = load(site, job("5"), name="again.txt")
    assert (again.rows_loaded, again.rows_duplicate) == (0, 1)


@pytest.mark.parametrize(
    ("elapsed", "hours"), [("01:30:00", 1.5), ("00:30:00", None), ("", None), ("00:45:00", None)]
)
def test_the_elapsed_time_settles_the_repeated_hour(
    site: Settings, elapsed: str, hours: float | None
) -> None:
    """Half an hour fits both passes of the hour, and nothing tells which."""
    ingest_gpu(site, [])
    declared = '[[gpu]]\nhost = "node7"\nindices = [0]\nmodel = "A100"\n'
    site = make_project(site.root, declared)
    outcome = load(
        site,
        job("501", "02:10:00", "02:40:00", elapsed=elapsed, day="2025-10-26"),
        tz="Europe/Berlin",
    )
    if hours is None:
        assert outcome.verdict == "quarantined"
        assert "row 2" in outcome.reason
        return
    [run] = ask(site, "SELECT date_diff('minute', started_at, ended_at) AS m FROM training_run")
    assert run["m"] == hours * 60


def test_times_that_contradict_the_elapsed_time_are_refused(site: Settings) -> None:
    """The zone was wrong: the clock changed while the job ran."""
    log(site, "node7", range(8, 14), 300)
    outcome = load(site, job("1"), job("2", "10:00:00", "12:00:00", elapsed="03:00:00"))
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 1)
    assert "the elapsed time is 3:00:00" in outcome.warnings[0]


@pytest.mark.parametrize(
    ("tres", "models", "share"),
    [
        ("gres/gpu:a100_1g.5gb=1,gres/gpu=1", (A100,), 1 / 7),
        ("gres/gpu:nvidia_a100_3g.20gb=2,gres/gpu=2", (A100,), 6 / 7),
        ("gres/gpu:1g.5gb=1", (A100,), 1 / 7),
        ("gres/gpu:1c.3g.20gb=1", (A100,), 1 / 7),
        ("gres/gpu:1g.10gb+me=1", ("NVIDIA H100 80GB HBM3",), 1 / 7),
        ("gres/gpu:a30_1g.6gb=1", ("NVIDIA A30",), 1 / 4),
        ("gres/gpu:a100_2g.10gb=1", (A100, A100), 1 / 7),
    ],
)
def test_a_mig_job_holds_its_slices(
    site: Settings, tres: str, models: tuple[str, ...], share: float
) -> None:
    log(site, "node7", range(8, 10), 60, models=models)
    outcome = load(site, job(tres=tres))
    assert outcome.rows_loaded == 1, outcome.warnings
    assert kwh(site) == {"c1-7": pytest.approx(0.06 * len(models) * share, rel=1e-5)}
    [rest] = ask(site, "SELECT sum(unallocated_mj) / 3.6e9 AS kwh FROM conservation")
    assert rest["kwh"] == pytest.approx(0.06 * len(models) * (1 - share), rel=1e-5)


def test_a_type_chooses_the_gpus_of_its_model(site: Settings) -> None:
    log(site, "node7", range(8, 10), 60, models=(A100, "NVIDIA L4", "NVIDIA A10G"))
    outcome = load(
        site,
        job("1", tres="gres/gpu:a100=1,gres/gpu=1"),
        job("2", tres="gres/gpu:l4=1"),
        job("3", tres="gres/gpu:a10g=1,gres/gpu=1"),
    )
    assert outcome.rows_loaded == 3
    held = ask(site, "SELECT run_id, gpu_uuid, share_ppm FROM run_allocation ORDER BY 1")
    assert [(h["gpu_uuid"], h["share_ppm"]) for h in held] == [
        ("GPU-node7-0", 1_000_000),
        ("GPU-node7-1", 1_000_000),
        ("GPU-node7-2", 1_000_000),
    ]
    assert not any("shares_assumed" in str(r["labels"]) for r in ask(site, "FROM training_run"))


def test_a_type_that_is_none_of_several_models_is_refused_by_row(site: Settings) -> None:
    log(site, "node7", range(8, 10), 60, models=(A100, "NVIDIA A10G"))
    outcome = load(site, job("1", tres="gres/gpu:a10=1"), job("2", tres="gres/gpu:a100=1"))
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 1)
    [row] = ask(site, "SELECT row_no, reason, field_name FROM quarantined_row")
    assert (row["row_no"], row["field_name"]) == (2, "AllocTRES")
    assert "'a10' is none of the models" in str(row["reason"])


def test_the_sites_own_name_of_the_only_model_is_said(site: Settings) -> None:
    log(site, "node7", range(8, 10), 60)
    outcome = load(site, job(tres="gres/gpu:volta=1"))
    assert outcome.rows_loaded == 1
    assert f"volta ({A100}): 1 jobs" in " ".join(outcome.warnings)


@pytest.mark.parametrize(
    ("tres", "reason"),
    [
        ("gres/gpu=2", "more GPUs than are known"),
        ("gres/gpu:a100_4g.20gb=2", "more GPUs than are known"),
        ("gres/gpu=999999999", "more GPUs than are known"),
        ("gres/shard=2", "jobs with shards"),
    ],
)
def test_what_a_host_cannot_hold_is_left_out_by_name(
    site: Settings, tres: str, reason: str
) -> None:
    log(site, "node7", range(8, 10), 60)
    outcome = load(site, job(tres=tres))
    assert (outcome.rows_loaded, outcome.rows_skipped) == (0, 1)
    assert reason in " ".join(outcome.skipped)
    if "more GPUs" in reason:
        assert "job 7 on node7" in " ".join(outcome.warnings)


@pytest.mark.parametrize(
    "line",
    [
        job(tres="gres/gpu=99999999999999999999"),
        job(tres="gres/gpu=1,gres/gpu:a100=2"),
        job(tres="gres/gpu=some"),
        job(nodes="node[0-99999999]"),
        job(nodes="node[0-99999999999999999999]"),
        job(nodes="n[0-999]x[0-999]x[0-999]"),
        job(nodes="node[1-"),
        job(state="DREAMING"),
        job(start="2126-02-03T08:00:00", end="2126-02-03T09:00:00"),
        job(job_id="seven"),
        job(end="08:00:00"),
        job(start="Unknown", elapsed="01:00:00"),
    ],
)
def test_a_row_that_cannot_be_is_set_aside_while_the_others_load(site: Settings, line: str) -> None:
    log(site, "node7", range(8, 10), 60)
    outcome = load(site, job("1"), line)
    assert (outcome.verdict, outcome.rows_loaded, outcome.rows_quarantined) == ("loaded", 1, 1)
    assert ask(site, "SELECT row_no FROM quarantined_row") == [{"row_no": 3}]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER, job(name="crazy|name")),
        (HEADER, job(name="a|b|c|")),
        (HEADER + "|", job(name="crazy|name") + "|"),
        (HEADER + "|Comment", job(name="plain") + "|a|comment"),
        (HEADER.replace("JobID", "JobName|JobID"), "a|b|" + job()),
        (HEADER.replace("Start|", "Comment|Start|"), job().replace("|normal|", "|normal|x|y 1:2|")),
        (HEADER + "|Comment", job() + "|first line\nand second"),
    ],
)
def test_a_bar_in_a_name_or_comment_breaks_nothing(site: Settings, header: str, line: str) -> None:
    log(site, "node7", range(8, 10), 60)
    outcome = load(site, line, header=header)
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (1, 0), outcome
    assert kwh(site) == {"c1-7": pytest.approx(0.06, abs=1e-9)}


@pytest.mark.parametrize("separator", ["|", ";", "\t", "@@", "^", ","])
def test_any_separator_is_read(site: Settings, separator: str) -> None:
    log(site, "node7", range(8, 10), 60)
    line = job(tres="billing=8,cpu=8,gres/gpu=1,node=1", nodes="node7")
    outcome = load(site, line.replace("|", separator), header=HEADER.replace("|", separator))
    assert outcome.rows_loaded == 1, outcome
    assert kwh(site) == {"c1-7": pytest.approx(0.06, abs=1e-9)}


def test_padded_columns_are_refused_for_what_they_are(site: Settings) -> None:
    outcome = load(site, "------ ----", header="       JobID    JobName  NodeList")
    assert "--parsable2" in outcome.reason


def sacct_json(*jobs: dict[str, Any]) -> str:
    meta = {"plugin": {"type": "openapi/dbv0.0.37"}, "Slurm": {"release": "21.08.8-2"}}
    return json.dumps({"meta": meta, "errors": [], "jobs": list(jobs)})


def epoch(text: str) -> int:
    return int(datetime.fromisoformat(f"2026-02-03T{text}").replace(tzinfo=UTC).timestamp())


def json_job(**given: Any) -> dict[str, Any]:
    return {
        "job_id": 7,
        "name": "crazy|name",
        "cluster": "c1",
        "user": "ada",
        "association": {"user": "ada", "cluster": "c1"},
        "array": {"job_id": 0, "task_id": None, "task": None},
        "het": {"job_id": 0, "job_offset": None},
        "state": {"current": "COMPLETED", "reason": "None"},
        "time": {
            "start": epoch("08:30:00"),
            "end": epoch("09:30:00"),
            "submission": epoch("08:00:00"),
            "elapsed": 3600,
            "suspended": 0,
        },
        "tres": {
            "allocated": [
                {"type": "cpu", "name": "", "id": 1, "count": 8},
                {"type": "gres", "name": "gpu", "id": 1001, "count": 1},
                {"type": "gres", "name": "gpu:a100", "id": 1002, "count": 1},
            ]
        },
        "nodes": "node7",
        "allocation_nodes": 1,
        "exit_code": {"status": "SUCCESS", "return_code": 0},
        "steps": [],
        **given,
    }


def wrapped(number: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": number}


@pytest.mark.parametrize(
    ("given", "run_id"),
    [
        ({}, "c1-7"),
        ({"state": "COMPLETED"}, "c1-7"),
        ({"state": {"current": ["COMPLETED"]}, "exit_code": {"return_code": wrapped(0)}}, "c1-7"),
        ({"array": {"job_id": 5, "task_id": 3}}, "c1-5_3"),
        ({"array": {"job_id": 5, "task_id": wrapped(3), "task": ""}}, "c1-5_3"),
        ({"array": {"job_id": 0, "task_id": {"set": False, "number": 0}}}, "c1-7"),
        ({"het": {"job_id": 7, "job_offset": wrapped(0)}}, "c1-7+0"),
    ],
)
def test_json_of_any_version_is_read(site: Settings, given: dict[str, Any], run_id: str) -> None:
    log(site, "node7", range(8, 10), 60)
    path = site.root / "jobs.json"
    path.write_text(sacct_json(json_job(**given), {"job_id": "x"}))
    [outcome] = ingest_runs(site, [path])
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_quarantined) == (2, 1, 1)
    assert kwh(site) == {run_id: pytest.approx(0.06, abs=1e-9)}


def record(project: Settings, run_id: str, name: str = "r1", **given: Any) -> Path:
    fields: dict[str, Any] = {
        "record_id": name,
        "run_id": run_id,
        "name": "train",
        "owner": "ada",
        "host": "node7",
        "started_at": "2026-02-03T08:30:05Z",
        "ended_at": "2026-02-03T09:29:55Z",
        "gpus": [Held("GPU-node7-0", 0, A100)],
        "slurm": {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "c1"},
    }
    return Record(**{**fields, **given}).save(project.root)


@pytest.mark.parametrize("run_id", ["c1-7", "my-run"])
@pytest.mark.parametrize("first", ["records", "accounting"])
def test_a_job_that_records_tell_counts_once(site: Settings, run_id: str, first: str) -> None:
    log(site, "node7", range(8, 10), 60, models=(A100, A100))
    path = record(site, run_id)
    said: list[str] = []
    for kind in (first, *({"records", "accounting"} - {first})):
        if kind == "records":
            [outcome] = ingest_runs(site, [path])
        else:
            outcome = load(site, job())
        assert outcome.verdict == "loaded", outcome.reason
        said += outcome.warnings
    assert list(kwh(site)) == [run_id]
    [held] = ask(site, "SELECT gpu_uuid, share_ppm FROM run_allocation WHERE superseded_at IS NULL")
    assert (held["gpu_uuid"], held["share_ppm"]) == ("GPU-node7-0", 1_000_000)
    if run_id != "c1-7" or first == "records":
        assert "once" in " ".join(said)


def test_a_record_that_claims_gpus_of_another_host_is_refused(site: Settings) -> None:
    log(site, "node7", range(8, 10), 60)
    log(site, "node8", range(8, 10), 60)
    foreign = [Held("GPU-node8-0", 0, A100)]
    path = record(site, "a", gpus=foreign)
    sound = record(site, "b", "r2")
    outcomes = {Path(o.path).stem: o for o in ingest_runs(site, [path, sound])}
    assert outcomes["r2"].verdict == "loaded"
    assert "GPU GPU-node8-0 of host node8, but was written on node7" in outcomes["r1"].reason
    several = {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "node[7-8]"}
    [outcome] = ingest_runs(site, [record(site, "c", "r3", gpus=foreign, slurm=several)])
    assert outcome.verdict == "loaded", outcome.reason
