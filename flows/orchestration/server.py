"""Which Prefect server a flow talks to: the person's own where one is set up, else a temporary one.

The temporary server keeps its state and its log in the project (.wattledger/prefect). A person's own
server, profile and home are never touched.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import PipelineFailed
from flows.orchestration import server_process
from flows.settings import Settings

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}
"""No telemetry, whatever the server."""

_TEMPORARY = {
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    # Services that have nothing to do in a server that lives for one run.
    **{
        f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false"
        for name in (
            "CANCELLATION_CLEANUP",
            "EVENT_PERSISTER",
            "FOREMAN",
            "LATE_RUNS",
            "PAUSE_EXPIRATIONS",
            "REPOSSESSOR",
            "SCHEDULER",
            "TASK_RUN_RECORDER",
            "TRIGGERS",
        )
    },
}
_START_S = 120


def has_own_server() -> bool:
    """Whether the person has a Prefect server of their own: by environment or active profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        profiles = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    return "PREFECT_API_URL" in profiles.get("profiles", {}).get(active, {})


@contextmanager
def use_prefect_api(settings: Settings, *, lasting: bool = False) -> Iterator[str]:
    """Give the flows run inside a Prefect API; to be entered before prefect is imported.

    Args:
        settings: The project.
        lasting: Start a server with schedules, automations, and an interface for people.

    Yields:
        The address of the API.

    Raises:
        PipelineFailed: the temporary server does not come up; its log is named.
    """
    os.environ.update(_QUIET)
    # Errors are reported by the command line, as sentences.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
    if has_own_server():
        yield os.environ.get("PREFECT_API_URL", "")
        return
    home = (settings.work / ("serve" if lasting else "prefect")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
    port = (settings.schedule.port if lasting else 0) or _find_free_port()
    server = _start_server(home, port, lasting=lasting)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        import prefect  # noqa: F401  (loads while the server starts)

        _wait_until_up(server, port, _log_of(home))
        yield os.environ["PREFECT_API_URL"]
    finally:
        _stop_server(server)
        os.environ.pop("PREFECT_API_URL", None)


def _start_server(home: Path, port: int, *, lasting: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", server_process.__name__, str(port), str(os.getpid())]
    with _log_of(home).open("wb") as log:
        return subprocess.Popen(
            [*command, "lasting"] if lasting else command,
            env={
                **os.environ,
                **({} if lasting else _TEMPORARY),
                "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
            },
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def _stop_server(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _log_of(home: Path) -> Path:
    return home / "server.log"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise PipelineFailed(
        "the temporary Prefect server does not answer",
        where=str(log),
        remedy="See that log; or start your own with `prefect server start` and set PREFECT_API_URL",
    )
