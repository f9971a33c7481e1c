"""UK Carbon Intensity API (NESO): half-hourly, national (measured) or by region (forecast alone).

Its intensities count what power stations emit, and nothing for wind, sun or nuclear: they are direct,
not life-cycle. No token, and no client library that is kept up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from flows.errors import BadInput
from flows.sources.grid.answers import list_uk_values, read_values
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

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        region = question.source.region
        above, below = ("/regional", f"/regionid/{region}") if region else ("", "")
        url = f"{resolve_url(question.source, self)}{above}/intensity"
        # The half hour that ends at `from` is given too, so ask from its middle.
        requests = (
            Request(f"{url}/{format_utc(begin + timedelta(minutes=1))}/{format_utc(end)}{below}")
            for begin, end in question.split(_DAYS)
        )
        return ask_each(requests, question, ask, _find_half_hours)

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        rows = [
            row
            for page in pages
            for row in list_uk_values(_find_half_hours(parse_body(page, path), path))
        ]
        return read_values(
            question.source.provider,
            rows,
            path,
            limits,
            zone=question.source.zone,
            signal="average_direct",
            source="UK Carbon Intensity API",
            minutes=30,
        )


def _find_half_hours(answer: Any, place: Path | str) -> list[dict[str, Any]]:
    half_hours = answer.get("data") if isinstance(answer, dict) else None
    if isinstance(half_hours, dict):  # A region wraps its half hours once more.
        half_hours = half_hours.get("data")
    if not isinstance(half_hours, list):
        raise BadInput("the answer has no list of half hours", where=str(place))
    return [item for item in half_hours if isinstance(item, dict)]
