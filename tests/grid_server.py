"""A real HTTP server on loopback that answers like the providers of grid data, with faults on demand."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "t0ken-Planted/9f8e7d6c"
LOGIN = f"founder:{TOKEN}"

HTML = b"<!DOCTYPE html><html><head><title>Please log in</title></head><body>hotel</body></html>"


@dataclass
class State:
    """What the server answers, and what it was asked for."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    faults: list[tuple[str, Any]] = field(default_factory=list)
    """Faults of the next answers, in order: a kind and what it needs."""
    always: tuple[str, Any] | None = None
    value: float = 400.0
    missing_hours: int = 0
    """Hours at the end that have no value."""
    shift: timedelta = timedelta()
    """By how much the answer is about another time."""
    date: datetime | None = None
    jwt: str = "jwt-1"
    expires_after: int = 10**9
    """Answers that a WattTime token is good for."""
    served: int = 0
    logins: int = 0
    xml: bytes = b""


@dataclass
class Server:
    url: str
    state: State


class _Handler(BaseHTTPRequestHandler):
    """Answers one request as `state` says."""

    state: State
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        params = dict(parse_qsl(parts.query))
        if parts.path == "/login":
            self._login()
            return
        self.state.asked.append((parts.path, params))
        fault = self.state.faults.pop(0) if self.state.faults else self.state.always
        if fault and self._fault(*fault):
            return
        if not self._allowed(parts.path, params):
            # Echoes what it was given, as careless servers do.
            shown = params.get("api_key") or params.get("securityToken") or TOKEN
            self._send(401, json.dumps({"error": f"bad token {shown}"}).encode())
            return
        body, kind = build_answer(self.state, parts.path, params)
        self._send(200, body, kind)

    def _login(self) -> None:
        self.state.logins += 1
        wanted = "Basic " + base64.b64encode(LOGIN.encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self._send(403, b'{"error": "wrong password"}')
            return
        self.state.jwt, self.state.served = f"jwt-{self.state.logins}", 0
        self._send(200, json.dumps({"token": self.state.jwt}).encode())

    def _allowed(self, path: str, params: dict[str, str]) -> bool:
        if path.startswith("/v3/carbon"):
            return self.headers.get("auth-token") == TOKEN
        if path.startswith("/v3/historical"):
            self.state.served += 1
            good = self.headers.get("Authorization") == f"Bearer {self.state.jwt}"
            return good and self.state.served <= self.state.expires_after
        if path.startswith("/v2/"):
            return params.get("api_key") == TOKEN
        if path == "/api":
            return params.get("securityToken") == TOKEN
        return True

    def _fault(self, kind: str, what: Any) -> bool:
        if kind == "status":
            status, headers = what if isinstance(what, tuple) else (what, {})
            self._send(status, b'{"message": "no, because"}', headers=headers)
        elif kind == "html":
            self._send(200, HTML, "text/html")
        elif kind == "bomb":
            self._send_bomb(what)
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"history": [{"zone": "DE", "carb')
            self.close_connection = True
        elif kind == "half":
            self._send(200, b'{"history": [{"zone": "DE", "carb')
        elif kind == "slow":
            time.sleep(what)
            return False
        elif kind == "body":
            self._send(200, what)
        elif kind == "redirect":
            self._send(302, b"", headers={"Location": what})
        return True

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        packed = gzip.compress(body)
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.state.date or datetime.now(UTC)))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(packed)

    def _send_bomb(self, size_mib: int) -> None:
        """A few kilobytes that unpack to far more."""
        self.send_response_only(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        packer = zlib.compressobj(1, wbits=31)
        with suppress(OSError):  # Whoever asked has heard enough.
            for _ in range(size_mib):
                block = packer.compress(bytes(1 << 20))
                self.wfile.write(block + packer.flush(zlib.Z_SYNC_FLUSH))
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def grid_server() -> Iterator[Server]:
    """A running server, and the state that a test may change."""
    state = State()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", state)
    finally:
        server.shutdown()
        server.server_close()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _steps(state: State, first: datetime, last: datetime, step: timedelta) -> list[datetime]:
    count = (last - first) // step - state.missing_hours * int(timedelta(hours=1) / step)
    return [first + state.shift + n * step for n in range(max(0, count))]


def build_answer(state: State, path: str, params: dict[str, str]) -> tuple[bytes, str]:
    """What a provider answers, in the form of its captured answers, and the type of the content."""
    if path == "/api":
        return state.xml, "text/xml"
    if path.startswith("/v3/carbon-intensity"):
        answer = _answer_electricity_maps(state, params)
    elif path.startswith("/v3/historical"):
        answer = _answer_watttime(state, params)
    elif path.startswith("/v2/electricity"):
        answer = _answer_eia(state, path, params)
    else:
        answer = _answer_uk(state, path)
    return json.dumps(answer).encode(), "application/json"


def _answer_electricity_maps(state: State, params: dict[str, str]) -> dict[str, Any]:
    first, last = _moment(params["start"]), _moment(params["end"])
    hours = [
        {
            "zone": params["zone"],
            "carbonIntensity": state.value + at.hour,
            "datetime": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "updatedAt": "2024-05-03T15:48:54.012Z",
            "createdAt": "2024-04-28T20:47:49.346Z",
            "emissionFactorType": params["emissionFactorType"],
            "isEstimated": at.hour == 3,
            "estimationMethod": "TIME_SLICER_AVERAGE" if at.hour == 3 else None,
        }
        for at in _steps(state, first, last, timedelta(hours=1))
    ]
    return {"zone": params["zone"], "data": hours}


def _answer_watttime(state: State, params: dict[str, str]) -> dict[str, Any]:
    first, last = _moment(params["start"]), _moment(params["end"])
    return {
        "data": [
            {"point_time": at.isoformat(), "value": state.value}
            for at in _steps(state, first, last, timedelta(minutes=5))
        ],
        "meta": {
            "data_point_period_seconds": 300,
            "region": params["region"],
            "signal_type": "co2_moer",
            "units": "lbs_co2_per_mwh",
            "warnings": [],
            "model": {"date": "2023-03-01"},
        },
    }


def _answer_eia(state: State, path: str, params: dict[str, str]) -> dict[str, Any]:
    first, last = (
        datetime.strptime(params[end], "%Y-%m-%dT%H").replace(tzinfo=UTC)
        for end in ("start", "end")
    )
    rows = [
        {
            "period": at.strftime("%Y-%m-%dT%H"),
            "respondent": params["facets[respondent][]"],
            "respondent-name": "Tennessee Valley Authority",
            "fueltype": fuel,
            "type-name": fuel,
            "value": str(value),
            "value-units": "megawatthours",
        }
        for at in _steps(state, first, last + timedelta(hours=1), timedelta(hours=1))
        for fuel, value in (("NUC", 7000), ("NG", state.value), ("COL", 2000), ("WAT", 1500))
    ]
    offset, length = int(params["offset"]), int(params["length"])
    return {
        "response": {
            "total": str(len(rows)),
            "dateFormat": 'YYYY-MM-DD"T"HH24',
            "frequency": "hourly",
            "data": rows[offset : offset + length],
        },
        "request": {"command": path, "params": params},
        "apiVersion": "2.1.8",
    }


def _answer_uk(state: State, path: str) -> dict[str, Any]:
    parts = path.strip("/").split("/")
    at = parts.index("intensity")
    first, last = (_moment(text) for text in parts[at + 1 : at + 3])
    halves = _steps(state, first.replace(minute=0), last, timedelta(minutes=30))
    items = [
        {
            "from": start.strftime("%Y-%m-%dT%H:%MZ"),
            "to": (start + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%MZ"),
            "intensity": {"forecast": 266, "index": "moderate"}
            if parts[0] == "regional"
            else {
                "forecast": 266,
                "actual": None if start.hour == 3 else state.value,
                "index": "moderate",
            },
        }
        for start in halves
    ]
    data: Any = items
    if parts[0] == "regional":
        data = {"regionid": int(parts[-1]), "shortname": "London", "data": items}
    return {"data": data}
