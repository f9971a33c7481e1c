"""Providers through Prefect: retries, cache, and secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from tests.conftest import ask, runs_csv, segment, wattledger
from tests.grid_server import TOKEN, Server
from tests.provider_projects import (
    PROVIDERS,
    describe_provider,
    find_token_files,
    make_provider_project,
)


@pytest.mark.service
@pytest.mark.long
def test_the_pipeline_retries_goes_on_caches_and_tells_nobody_the_token(
    provider_server: Server, tmp_path: Path, on_server: dict[str, str]
) -> None:
    """Through Prefect: 503, 429 with Retry-After and a cut answer are waited out; WattTime's
    password is wrong; everything that was written or printed is searched for the tokens."""
    apis = (
        describe_provider("electricity-maps", provider_server.url, retries=3),
        describe_provider("eia", provider_server.url),
        describe_provider("watttime", provider_server.url, token_env="WRONG_LOGIN"),
    )
    project = make_provider_project(tmp_path / "p", *apis)
    ingest_gpu(project, [segment(project.root)])
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"
    ingest_runs(project, [runs_csv(project.root, [row])])
    provider_server.state.faults = [
        ("status", 503),
        ("status", (429, {"Retry-After": "1"})),
        ("cut", None),
    ]
    env = {
        **on_server,
        **{name: secret for name, secret in PROVIDERS.values() if name},
        "WRONG_LOGIN": f"somebody:{TOKEN}x",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    }
    pipeline = wattledger("pipeline", "--project", project.root, env=env)
    output = pipeline.stdout + pipeline.stderr
    # Published, and 2 as one provider could not be asked.
    assert pipeline.returncode == 2, output
    assert (project.root / "published" / "report.html").exists()
    assert "refused the token" in output
    attempts = ask(project, "SELECT feed, outcome FROM grid_fetch ORDER BY feed")
    assert [tuple(a.values()) for a in attempts] == [
        ("electricity-maps", "fetched"),
        ("watttime", "failed"),
    ]
    assert len(provider_server.state.asked) == 4
    # The same questions from another project: answered from the cache.
    other = make_provider_project(tmp_path / "other", apis[0])
    ingest_gpu(other, [segment(other.root)])
    again = wattledger("fetch", "--project", other.root, "--json", env=env)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[0]["rows_loaded"] == 72
    assert len(provider_server.state.asked) == 4
    # Named days are asked for again; the token comes from a Prefect Secret block this time.
    save = (
        "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[1]).save('em')"
    )
    subprocess.run([sys.executable, "-c", save, TOKEN], env=env, check=True, capture_output=True)
    block = describe_provider("electricity-maps", provider_server.url, token_block="em")
    make_provider_project(tmp_path / "other", block)
    del env["ELECTRICITY_MAPS_TOKEN"]
    days = ("--from", "2024-05-01", "--to", "2024-05-01")
    fresh = wattledger("fetch", "XX", *days, "--project", other.root, env=env)
    assert fresh.returncode == 0, fresh.stderr
    assert len(provider_server.state.asked) == 5
    for text in (output, again.stdout + again.stderr, fresh.stdout + fresh.stderr):
        assert TOKEN not in text
    assert find_token_files(tmp_path) == []
