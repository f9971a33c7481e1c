"""WattTime v3: marginal emissions rate (co2_moer) every five minutes, in lb of CO2 per MWh.

Not by WattTime's own client (watttime 1.4): importing it turns on the program's root logger, it puts
the password into the environment, and it does not log in again when a token ends between two pages.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from flows.errors import BadInput
from flows.settings import GridApiInput
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Provider,
    Request,
    ask_in_parts,
    base_url,
    body_json,
    intensities,
    spans,
    utc_text,
)
from flows.sources.grid.reader import GRAMS_PER_KWH, GridData

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

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        url = f"{base_url(source, self)}/v3/historical"
        parts = (
            Request(
                url,
                (
                    ("region", source.region or source.zone),
                    ("signal_type", "co2_moer"),
                    ("start", utc_text(begin)),
                    ("end", utc_text(end)),
                ),
            )
            for begin, end in spans(first, last, _DAYS)
        )
        return ask_in_parts(source, parts, ask, _items)

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        rows = []
        for page in pages:
            answer = body_json(page, at)
            meta = answer.get("meta", {})
            if meta.get("units") != "lbs_co2_per_mwh" or meta.get("signal_type") != "co2_moer":
                raise BadInput(
                    f"not co2_moer in lbs_co2_per_mwh: {meta.get('signal_type')!r}, "
                    f"{meta.get('units')!r}",
                    where=str(at),
                )
            rows += [
                (item.get("point_time"), item.get("value"), bool(item.get("imputed", False)))
                for item in _items(answer, at)
            ]
        return intensities(
            rows,
            source,
            "marginal",
            "WattTime v3 co2_moer",
            "watttime",
            at,
            minutes=5,
            factor=GRAMS_PER_KWH["lb_per_mwh"],
        )


def _items(answer: Any, at: Path | str) -> list[dict[str, Any]]:
    found = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise BadInput("the answer has no list of data", where=str(at))
    return found


class _Session(httpx.Auth):
    """Logs in with user and password, and again when the token (30 minutes) has ended."""

    requires_response_body = True

    def __init__(self, secret: str, base: str) -> None:
        self._login, self._base, self._token = secret, base.rstrip("/"), ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        known = bool(self._token)
        # Where a login fails, its answer is what the caller sees.
        if not known and not (yield from self._log_in()):
            return
        request.headers["Authorization"] = f"Bearer {self._token}"
        answer = yield request
        if answer.status_code == 401 and known and (yield from self._log_in()):
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
