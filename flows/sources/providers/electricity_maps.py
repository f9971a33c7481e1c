"""Electricity Maps: carbon intensity by the hour, life-cycle or direct, with estimates marked.

API v3, `carbon-intensity/past-range`. The one Python client that is kept up (aioelectricitymaps) knows
only the latest and the last 24 hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import httpx

from flows.errors import BadInput
from flows.settings import GridApiInput
from flows.sources.grid import GridData
from flows.sources.providers.base import (
    Ask,
    Page,
    Request,
    body_json,
    intensities,
    no_data,
    spans,
    utc_text,
)
from flows.sources.providers.http import HeaderAuth

_DAYS = 10
"""What one request for hourly values may span."""


class ElectricityMaps:
    url = "https://api.electricitymaps.com"
    token_env = "ELECTRICITY_MAPS_TOKEN"
    requests_per_s = 2.0
    signal = "average_lifecycle"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return HeaderAuth("auth-token", secret)

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        url = f"{(source.url or self.url).rstrip('/')}/v3/carbon-intensity/past-range"
        for begin, end in spans(first, last, _DAYS):
            page = ask(
                Request(
                    url,
                    (
                        ("zone", source.region or source.zone),
                        ("start", utc_text(begin)),
                        ("end", utc_text(end)),
                        ("emissionFactorType", signal.removeprefix("average_")),
                    ),
                )
            )
            if not _items(page, url):
                raise no_data(source, url, str(body_json(page, url))[:120])
            yield page

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        kind = signal.removeprefix("average_")
        rows = []
        for page in pages:
            for item in _items(page, at):
                if item.get("emissionFactorType", kind) != kind:
                    raise BadInput(
                        f"{item['emissionFactorType']!r} factors came, {kind!r} was asked for",
                        where=str(at),
                    )
                # Hours that are not known yet come without a value.
                if item.get("carbonIntensity") is not None:
                    rows.append(
                        (
                            item.get("datetime"),
                            item["carbonIntensity"],
                            bool(item.get("isEstimated")),
                        )
                    )
        return intensities(
            rows, source, signal, "Electricity Maps API", "electricity-maps", at, minutes=60
        )


def _items(page: Page, at: Path | str) -> list[dict[str, object]]:
    """The hours of an answer; older forms, and refusals with HTTP 200, have none."""
    answer = body_json(page, at)
    found = (answer.get("data") or answer.get("history")) if isinstance(answer, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
