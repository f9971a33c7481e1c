"""Shared fixtures: projects, sample readings, the demo (run once), the real data where it is."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from flows import settings as settings_module
from flows.samples import host
from flows.samples.host import Work
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.warehouse.frames import query_rows
from flows.warehouse.store import FileStore, open_warehouse, store_of

ROOT = Path(__file__).parent.parent
T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)

hypothesis_settings.register_profile(
    "default",
    deadline=None,
    max_examples=60,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.load_profile("default")

TOML = """
[[site]]
name = "main"
zone = "XX"
pue = { value = 1.2, low = 1.1, high = 1.3 }
wue_l_per_kwh = { value = 0.5, low = 0.2, high = 1.0 }
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the longest tests first, on as many workers as there are: none of them comes last."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if item not in long]
    share = -(-len(items) // workers)
    items[:] = []
    for number in range(workers):
        mine = long[number::workers]
        items += mine + rest[: share - len(mine)]
        del rest[: share - len(mine)]


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    """An empty project in zone XX."""
    return make_project(tmp_path / "project")


def make_project(folder: Path, extra: str = "") -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wattledger.toml").write_text(TOML + extra)
    project = settings_module.load(folder)
    warehouse = folder / "warehouse.duckdb"
    if project.lake is None and not warehouse.exists():
        warehouse.write_bytes(_empty_warehouse())
    return project


@cache
def _empty_warehouse() -> bytes:
    """A warehouse that nothing was loaded into: making one takes a quarter of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.duckdb"
        open_warehouse(FileStore(path)).close()
        return path.read_bytes()


def segment(folder: Path, name: str = "node01", **given: object) -> Path:
    """A segment of two GPUs: idle, then training for ten minutes, at 1 Hz."""
    options = {
        "gpus": 2,
        "start": T0,
        "seconds": 1800,
        "work": [Work((0, 1), 300, 900)],
        "seed": 3,
        **given,
    }
    path = folder / f"{name}.parquet"
    segments.write(host.generate_host_readings(name, **options), path)  # type: ignore[arg-type]
    return path


def grid_csv(folder: Path, values: list[float], minutes: int = 30, zone: str = "XX") -> Path:
    """An intensity series from one hour before T0."""
    start = T0 - timedelta(hours=1)
    lines = ["zone,valid_from,intensity_g_per_kwh"]
    lines += [
        f"{zone},{(start + timedelta(minutes=minutes * i)).isoformat()},{value}"
        for i, value in enumerate(values)
    ]
    path = folder / "grid.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def runs_csv(folder: Path, rows: list[str], name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(["run_id,started_at,ended_at,host,gpu,share", *rows]) + "\n")
    return path


@contextmanager
def _once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that all test processes of this run share, one of them at a time."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A project folder that is made once in this run of tests, to be copied."""
    with _once(tmp_path_factory, name) as shared:
        if not (shared / "made").exists():
            shutil.rmtree(shared / "project", ignore_errors=True)
            make(shared / "project")
            (shared / "made").touch()
    return shared / "project"


def copied(template: Path, target: Path) -> Settings:
    """A copy of a project, for one test to change."""
    return settings_module.load(Path(shutil.copytree(template, target, symlinks=True)))


def _load(folder: Path) -> None:
    from flows.ingest.gpu import ingest_gpu
    from flows.ingest.grid import ingest_grid
    from flows.ingest.runs import ingest_runs

    project = make_project(folder)
    assert ingest_gpu(project, [segment(folder)])[0].verdict == "loaded"
    assert ingest_grid(project, [grid_csv(folder, [100, 200, 300, 400])])[0].verdict == "loaded"
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"
    assert ingest_runs(project, [runs_csv(folder, [row])])[0].verdict == "loaded"


@pytest.fixture
def loaded(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """A project with readings, grid and one run, not yet computed."""
    return copied(made_once(tmp_path_factory, "loaded", _load), tmp_path / "project")


def _put_in_force(folder: Path) -> None:
    from flows.accounting.compute import compute
    from flows.publication.publish import publish_candidate

    project = settings_module.load(folder)
    compute(project)
    assert publish_candidate(project).changed


def _publish(folder: Path) -> None:
    _load(folder)
    _put_in_force(folder)


@pytest.fixture
def published(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """The same, published."""
    return copied(made_once(tmp_path_factory, "published", _publish), tmp_path / "project")


def _revise(folder: Path) -> None:
    from flows.ingest.grid import ingest_grid

    _publish(folder)
    project = settings_module.load(folder)
    ingest_grid(project, [grid_csv(folder, [100, 200, 301, 400])])
    _put_in_force(folder)


@pytest.fixture
def republished(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """Two publications: the second has other grid data."""
    return copied(made_once(tmp_path_factory, "republished", _revise), tmp_path / "project")


def _end_unevenly(folder: Path) -> None:
    from flows.ingest.runs import ingest_runs

    _load(folder)
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:13:20Z,node01,all,1"
    ingest_runs(settings_module.load(folder), [runs_csv(folder, [row], "uneven.csv")])
    _put_in_force(folder)


@pytest.fixture
def uneven(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """Published; the run ends in the middle of a slot."""
    return copied(made_once(tmp_path_factory, "uneven", _end_unevenly), tmp_path / "project")


ACCOUNTED_GRID = "[zones.XX]\nfallback_intensity_g_per_kwh = 300\newif_l_per_kwh = 2\nwithdrawal_l_per_kwh = 50\n"
ACCOUNTED_TARIFF = """
[[tariff]]
site = "main"
price_per_kwh = 0.2
[[tariff]]
site = "main"
price_per_kwh = 0.5
from_hour = 14
to_hour = 15
tz = "Europe/Berlin"
"""

ACCOUNTED_RUNS = """run_id,started_at,ended_at,host,gpu,model,family,phase,functional_unit,functional_units,exit_code,outcome
main,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,llm,,,token,2e6,0,
probe,2024-05-01T12:00:00Z,2024-05-01T12:05:00Z,node01,0,llm,,development,,,1,
restart,2024-05-01T12:15:00Z,2024-05-01T12:20:00Z,node01,0,,llm,,step,many,,stopped
other,2024-05-01T12:15:00Z,2024-05-01T12:20:00Z,node01,1,,,,,,,
"""


def _account(folder: Path) -> None:
    from flows.ingest.gpu import ingest_gpu
    from flows.ingest.runs import ingest_runs

    project = make_project(folder, ACCOUNTED_GRID + ACCOUNTED_TARIFF)
    ingest_gpu(project, [segment(folder)])
    path = folder / "runs.csv"
    path.write_text(ACCOUNTED_RUNS)
    assert ingest_runs(project, [path])[0].verdict == "loaded"
    _put_in_force(folder)


@pytest.fixture
def accounted(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Settings:
    """A published project with a family of runs, labels of all kinds and tariffs."""
    return copied(made_once(tmp_path_factory, "accounted", _account), tmp_path / "project")


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.preloaded"])


@pytest.fixture(scope="session")
def kill_while() -> Callable[..., None]:
    """Runs a function of `tests.preloaded` in a process of its own, and kills it after some seconds."""

    def run(work: Callable[..., None], *given: object, after_s: float) -> None:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=work, args=(*given, theirs))
        process.start()
        # A child that dies before it begins says nothing.
        assert ours.poll(120), f"the work did not begin (exit code {process.exitcode})"
        assert ours.recv() == "go"
        time.sleep(after_s)
        process.kill()
        process.join()

    return run


def _environment(env: dict[str, str] | None) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "WATTLEDGER_"))}
    return {**clean, **(env or {})}


def wattledger(
    *words: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which starts with the heavy imports done."""
    from tests import preloaded

    given = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        process = PROCESSES.Process(
            target=preloaded.run_command, args=(given, _environment(env), Path(folder), ROOT)
        )
        process.start()
        process.join(240)
        process.kill()
        process.join()
        said = {name: (Path(folder) / name).read_text("utf-8") for name in ("stdout", "stderr")}
    assert process.exitcode is not None
    return subprocess.CompletedProcess(given, process.exitcode, **said)


def started_afresh(
    *words: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does, imports included."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=_environment(env),
        cwd=ROOT,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo project, made by `wattledger demo --sample` (shared: look, don't touch)."""
    with _once(tmp_path_factory, "demo") as shared:
        folder = shared / "project"
        if not (shared / "output.txt").exists():
            done = started_afresh("demo", "--sample", "--project", folder)
            assert done.returncode == 0, done.stdout + done.stderr
            (shared / "errors.txt").write_text(done.stderr)
            (shared / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a running Prefect server: what a person's own server is to the command."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        module, socket_no = "flows.orchestration.server_process", listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", module, str(socket_no), str(os.getpid())],
            env={
                **os.environ,
                "PREFECT_HOME": str(home),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            },
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[socket_no],
        )
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{api}/health", timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                server.kill()
                pytest.fail("Prefect's server did not begin to answer in two minutes")
            time.sleep(0.1)
    yield api
    server.terminate()
    server.wait(timeout=20)


@pytest.fixture
def on_server(prefect_server: str, tmp_path: Path) -> dict[str, str]:
    """Environment that makes the command use the running server (and spares starting one)."""
    return {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect-home")}


@pytest.fixture
def demo_copy(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo project to change."""
    return Path(shutil.copytree(demo, tmp_path / "copy", symlinks=True))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stand-in driver library, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    with _once(tmp_path_factory, "driver") as folder:
        library = folder / "libnvidia-ml.so.1"
        if not library.exists():
            source = ROOT / "tests" / "node" / "nvml_stand_in.c"
            part = folder / "part.so"
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", part, source], check=True)
            part.rename(library)
    return folder


def ask(project: Settings, query: str) -> list[dict[str, Any]]:
    """Rows of a query on the warehouse."""
    con = store_of(project).connect(read_only=True)
    try:
        return query_rows(con, query)
    finally:
        con.close()


def run_alone(function: Callable[..., int], *arguments: str) -> int:
    """Call a function of a test's module in a process of its own, where it may become another user.

    A fork would not do: threads of this process (Polars, DuckDB) hold locks that nobody frees in the child.
    """
    name = function.__name__
    code = f"import sys; from {function.__module__} import {name}; sys.exit({name}(*sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, timeout=120)
    return done.returncode


def real_data() -> Path | None:
    for given in (os.environ.get("WATTLEDGER_DATA"), ROOT.parent / "shared" / "data"):
        if given and Path(given).is_dir():
            return Path(given)
    return None


@pytest.fixture
def data() -> Path:
    """The folder of real logs and series, which are not part of this repository."""
    folder = real_data()
    if folder is None:
        pytest.skip("the real logs and series are not here (set WATTLEDGER_DATA)")
    return folder


def readings_frame(rows: list[tuple[int, float, int | None, int | None]]) -> pl.DataFrame:
    """Readings from (gpu_key, seconds after T0, power_mw, energy_mj)."""
    base = int(T0.timestamp() * 1_000_000)
    return pl.DataFrame(
        {
            "gpu_key": pl.Series([r[0] for r in rows], dtype=pl.Int32),
            "ts": pl.Series([base + round(r[1] * 1e6) for r in rows]).cast(
                pl.Datetime("us", "UTC")
            ),
            "power_mw": pl.Series([r[2] for r in rows], dtype=pl.Int32),
            "energy_mj": pl.Series([r[3] for r in rows], dtype=pl.Int64),
            "averaged": pl.Series([False] * len(rows), dtype=pl.Boolean),
        }
    )
