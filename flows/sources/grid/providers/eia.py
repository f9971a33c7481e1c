"""US EIA API v2: hourly net generation by energy source and balancing authority (Form EIA-930).

The client that knows it (gridstatus) wants an older pandas than Great Expectations and brings PDF and
plotting libraries, for one JSON endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from flows.errors import BadInput
from flows.settings import GridApiInput
from flows.sources.grid import generation
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Provider,
    Request,
    base_url,
    body_json,
    no_data,
)
from flows.sources.grid.providers.http import ParamAuth
from flows.sources.grid.reader import GridData, finish

_ROWS = 5000
"""Rows of one answer at most."""
_HOUR = timedelta(hours=1)


class Eia(Provider):
    url = "https://api.eia.gov"
    token_env = "EIA_API_KEY"
    requests_per_s = 1.0
    signals = ("mix",)
    form = "json"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return ParamAuth("api_key", secret)

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        url = f"{base_url(source, self)}/v2/electricity/rto/fuel-type-data/data/"
        seen = 0
        while True:
            page = ask(
                Request(
                    url,
                    (
                        ("frequency", "hourly"),
                        ("data[0]", "value"),
                        ("facets[respondent][]", _respondent(source)),
                        # Periods are named by the hour in which they end; both ends count.
                        ("start", f"{first + _HOUR:%Y-%m-%dT%H}"),
                        ("end", f"{last:%Y-%m-%dT%H}"),
                        ("sort[0][column]", "period"),
                        ("sort[0][direction]", "asc"),
                        ("sort[1][column]", "fueltype"),
                        ("sort[1][direction]", "asc"),
                        ("offset", str(seen)),
                        ("length", str(_ROWS)),
                    ),
                )
            )
            response = _response(page, url)
            rows = response["data"]
            if not seen and not rows:
                raise no_data(source, url, "an empty answer")
            seen += len(rows)
            yield page
            if not rows or seen >= int(response.get("total", 0)):
                return

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        tables = []
        for page in pages:
            answer = {"response": _response(page, at)}
            if answer["response"]["data"]:
                tables.append(generation.eia_json(answer, at, source.zone, "EIA-930"))
        mix = pl.concat(tables).unique(maintain_order=True)
        return finish("eia930-json", mix, ["zone", "fuel"], mix.height)


def _respondent(source: GridApiInput) -> str:
    """Balancing authority: as given, or the end of a zone's name (US-TVA)."""
    return source.region or source.zone.rsplit("-", 1)[-1]


def _response(page: Page, at: Path | str) -> dict[str, Any]:
    answer = body_json(page, at)
    found = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise BadInput("the answer has no response.data", where=str(at), remedy="Fetch it again")
    return found
