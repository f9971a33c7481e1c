"""UK Carbon Intensity API (NESO): half-hourly, national (measured) or by region (forecast alone).

Its intensities count what power stations emit, and nothing for wind, sun or nuclear: they are direct,
not life-cycle. No token, and no client library that is kept up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
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
from flows.sources.grid.reader import GridData

_DAYS = 13
"""A request may span 14 days, ends included."""


class CarbonIntensity(Provider):
    url = "https://api.carbonintensity.org.uk"
    token_env = ""
    requests_per_s = 2.0
    signals = ("average_direct",)
    form = "json"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return None

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        above, below = ("/regional", f"/regionid/{source.region}") if source.region else ("", "")
        url = f"{base_url(source, self)}{above}/intensity"
        # The half hour that ends at `from` is given too, so ask from its middle.
        parts = (
            Request(f"{url}/{utc_text(begin + timedelta(minutes=1))}/{utc_text(end)}{below}")
            for begin, end in spans(first, last, _DAYS)
        )
        return ask_in_parts(source, parts, ask, _items)

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        rows = []
        for page in pages:
            for item in _items(body_json(page, at), at):
                given = item.get("intensity", {})
                # A half hour without a measured value keeps its forecast, marked as estimated.
                actual, forecast = given.get("actual"), given.get("forecast")
                if actual is not None or forecast is not None:
                    value = actual if actual is not None else forecast
                    rows.append((item.get("from"), value, actual is None))
        return intensities(
            rows,
            source,
            "average_direct",
            "UK Carbon Intensity API",
            "uk-carbon-intensity",
            at,
            minutes=30,
        )


def _items(answer: Any, at: Path | str) -> list[dict[str, Any]]:
    found = answer.get("data") if isinstance(answer, dict) else None
    if isinstance(found, dict):  # A region wraps its half hours once more.
        found = found.get("data")
    if not isinstance(found, list):
        raise BadInput("the answer has no list of half hours", where=str(at))
    return found
