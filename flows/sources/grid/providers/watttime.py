"""WattTime v3: marginal emissions rate (co2_moer) every five minutes, in lb of CO2 per MWh.

Not by WattTime's own client (watttime 1.4): importing it turns on the program's root logger, it puts
the password into the environment, and it does not log in again when a token ends between two pages.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from flows.errors import BadInput
from flows.sources.grid.answers import read_values, refuse_other_signal
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Provider,
    Question,
    Request,
    ask_each,
    format_utc,
    parse_body,
    resolve_url,
)
from flows.sources.grid.series import GridData, Limits

_DAYS = 30
"""A request may span 32 days."""


class WattTime(Provider):
    url = "https://api.watttime.org"
    token_env = "WATTTIME_CREDENTIALS"
    requests_per_s = 5.0
    signals = ("marginal",)
    form = "json"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        with _LOCK:
            return _SESSIONS.setdefault((secret, base), _Session(secret, base))

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        url = f"{resolve_url(question.source, self)}/v3/historical"
        requests = (
            Request(
                url,
                (
                    ("region", question.region),
                    ("signal_type", "co2_moer"),
                    ("start", format_utc(begin)),
                    ("end", format_utc(end)),
                ),
            )
            for begin, end in question.split(_DAYS)
        )
        return ask_each(requests, question, ask, _find_values)

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        rows = []
        for page in pages:
            answer = parse_body(page, path)
            values = _find_values(answer, path)
            meta = answer.get("meta")
            refuse_other_signal(meta if isinstance(meta, dict) else {}, path)
            rows += [
                (item.get("point_time"), item.get("value"), bool(item.get("imputed", False)))
                for item in values
            ]
        return read_values(
            question.source.provider,
            rows,
            path,
            limits,
            zone=question.source.zone,
            signal="marginal",
            source="WattTime v3 co2_moer",
            minutes=5,
            unit="lb_per_mwh",
        )


def _find_values(answer: Any, place: Path | str) -> list[dict[str, Any]]:
    values = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(values, list):
        raise BadInput("the answer has no list of data", where=str(place))
    return [item for item in values if isinstance(item, dict)]


class _Session(httpx.Auth):
    """Logs in with user and password, and again when the token (30 minutes) has ended."""

    requires_response_body = True

    def __init__(self, secret: str, base: str) -> None:
        self._login, self._base, self._token = secret, base.rstrip("/"), ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        had_token = bool(self._token)
        # Where a login fails, its answer is what the caller sees.
        if not had_token and not (yield from self._log_in()):
            return
        request.headers["Authorization"] = f"Bearer {self._token}"
        answer = yield request
        if answer.status_code == 401 and had_token and (yield from self._log_in()):
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _log_in(self) -> Generator[httpx.Request, httpx.Response, bool]:
        user, _, password = self._login.partition(":")
        login = httpx.Request("GET", f"{self._base}/login")
        answer = yield next(httpx.BasicAuth(user, password).auth_flow(login))
        try:
            self._token = str(answer.json()["token"]) if answer.is_success else ""
        except (ValueError, KeyError, TypeError):
            self._token = ""
        return bool(self._token)


_SESSIONS: dict[tuple[str, str], _Session] = {}
_LOCK = Lock()
