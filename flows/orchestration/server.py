"""Which Prefect server a flow talks to: the person's own where one is set up, else one that is started here.

A server that is started here keeps its state and its log in the project (.wattledger/prefect, .wattledger/serve),
listens on loopback, and answers only who knows its password: any user of the machine, and any page in a browser on it,
can reach loopback. A person's own server, profile and home are never touched.
"""

from __future__ import annotations

import os
import secrets
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
from flows.settings import FILE_NAME, Settings
from wattledger.files import write_file

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
    home = _find_home(settings, lasting=lasting)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
    with _listen(settings.schedule.port if lasting else 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {
            "PREFECT_API_URL": f"{address}/api",
            **_guard_server(address, _keep_password(home) if lasting else _make_password()),
        }
        os.environ |= environment
        server = _start_server(home, listener, lasting=lasting)
        try:
            import prefect  # noqa: F401  (loads while the server starts)

            _wait_until_up(server, address, _log_of(home))
            yield os.environ["PREFECT_API_URL"]
        finally:
            _stop_server(server)
            for name in environment:
                os.environ.pop(name, None)


def find_password(settings: Settings) -> Path | None:
    """The file with user and password of the server that `serve` starts; None where the person has a server."""
    return None if has_own_server() else _find_home(settings, lasting=True) / _PASSWORD


_PASSWORD = "password"


def _find_home(settings: Settings, *, lasting: bool) -> Path:
    return (settings.work / ("serve" if lasting else "prefect")).resolve()


def _listen(port: int) -> socket.socket:
    """Take a port of loopback, any that is free for 0.

    This process keeps it as long as the server is needed, and the server inherits it: nobody else can answer there in the
    server's place and be sent its password.
    """
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        raise PipelineFailed(
            f"port {port} cannot be used: {error.strerror}",
            where=f"{FILE_NAME}, setting schedule.port",
            remedy="Stop what listens there, set another port, or 0 for any",
        ) from None


def _guard_server(address: str, password: str) -> dict[str, str]:
    """Settings of Prefect by which a server answers those who know a password, and pages of its own."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address,
    }


def _keep_password(home: Path) -> str:
    """User and password of a lasting server: made once, for people who open its interface again."""
    path = home / _PASSWORD
    if not path.exists():
        write_file(path, _make_password() + "\n", mode=0o600)
    return path.read_text("utf-8").strip()


def _make_password() -> str:
    return f"wattledger:{secrets.token_urlsafe(24)}"


def _start_server(home: Path, listener: socket.socket, *, lasting: bool) -> subprocess.Popen[bytes]:
    socket_no = listener.fileno()
    command = [sys.executable, "-m", server_process.__name__, str(socket_no), str(os.getpid())]
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
            pass_fds=[socket_no],
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


def _wait_until_up(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise PipelineFailed(
        "the temporary Prefect server does not answer",
        where=str(log),
        remedy="See that log; or start your own with `prefect server start` and set PREFECT_API_URL",
    )
