"""Slurm accounting as runs: real samples of xdmod's tests, and the small print of the format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.errors import BadInput
from flows.files import open_plain_text
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.runs import sacct, slurm_gpus
from flows.sources.runs.run import Gpus, KnownGpu
from tests.conftest import ask, segment
from transforms.constants import PPM

HEADER = "JobID|Cluster|User|Account|Partition|Start|End|State|AllocTRES|NodeList|JobName"


def accounting(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "sacct.txt"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def job(
    jobid: str = "7",
    *,
    start: str = "2024-05-01T12:05:00",
    end: str = "2024-05-01T12:15:00",
    state: str = "COMPLETED",
    tres: str = "cpu=8,gres/gpu=2,node=1",
    nodes: str = "node01",
) -> str:
    return f"{jobid}|hpc|ada|nlp|gpu|{start}|{end}|{state}|{tres}|{nodes}|train"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node01", ["node01"]),
        ("a1,b2", ["a1", "b2"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10,12]", ["n08", "n09", "n10", "n12"]),
        ("r[1-2]n[1,3]-ib", ["r1n1-ib", "r1n3-ib", "r2n1-ib", "r2n3-ib"]),
        ("d07n07s02,d09n04s[01-02]", ["d07n07s02", "d09n04s01", "d09n04s02"]),
        ("", []),
        ("None assigned", []),
    ],
)
def test_node_lists(text: str, hosts: list[str]) -> None:
    assert slurm_gpus.expand_nodelist(text) == hosts


@pytest.mark.real
def test_gpu_counts_are_those_that_others_read(data: Path) -> None:
    cases = json.loads(
        (data / "jobs_slurm_sacct" / "alloc_tres_gpu_count_expected.json").read_text()
    )
    assert [slurm_gpus.count_gpus(text).total for text, _ in cases] == [count for _, count in cases]


def test_a_total_counts_rather_than_its_types() -> None:
    both = slurm_gpus.count_gpus("gres/gpu=4,gres/gpu:a100=3,gres/gpu:v100=1")
    assert (both.total, both.untyped, both.typed) == (4, 0, {"a100": 3, "v100": 1})
    assert slurm_gpus.count_gpus("gres/gpu:a100=3,gres/gpu:v100=1").total == 4
    assert slurm_gpus.count_gpus("gres/gpu=4,gres/gpu:a100=3").untyped == 1


def test_a_job_on_whole_nodes_holds_their_gpus(project: Settings, tmp_path: Path) -> None:
    ingest_gpu(project, [segment(tmp_path, "node01"), segment(tmp_path, "node02", seed=4)])
    path = accounting(tmp_path, job(tres="gres/gpu=4,node=2", nodes="node[01-02]"))
    [outcome] = ingest_runs(project, [path], "UTC")
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 1)
    held = ask(project, "SELECT share_ppm FROM run_allocation")
    assert [row["share_ppm"] for row in held] == [PPM] * 4
    [run] = ask(project, "FROM training_run")
    assert (run["run_id"], run["name"], run["owner"]) == ("hpc-7", "train", "ada")
    assert json.loads(str(run["labels"])) == {
        "slurm_account": "nlp",
        "slurm_partition": "gpu",
        "slurm_state": "COMPLETED",
        "slurm_cluster": "hpc",
        "slurm_job": "7",
        "slurm_job_id": "7",
    }


def test_a_part_of_a_node_is_a_share_of_each_of_its_gpus(project: Settings, tmp_path: Path) -> None:
    ingest_gpu(project, [segment(tmp_path)])
    path = accounting(tmp_path, job("1", tres="gres/gpu:h100=1"), job("2", tres="gres/gpu:h100=1"))
    [outcome] = ingest_runs(project, [path], "UTC")
    assert outcome.rows_loaded == 2
    held = ask(project, "SELECT run_id, share_ppm FROM run_allocation ORDER BY ALL")
    assert [(r["run_id"], r["share_ppm"]) for r in held] == [
        ("hpc-1", PPM // 2),
        ("hpc-1", PPM // 2),
        ("hpc-2", PPM // 2),
        ("hpc-2", PPM // 2),
    ]
    labels = ask(project, "SELECT labels FROM training_run")
    assert all(json.loads(str(row["labels"]))["shares_assumed"] == "true" for row in labels)


def test_what_did_not_run_or_held_no_gpu_is_counted_not_loaded(
    project: Settings, tmp_path: Path
) -> None:
    ingest_gpu(project, [segment(tmp_path)])
    path = accounting(
        tmp_path,
        job("1"),
        job("1.batch"),
        job("1.0"),
        job("2", state="PENDING", start="Unknown", end="Unknown"),
        job("3", tres="cpu=8"),
        job("4", state="CANCELLED by 1000", end="2024-05-01T12:05:00"),
        job("5", state="RUNNING", end="Unknown", start="2024-05-01T12:20:00"),
    )
    [outcome] = ingest_runs(project, [path], "UTC")
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_skipped) == (7, 2, 5)
    runs = ask(project, "SELECT run_id, ended_at IS NULL AS goes_on FROM training_run ORDER BY 1")
    assert [(r["run_id"], r["goes_on"]) for r in runs] == [("hpc-1", False), ("hpc-5", True)]


def test_jobs_on_unknown_hosts_wait_for_their_gpus(project: Settings, tmp_path: Path) -> None:
    path = accounting(tmp_path, job())
    [outcome] = ingest_runs(project, [path], "UTC")
    assert outcome.rows_loaded == 0
    assert "node01" in outcome.warnings[0]
    assert [o.verdict for o in ingest_runs(project, [path], "UTC")] == ["known"]
    ingest_gpu(project, [segment(tmp_path)])
    assert [o.rows_loaded for o in ingest_runs(project, [path], "UTC")] == [1]


def test_times_are_local(project: Settings, tmp_path: Path) -> None:
    ingest_gpu(project, [segment(tmp_path)])
    ingest_runs(
        project,
        [accounting(tmp_path, job(start="2024-05-01T14:05:00", end="2024-05-01T14:15:00"))],
        "Europe/Berlin",
    )
    [run] = ask(project, "SELECT started_at::VARCHAR AS t FROM training_run")
    assert run["t"] == "2024-05-01 12:05:00+00"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (job(state="FOO"), "row 2, column 'State', value 'FOO': unknown state"),
        (job(end="2024-05-01T11:00:00"), "ends before it starts"),
        (job(end="Unknown"), "an ended job without an end"),
        (job(start="yesterday"), "not a time"),
        (job(start="2024-05-01T12:05:00|x"), "12 fields, expected 11"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(
    project: Settings, tmp_path: Path, line: str, sentence: str
) -> None:
    ingest_gpu(project, [segment(tmp_path)])
    [outcome] = ingest_runs(project, [accounting(tmp_path, line)], "UTC")
    assert outcome.verdict == "quarantined"
    assert sentence in outcome.reason


def test_a_missing_field_is_named(project: Settings, tmp_path: Path) -> None:
    path = accounting(tmp_path, "7|hpc", header="JobID|Cluster")
    [outcome] = ingest_runs(project, [path], "UTC")
    assert "no field 'start'" in outcome.reason


@pytest.mark.real
def test_real_accounting_is_read_whole(data: Path, tmp_path: Path) -> None:
    path = data / "jobs_slurm_sacct" / "phillips.sacct.txt.gz"
    gpus = Gpus((KnownGpu("u0", "cpn-f11-31", 0), KnownGpu("u1", "cpn-f11-31", 1)))
    with open_plain_text(path, tmp_path) as plain:
        jobs = sacct.read(path, plain, gpus, "America/New_York")
    assert jobs.rows == 4285
    assert [run.run_id for run in jobs.runs] == ["phillips-163485", "phillips-196835"]
    assert jobs.runs[0].labels["slurm_state"] == "CANCELLED by 380693"
    assert jobs.runs[0].started_at.isoformat() == "2016-12-22T12:15:13+00:00"
    assert [a.share_ppm for a in jobs.runs[0].allocations] == [PPM, PPM]
    assert not jobs.faults.count
    assert sum(jobs.faults.skipped.values()) + len(jobs.runs) == jobs.rows
    unknown = data / "jobs_slurm_sacct" / "unknown-job-state.sacct.txt"
    with pytest.raises(BadInput, match="'FOO'"):
        sacct.read(unknown, unknown, gpus, "UTC")
    arrays = data / "jobs_slurm_sacct" / "accounting-logs-with-job-arrays.sacct.txt"
    assert sacct.read(arrays, arrays, gpus, "UTC").rows == 6
