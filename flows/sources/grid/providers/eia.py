"""US EIA API v2: hourly net generation by energy source and balancing authority (Form EIA-930).

The client that knows it (gridstatus) wants an older pandas than Great Expectations and brings PDF and
plotting libraries, for one JSON endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from flows.errors import BadInput
from flows.settings import GridApiInput
from flows.sources.grid.eia_answers import list_eia_warnings, read_eia_items
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Provider,
    Question,
    Request,
    no_data_error,
    parse_body,
    resolve_url,
)
from flows.sources.grid.providers.http import ParamAuth
from flows.sources.grid.series import GridData, Limits

_ROWS = 5000
"""An answer holds no more rows than this."""
_HOUR = timedelta(hours=1)


class Eia(Provider):
    url = "https://api.eia.gov"
    token_env = "EIA_API_KEY"
    requests_per_s = 1.0
    signals = ("mix",)
    form = "json"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return ParamAuth("api_key", secret)

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        url = f"{resolve_url(question.source, self)}/v2/electricity/rto/fuel-type-data/data/"
        seen = 0
        while True:
            page = ask(
                Request(
                    url,
                    (
                        ("frequency", "hourly"),
                        ("data[0]", "value"),
                        ("facets[respondent][]", _find_respondent(question.source)),
                        # Periods are named by the hour in which they end; both ends count.
                        ("start", f"{question.first + _HOUR:%Y-%m-%dT%H}"),
                        ("end", f"{question.last:%Y-%m-%dT%H}"),
                        ("sort[0][column]", "period"),
                        ("sort[0][direction]", "asc"),
                        ("sort[1][column]", "fueltype"),
                        ("sort[1][direction]", "asc"),
                        ("offset", str(seen)),
                        ("length", str(_ROWS)),
                    ),
                )
            )
            response = _parse_response(page, url)
            rows = response["data"]
            if not seen and not rows:
                raise no_data_error(question.source, url, "an empty answer")
            seen += len(rows)
            yield page
            if not rows or seen >= _parse_total(response):
                return

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        responses = [_parse_response(page, path) for page in pages]
        return read_eia_items(
            [item for response in responses for item in response["data"]],
            path,
            limits,
            zone=question.source.zone,
            provider="EIA-930",
            total=responses[-1].get("total") if responses else None,
            warnings=[said for response in responses for said in list_eia_warnings(response)],
        )


def _find_respondent(source: GridApiInput) -> str:
    """Balancing authority: as given, or the end of a zone's name (US-TVA)."""
    return source.region or source.zone.rsplit("-", 1)[-1]


def _parse_total(response: dict[str, Any]) -> int:
    total = str(response.get("total", 0))
    return int(total) if total.isdecimal() else 0


def _parse_response(page: Page, place: Path | str) -> dict[str, Any]:
    answer = parse_body(page, place)
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict) or not isinstance(response.get("data"), list):
        raise BadInput("the answer has no response.data", where=str(place), remedy="Fetch it again")
    return response
