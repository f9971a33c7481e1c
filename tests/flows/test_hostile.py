"""Names from outside are data everywhere: in SQL, paths, shells, zip files and pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.meters import ingest_meter
from flows.ingest.runs import ingest_runs
from flows.publication.bundle import verify_bundle, write_bundle
from flows.publication.history import trace_run
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from tests.conftest import ask, grid_csv, segment, wattledger

NASTY = [
    "a'; DROP TABLE gpu_reading; --",
    'b" OR "1"="1',
    "c[1]*?",
    "$(touch owned) `touch owned` ; touch owned",
    "d\nnewline\ttab",
    "e<script>alert(1)</script>".replace("/", "\u2215"),
    "-f --help",
    "g%s%n{0}{batch}",
    "ünï\u202ecode",
]


@pytest.mark.parametrize("name", NASTY)
def test_names_of_files_are_only_names(name: str, project: Settings) -> None:
    root = project.root
    readings = segment(root).rename(root / f"{name}.parquet")
    grid = grid_csv(root, [100, 200, 300, 400]).rename(root / f"{name}.csv")
    broken = root / f"{name}.txt.csv"
    broken.write_text("nothing,that\nanyone,knows\n")
    # A decoy that a pattern in the name would take in too.
    (root / "c1xx.parquet").write_bytes(b"no parquet")
    assert ingest_gpu(project, [readings])[0].verdict == "loaded"
    assert ingest_grid(project, [grid])[0].verdict == "loaded"
    [refused] = ingest_gpu(project, [broken])
    assert refused.verdict == "quarantined"
    [kept] = ask(project, "SELECT kept_path FROM quarantine")
    assert (root / kept["kept_path"]).resolve().parent == project.quarantine.resolve()
    assert (root / kept["kept_path"]).read_text() == broken.read_text()
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 3600}]
    assert not list(Path.cwd().glob("owned")) + list(root.glob("owned"))


def test_names_of_runs_and_meters_are_only_names(project: Settings, tmp_path: Path) -> None:
    """From the run table to publication, explanation, history, bundle and verification."""
    root = project.root
    ingest_gpu(project, [segment(root)])
    ingest_grid(project, [grid_csv(root, [100, 200, 300, 400])])
    table = root / "runs.json"
    table.write_text(
        json.dumps(
            [
                {
                    "run_id": name,
                    "name": name,
                    "owner": name,
                    "model": name,
                    "started_at": f"2024-05-01T12:{2 * place:02d}:00Z",
                    "ended_at": f"2024-05-01T12:{2 * place + 2:02d}:00Z",
                    "host": "node01",
                    "gpu": "all",
                    "labels": {name: name, "family": name},
                }
                for place, name in enumerate(NASTY)
            ]
        )
    )
    [outcome] = ingest_runs(project, [table])
    assert outcome.verdict == "loaded", outcome.reason
    meter = root / "meter.csv"
    meter.write_text(
        "meter,scope,metered,valid_from,valid_to,energy_kwh\n"
        '"m\'; DROP TABLE segment; --",host,"x\' OR 1=1 --",2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,1\n'
    )
    assert ingest_meter(project, [meter])[0].verdict == "loaded"
    compute(project)
    publish_candidate(project)
    runs = [row["run_id"] for row in ask(project, "SELECT run_id FROM run_summary")]
    assert sorted(runs) == sorted(NASTY)
    for name in NASTY:
        assert len(trace_run(project, name)) == 1
    for name in (NASTY[0], NASTY[6]):
        done = write_bundle(project, name, target=tmp_path / "bundle.zip")
        assert [one for one in verify_bundle(done.path) if one.ok is False] == []
        told = wattledger("explain", "--json", "--project", root, "--", name)
        assert told.returncode == 0, told.stderr
    assert not list(Path.cwd().glob("owned")) + list(root.glob("owned"))
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 3600}]
