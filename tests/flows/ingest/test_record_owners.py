"""A record speaks for the host folder and the user that wrote it, and for no other."""

from __future__ import annotations

import json
import os
import pwd
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.errors import BadInput
from flows.files import expand_paths, follow_named, hash_file, open_plain_text
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import add_user_folders, ingest_runs
from flows.settings import Settings
from flows.warehouse.registry import Outcome
from tests.conftest import T0, ask, copied, made_once, make_project, runs_csv, segment
from transforms.constants import PPM
from wattledger.readings import Held
from wattledger.runs.records import Record

ALICE, MALLORY = 61_001, 61_002
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def _load(folder: Path) -> None:
    project = make_project(folder)
    for name in ("node01", "node02"):
        segment(folder, name, gpus=1, seconds=60)
        assert ingest_gpu(project, [folder / f"{name}.parquet"])[0].verdict == "loaded"


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """Readings of two hosts with one GPU each, and an empty spool."""
    return copied(made_once(tmp_path_factory, "two_hosts", _load), tmp_path / "project")


def gpu_of(project: Settings, host: str) -> str:
    [row] = ask(project, f"SELECT gpu_uuid FROM gpu WHERE host = '{host}'")
    return str(row["gpu_uuid"])


def write(
    project: Settings, uid: int, gpu: str = "", folder: str = "", host: str = "node01", **given: Any
) -> Path:
    """A record of a user, as `wattledger run` would leave it in the spool; `given` is of the user's choice."""
    values: dict[str, Any] = {
        "record_id": f"r-{uid}",
        "run_id": f"run-{uid}",
        "name": "n",
        "owner": "somebody",
        "host": host,
        "started_at": T0.isoformat(),
        "ended_at": (T0 + timedelta(seconds=50)).isoformat(),
        "ended_by": "exit",
        "gpus": [Held(gpu or gpu_of(project, host), 0, "H100", PPM)],
    }
    runs = project.root / "spool" / host / "runs" / (folder or str(uid))
    runs.mkdir(parents=True, exist_ok=True)
    os.chown(runs, uid, uid)
    (runs.parents[1] / "collector.json").touch()
    path = Record(**{**values, **given}).save(runs)
    os.chown(path, uid, uid)
    return path


def load(project: Settings) -> dict[str, Outcome]:
    pattern = project.root / "spool" / "*" / "runs" / "*.json"
    outcomes = ingest_runs(project, [str(pattern)])
    return {str(Path(o.path).relative_to(project.root / "spool")): o for o in outcomes}


def runs(project: Settings) -> list[tuple[str, str]]:
    rows = ask(
        project,
        "SELECT run_id, gpu_uuid FROM run_allocation WHERE superseded_at IS NULL ORDER BY ALL",
    )
    return [(row["run_id"], row["gpu_uuid"]) for row in rows]


def test_the_patterns_of_older_versions_find_the_records_of_users(cluster: Settings) -> None:
    write(cluster, ALICE)
    [(path, outcome)] = load(cluster).items()
    assert (path, outcome.verdict) == (f"node01/runs/{ALICE}/r-{ALICE}.json", "loaded")
    assert ask(cluster, "SELECT owner_uid, is_vouched FROM run_record") == [
        {"owner_uid": ALICE, "is_vouched": False}
    ]


def test_another_hosts_gpu_is_refused_however_it_is_claimed(cluster: Settings) -> None:
    other = gpu_of(cluster, "node02")
    write(cluster, MALLORY, other, record_id="plain")
    # The node list of a job is the user's own word.
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[01-02]"}
    write(cluster, MALLORY, other, record_id="nodelist", slurm=slurm)
    write(cluster, MALLORY, "node02/host", record_id="host-device")
    write(cluster, MALLORY, "node02/gpu7", record_id="by-index")
    write(cluster, MALLORY, "GPU-nobody-has-seen", record_id="unseen")
    # The folder says node01, the record node02, whose GPU it claims.
    path = write(cluster, MALLORY, other, record_id="moved")
    path.write_text(path.read_text().replace('"host": "node01"', '"host": "node02"'))
    outcomes = load(cluster)
    assert {outcome.verdict for outcome in outcomes.values()} == {"quarantined"}
    reasons = {Path(path).stem: outcome.reason for path, outcome in outcomes.items()}
    for name in ("plain", "nodelist", "host-device", "by-index"):
        assert "of host node02, but was written on node01" in reasons[name]
    assert "no reading of node01 tells of yet" in reasons["unseen"]
    assert "lies in the folder of node01" in reasons["moved"]
    assert runs(cluster) == []
    assert ask(cluster, "SELECT count(*) AS n FROM gpu") == [{"n": 2}]


def test_neither_record_nor_run_of_another_user_is_replaced(cluster: Settings) -> None:
    write(cluster, ALICE, run_id="hpc-7", record_id="r", labels={"team": "a"})
    assert [o.verdict for o in load(cluster).values()] == ["loaded"]
    before = runs(cluster), ask(cluster, "SELECT record, owner_uid FROM run_record")
    late = (T0 + timedelta(seconds=59)).isoformat()
    write(cluster, MALLORY, run_id="mine", record_id="r", ended_at=late)
    write(cluster, MALLORY, run_id="hpc-7", record_id="q", ended_at=late, labels={"team": "m"})
    write(cluster, MALLORY, host="node02", run_id="hpc-7", record_id="p")
    outcomes = load(cluster)
    refused = {Path(p).stem: o.reason for p, o in outcomes.items() if o.verdict == "quarantined"}
    assert f"would replace the record r of user {ALICE}" in refused["r"]
    assert f"run hpc-7 is that of user {ALICE}" in refused["q"]
    assert f"run hpc-7 is that of user {ALICE}" in refused["p"]
    assert (runs(cluster), ask(cluster, "SELECT record, owner_uid FROM run_record")) == before
    named = ask(cluster, "SELECT reason FROM quarantine")
    assert len(named) == 3


def test_a_run_that_the_operator_loaded_is_no_users(cluster: Settings) -> None:
    row = "r1,2024-05-01T12:00:00Z,2024-05-01T12:00:30Z,node01,all,1"
    ingest_runs(cluster, [runs_csv(cluster.root, [row])])
    before = runs(cluster)
    write(cluster, MALLORY, run_id="r1")
    [outcome] = load(cluster).values()
    assert "known from elsewhere" in outcome.reason
    assert runs(cluster) == before


def test_root_says_whose_a_job_is_and_its_word_counts(
    cluster: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mallory knows which job comes next, and is first.
    write(cluster, MALLORY, run_id="hpc-8", record_id="node01-job-8")
    write(cluster, MALLORY, run_id="hpc-8", record_id="another")
    assert {o.verdict for o in load(cluster).values()} == {"loaded"}
    write(cluster, 0, run_id="hpc-8", record_id="node01-job-8", owner_uid=ALICE)
    write(cluster, ALICE, run_id="hpc-8", record_id="step")
    outcomes = load(cluster)
    assert outcomes["node01/runs/0/node01-job-8.json"].verdict == "loaded"
    assert outcomes[f"node01/runs/{ALICE}/step.json"].verdict == "loaded"
    warnings = [w for o in outcomes.values() for w in o.warnings]
    assert sum("withdrawn" in warning for warning in warnings) == 2
    stored = ask(cluster, "SELECT record_id, owner_uid, is_vouched FROM run_record ORDER BY 1")
    # What was published of them stays; what they claim is in no run.
    assert [tuple(row.values()) for row in stored] == [
        ("another", MALLORY, False),
        ("node01-job-8", ALICE, True),
        ("step", ALICE, False),
    ]
    write(cluster, 0, run_id="hpc-8", record_id="z-later", owner_uid=ALICE, name="later")
    load(cluster)
    assert ask(cluster, "SELECT name FROM training_run WHERE superseded_at IS NULL") == [
        {"name": "n"}
    ]
    # A user cannot speak as root does.
    path = write(cluster, MALLORY, run_id="x", record_id="y", owner_uid=ALICE)
    assert (
        f"speaks for user {ALICE}"
        in load(cluster)[str(path.relative_to(cluster.root / "spool"))].reason
    )


def test_folders_are_believed_for_their_owners_only(cluster: Settings) -> None:
    path = write(cluster, ALICE, record_id="file")
    os.chown(path, MALLORY, MALLORY)
    [outcome] = load(cluster).values()
    assert f"user {MALLORY} wrote it into the folder of user {ALICE}" in outcome.reason
    path.unlink()
    # Whoever takes another's name, and root in a container of a user, are who they are outside.
    for number, named in enumerate((ALICE, 0)):
        path = write(cluster, named, record_id=f"squat{number}", run_id=f"squat{number}")
        for one in (path, path.parent):
            os.chown(one, MALLORY, MALLORY)
        assert [o.verdict for o in load(cluster).values()] == ["loaded"]
        path.unlink()
        path.parent.rmdir()
    assert ask(cluster, "SELECT DISTINCT owner_uid, is_vouched FROM run_record") == [
        {"owner_uid": MALLORY, "is_vouched": False}
    ]
    # Copied by the user who runs the pipeline: the names of the folders say whose they were.
    path = write(cluster, ALICE, record_id="copied")
    os.chown(path, 0, 0)
    os.chown(path.parent, 0, 0)
    assert [o.verdict for o in load(cluster).values()] == ["loaded"]
    owners = ask(cluster, "SELECT owner_uid FROM run_record WHERE record_id = 'copied'")
    assert owners == [{"owner_uid": ALICE}]


def test_accounting_is_left_to_records_of_its_owner_only(
    cluster: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sacct = cluster.root / "jobs.txt"
    sacct.write_text(
        "JobID|JobIDRaw|Cluster|User|Submit|Start|End|State|NNodes|AllocTRES|NodeList|JobName\n"
        "5|5|hpc|alice|2024-05-01T12:00:00|2024-05-01T12:00:05|2024-05-01T12:00:40|COMPLETED|1|gres/gpu=1|node02|fit\n"
    )
    slurm = {"SLURM_JOB_ID": "5", "SLURM_CLUSTER_NAME": "hpc"}
    write(cluster, MALLORY, run_id="mine", slurm=slurm, labels={"slurm_job": "5"})
    assert [o.verdict for o in load(cluster).values()] == ["loaded"]
    [outcome] = ingest_runs(cluster, [sacct], tz="UTC")
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 1), outcome
    # The other way round: the job is stored, and a record comes that would take its place.
    write(cluster, MALLORY, run_id="again", record_id="again", slurm=slurm)
    load(cluster)
    assert ("hpc-5", gpu_of(cluster, "node02")) in runs(cluster)
    known = pwd.struct_passwd(("alice", "x", ALICE, ALICE, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {ALICE: known}[uid])
    write(cluster, ALICE, host="node02", run_id="hpc-5", record_id="own", slurm=slurm)
    assert load(cluster)[f"node02/runs/{ALICE}/own.json"].verdict == "loaded"


def test_what_is_found_is_never_followed_and_what_is_named_is(
    tmp_path: Path, project: Settings
) -> None:
    secret, folder = tmp_path / "secret.json", tmp_path / "spool"
    secret.write_text("[" * 10)
    (folder / "node01" / "runs" / "5").mkdir(parents=True)
    inside = folder / "node01" / "runs" / "5"
    (inside / "link.json").symlink_to(secret)
    (inside / "dangling.json").symlink_to("nowhere")
    os.mkfifo(inside / "pipe.json")
    (inside / "folder.json").mkdir()
    (folder / "node01" / "runs" / "6").symlink_to(tmp_path)
    (folder / "node02").symlink_to(folder / "node01")
    (folder / "node01" / "circle").symlink_to(folder)
    found = [folder, f"{folder}/*/runs/*/*.json", f"{folder}/**/*.json", f"{folder}/**"]
    for paths in found:
        files = expand_paths([paths])
        assert secret not in [path.resolve() for path in files if not path.is_symlink()]
        for path in files:
            with pytest.raises(BadInput, match=r"a link|a pipe|a folder|not a regular"):
                hash_file(path)
            with pytest.raises(BadInput), open_plain_text(path, tmp_path):
                pass
    for ingest in (ingest_gpu, ingest_grid, ingest_runs):
        outcomes = ingest(project, [folder])
        assert {outcome.verdict for outcome in outcomes} <= {"quarantined"}
        assert any("a link, which is not followed" in outcome.reason for outcome in outcomes)
    assert not project.quarantine.exists() or list(project.quarantine.iterdir()) == []
    named = tmp_path / "named.json"
    named.symlink_to(secret)
    assert hash_file(expand_paths(follow_named([str(named)]))[0]) == hash_file(secret)
    with pytest.raises(BadInput, match="a link"):
        hash_file(expand_paths([named])[0])


def test_the_pipeline_follows_no_link_that_it_finds(tmp_path: Path) -> None:
    """The service runs as its own user: a link must not make it read, or copy, what only it may read."""
    from flows.orchestration.pipeline import _find_files

    project = make_project(
        tmp_path / "project", '[[input.runs]]\npaths = ["spool/*/runs/*.json"]\n'
    )
    token = tmp_path / "token.json"
    token.write_text('{"token": "secret-of-the-service"}')
    runs = project.root / "spool" / "node01" / "runs" / "5"
    runs.mkdir(parents=True)
    (runs / "x.json").symlink_to(token)
    (runs.parent / "y.json").symlink_to("/proc/self/environ")
    (runs.parent / "6").symlink_to(tmp_path)
    files = _find_files(project, add_user_folders(project.input.runs[0].paths))
    assert {path.name for path in files} == {"x.json", "y.json", "6"}
    outcomes = ingest_runs(project, files)
    assert {o.verdict for o in outcomes} == {"quarantined"}
    assert all("a link, which is not followed" in o.reason for o in outcomes)
    assert not project.quarantine.exists() or list(project.quarantine.iterdir()) == []


def test_a_folder_of_tables_by_year_is_no_spool(cluster: Settings) -> None:
    folder = cluster.root / "runs" / "2024"
    folder.mkdir(parents=True)
    row = {"run_id": "t", "started_at": "2024-05-01T12:00:00Z", "host": "node01", "gpu": "all"}
    (folder / "table.json").write_text(json.dumps([row]))
    assert [o.verdict for o in ingest_runs(cluster, [f"{cluster.root}/runs/**/*.json"])] == [
        "loaded"
    ]


def test_a_flood_of_records_costs_its_owner_only(
    cluster: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.sources.runs.record_files._MOST_FILES", 30)
    monkeypatch.setattr("flows.ingest.run_records._MOST_NAMED", 5)
    path = write(cluster, MALLORY)
    for number in range(60):
        path.with_name(f"{number}.json").write_text("[" * (100_000 + number))
        os.chown(path.with_name(f"{number}.json"), MALLORY, MALLORY)
    write(cluster, ALICE, host="node02")
    outcomes = load(cluster)
    assert outcomes[f"node02/runs/{ALICE}/r-{ALICE}.json"].verdict == "loaded"
    assert len(outcomes) == 1 + 5 + 1
    assert "25 more files cannot be used" in outcomes[f"node01/runs/{MALLORY}"].reason
    assert any(
        f"of user {MALLORY}; the newest 30 were read" in w
        for o in outcomes.values()
        for w in o.warnings
    )
