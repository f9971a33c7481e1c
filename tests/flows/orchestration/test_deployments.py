"""Scheduled operation: a real Prefect server, deployments that run, what happens when nothing ran."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.soak import soak
from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from tests.conftest import ROOT, ask, grid_csv, make_project, runs_csv, segment, wattledger
from tests.grid_server import TOKEN, grid_server
from tests.provider_projects import describe_provider, make_provider_project

SCHEDULE = """
[[input.gpu]]
paths = ["readings/*.parquet"]
[[input.grid]]
paths = ["grid.csv"]
[[input.runs]]
paths = ["runs.csv"]
[schedule]
ingest_min = 0.4
footprint_min = 5
port = 0
"""
ENVIRONMENT = {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}


def until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.3)
    raise AssertionError(f"after {seconds} s: {what}")


def post(api: str, path: str, password: str = "", **given: Any) -> Any:
    """Ask the API of a Prefect server."""
    headers = {"Content-Type": "application/json"}
    if password:
        headers["Authorization"] = f"Basic {b64encode(password.encode()).decode()}"
    request = urllib.request.Request(f"{api}/{path}", json.dumps(given).encode(), headers)
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # Prefect's own database was locked: its client would ask again, too.
            if error.code != 503:
                raise
            time.sleep(0.5)
    raise TimeoutError(path)


class Serving:
    """`wattledger serve`, in a process group of its own."""

    def __init__(self, project: Path, env: dict[str, str] | None = None) -> None:
        self.log = project / "serve.log"
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "WATTLEDGER_"))
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "serve", "-p", str(project)],
                cwd=ROOT, env={**clean, **ENVIRONMENT, **(env or {})}, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        said = until(self._address, 90, self.log.read_text())
        self.api = f"{said}/api"
        file = re.search(r"sign in with the line in (.+)", self.log.read_text())
        self.password = Path(file[1]).read_text().strip() if file else ""

    def _address(self) -> str:
        found = re.search(r"interface at (\S+)", self.log.read_text())
        return found[1] if found else ""

    def post(self, path: str, **given: Any) -> Any:
        return post(self.api, path, self.password, **given)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post(
            "flow_runs/filter", flows={"name": {"any_": [flow]}}, limit=200
        )
        return found

    def end(self, how: signal.Signals) -> int:
        if how is signal.SIGKILL:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        return self.process.wait(timeout=60)


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()


def count(project: Settings) -> int:
    """Readings that are loaded, read while the schedule may hold the file."""
    try:
        return int(ask(project, "SELECT count(*) AS n FROM gpu_reading")[0]["n"])
    except Exception:
        return -1


@pytest.mark.service
@pytest.mark.long
def test_serve(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", SCHEDULE)
    root = project.root
    (root / "readings").mkdir()
    segment(root / "readings", "node01")
    grid_csv(root, [100, 200, 300, 400])
    runs_csv(root, ["r1,2024-05-01T12:05:00Z,2024-05-01T12:13:20Z,node01,all,1"])
    first = Serving(root)
    try:
        # Nothing was ever published, so that is caught up with; then it goes on by itself.
        until((root / "published" / "published.duckdb").exists, 240, first.log.read_text())
        segment(root / "readings", "node02")
        until(lambda: count(project) == 7200, 120, first.log.read_text())
        keys = {a["key"]: a for a in first.post("artifacts/filter")}
        assert {
            "wattledger-files",
            "wattledger-runs",
            "wattledger-report",
            "wattledger-data-docs",
        } <= set(keys)
        assert json.loads(keys["wattledger-runs"]["data"])[0]["run_id"] == "r1"
        deployments = {
            d["entrypoint"].rsplit(".", 1)[1]: d for d in first.post("deployments/filter")
        }
        assert set(deployments) == {
            "ingest_new_flow",
            "compute_changed_flow",
            "publish_current_flow",
            "catch_up_flow",
            "backfill_flow",
        }
        for one in deployments.values():
            assert one["global_concurrency_limit"]["limit"] == 1
            assert one["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        with receiver() as (hook, got):
            script = ROOT / "docs" / "deploy" / "gate_failed.py"
            env = {
                **os.environ,
                "PREFECT_API_URL": first.api,
                "PREFECT_API_AUTH_STRING": first.password,
                "PREFECT_HOME": str(tmp_path / "home"),
            }
            subprocess.run(
                [sys.executable, str(script), hook], env=env, check=True, capture_output=True
            )
            toml = root / "wattledger.toml"
            toml.write_text(toml.read_text() + "\n[gate]\nmax_intensity_g_per_kwh = 1\n")
            first.post(f"deployments/{deployments['publish_current_flow']['id']}/create_flow_run")
            until(lambda: got, 120, first.log.read_text())
            assert "intensity_believable" in got[0]["text"]
        assert len(list((root / "publications").glob("0*"))) == 1
        assert_apart(first.runs("wattledger-ingest"))
        assert_strangers_are_refused(first)
        assert_other_projects_are_refused(
            first, deployments["catch_up_flow"]["id"], make_project(tmp_path / "other")
        )
    finally:
        first.end(signal.SIGKILL)
    killed = datetime.now(UTC)
    toml.write_text(
        toml.read_text().replace("max_intensity_g_per_kwh = 1", "max_intensity_g_per_kwh = 3000")
    )
    segment(root / "readings", "node03")
    time.sleep(15)  # A run is missed, with the time that starting takes.
    restarted = datetime.now(UTC)
    second = Serving(root)
    try:
        until(lambda: count(project) == 10_800, 120, second.log.read_text())
        # What was due meanwhile is not made up for one by one.
        for run in second.runs("wattledger-ingest"):
            due = datetime.fromisoformat(run["expected_start_time"])
            assert not (killed < due < restarted and run["state_type"] == "COMPLETED"), run
        [done] = [r for r in second.runs("wattledger-catch-up") if r["state_type"] == "COMPLETED"][
            :1
        ]
        assert done
    finally:
        ended = second.end(signal.SIGTERM)
    said = second.log.read_text()
    assert (ended, "Warning" in said, "Traceback" in said) == (0, False, False), said
    again = duckdb.connect(str(project.root / "warehouse.duckdb"))  # Nobody holds it any more.
    [(readings, different)] = again.execute(
        "SELECT count(*), count(DISTINCT (gpu_key, ts)) FROM gpu_reading"
    ).fetchall()
    again.close()
    assert readings == different == 10_800


@pytest.mark.service
@pytest.mark.long
def test_an_upgrade_that_moved_the_flows(tmp_path: Path, on_server: dict[str, str]) -> None:
    """What an older version registered runs from where the flows are now, and what was missed is done once."""
    project = make_project(tmp_path / "project", '\n[project]\nname = "upgraded"\n' + SCHEDULE)
    root, server = project.root, on_server["PREFECT_API_URL"]
    (root / "readings").mkdir()
    segment(root / "readings", "node01")
    grid_csv(root, [100, 200, 300, 400])
    runs_csv(root, ["r1,2024-05-01T12:05:00Z,2024-05-01T12:13:20Z,node01,all,1"])
    flow = post(server, "flows/", name="wattledger-ingest")
    old = post(
        server,
        "deployments/",
        name="upgraded",
        flow_id=flow["id"],
        entrypoint="flows.service.ingest",
        parameters={"project": str(root)},
    )
    due = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    missed = post(
        server,
        f"deployments/{old['id']}/create_flow_run",
        state={"type": "SCHEDULED", "state_details": {"scheduled_time": due}},
    )
    serving = Serving(root, on_server)
    try:
        until(
            lambda: [
                run
                for run in serving.runs("wattledger-catch-up")
                if run["parameters"] == {"project": str(root)} and run["state_type"] == "COMPLETED"
            ],
            240,
            serving.log.read_text(),
        )
    finally:
        serving.end(signal.SIGTERM)
    assert project.published_database.exists()
    deployments = post(server, "deployments/filter", deployments={"name": {"any_": ["upgraded"]}})
    assert {d["entrypoint"].rsplit(".", 1)[0] for d in deployments} == {
        "flows.orchestration.deployments"
    }
    entrypoints = {d["id"]: d["entrypoint"] for d in deployments}
    assert len(entrypoints) == 5
    assert entrypoints[old["id"]] == "flows.orchestration.deployments.ingest_new_flow"
    [run] = post(server, "flow_runs/filter", flow_runs={"id": {"any_": [missed["id"]]}})
    assert (run["state_type"], run["state"]["message"]) == ("CANCELLED", "missed")


def assert_strangers_are_refused(serving: Serving) -> None:
    """Neither other users of the machine nor pages in a browser on it can use the API."""
    for password in ("", "wattledger:guessed"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(serving.api, "deployments/filter", password)
        assert refused.value.code == 401
    asked = urllib.request.Request(
        f"{serving.api}/deployments/filter",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        method="OPTIONS",
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=20)
    assert refused.value.code == 400
    assert "Access-Control-Allow-Origin" not in refused.value.headers
    home = serving.log.parent / ".wattledger" / "serve"
    assert home.stat().st_mode & 0o077 == 0
    assert (home / "password").stat().st_mode & 0o077 == 0


def assert_other_projects_are_refused(serving: Serving, deployment: str, other: Settings) -> None:
    """Whoever reaches the API cannot make the service work in a folder of their own."""
    started = serving.post(
        f"deployments/{deployment}/create_flow_run", parameters={"project": str(other.root)}
    )

    def find_end() -> dict[str, Any] | None:
        [run] = serving.post("flow_runs/filter", flow_runs={"id": {"any_": [started["id"]]}})
        return run if run["state_type"] in ("FAILED", "CRASHED", "COMPLETED", "CANCELLED") else None

    end = until(find_end, 120, serving.log.read_text())
    assert end["state_type"] == "FAILED", end["state"]
    assert "started for another project" in end["state"]["message"]
    assert sorted(path.name for path in other.root.iterdir()) == [
        "warehouse.duckdb",
        "wattledger.toml",
    ]


def assert_apart(runs: list[dict[str, Any]]) -> None:
    """No two runs of one deployment were under way at once."""
    spans = sorted(
        (r["start_time"], r["end_time"])
        for r in runs
        if r["deployment_id"] and r["state_type"] == "COMPLETED"
    )
    assert spans
    assert all(a[1] <= b[0] for a, b in pairwise(spans)), spans


@pytest.mark.service
def test_backfill(tmp_path: Path, on_server: dict[str, str]) -> None:
    """A provider's revision of a day long published is asked for, and restates what rests on it."""
    with grid_server() as server:
        project = make_provider_project(
            tmp_path / "project", describe_provider("electricity-maps", server.url)
        )
        ingest_gpu(project, [segment(project.root)])
        ingest_runs(
            project,
            [runs_csv(project.root, ["r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"])],
        )
        env = {**on_server, "ELECTRICITY_MAPS_TOKEN": TOKEN}
        assert wattledger("pipeline", "-p", project.root, env=env).returncode == 0
        [before] = ask(project, "SELECT co2e_ug FROM run_footprint WHERE run_id = 'r1'")
        server.state.value *= 1.5
        done = wattledger("backfill", "2024-05-01", "2024-05-01", "-p", project.root, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
    [after] = ask(project, "SELECT co2e_ug FROM run_footprint WHERE run_id = 'r1'")
    assert after["co2e_ug"] == pytest.approx(before["co2e_ug"] * 1.5, rel=0.02)
    entries = ask(project, "SELECT reason FROM publication ORDER BY sequence")
    assert [one["reason"] for one in entries] == [None, "back-fill of 2024-05-01 to 2024-05-01"]
    wrong = wattledger("backfill", "May", "June", "-p", project.root, env=env)
    assert (wrong.returncode, "May" in wrong.stderr) == (1, True)


@pytest.mark.service
def test_when_a_publication_is_due(loaded: Settings) -> None:
    from flows.orchestration.deployments import is_publication_due

    assert is_publication_due(loaded)
    compute(loaded)
    publish_candidate(loaded)
    now = datetime.now(UTC)
    due = settings_module.load(loaded.root)
    due.schedule.publish = f"{now.minute} {now.hour} * * *"
    assert not is_publication_due(due, now)
    assert is_publication_due(due, now + timedelta(days=1, minutes=1))


@pytest.mark.long
def test_a_day_with_faults(tmp_path: Path) -> None:
    """Late, doubled, cut and unreadable files, killed processes: nothing lost, nothing doubled, no memory grown."""
    done = soak(tmp_path / "soak", days=0.4, seed=4)
    assert (done.lost, done.doubled, done.same_figures, done.verified) == (0, 0, True, True)
    assert min(done.late, done.twice, done.cut, done.unreadable, done.killed) > 0
    assert done.readings > 50_000
    assert done.memory_end_mb < done.memory_start_mb * 1.2
