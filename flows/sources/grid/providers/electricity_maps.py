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
from flows.sources.grid.providers.http import HeaderAuth
from flows.sources.grid.reader import GridData, electricity_maps_hours

_DAYS = 10
"""What one request for hourly values may span."""


class ElectricityMaps(Provider):
    url = "https://api.electricitymaps.com"
    token_env = "ELECTRICITY_MAPS_TOKEN"
    requests_per_s = 2.0
    signals = ("average_lifecycle", "average_direct")
    form = "json"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return HeaderAuth("auth-token", secret)

    def pages(
        self, source: GridApiInput, signal: str, first: datetime, last: datetime, ask: Ask
    ) -> Iterator[Page]:
        url = f"{base_url(source, self)}/v3/carbon-intensity/past-range"
        parts = (
            Request(
                url,
                (
                    ("zone", source.region or source.zone),
                    ("start", utc_text(begin)),
                    ("end", utc_text(end)),
                    ("emissionFactorType", signal.removeprefix("average_")),
                ),
            )
            for begin, end in spans(first, last, _DAYS)
        )
        return ask_in_parts(source, parts, ask, lambda answer, _: electricity_maps_hours(answer))

    def read(self, pages: Sequence[Page], source: GridApiInput, signal: str, at: Path) -> GridData:
        kind = signal.removeprefix("average_")
        rows = []
        for page in pages:
            for item in electricity_maps_hours(body_json(page, at)):
                if item.get("emissionFactorType", kind) != kind:
                    raise BadInput(
                        f"{item['emissionFactorType']!r} factors came, {kind!r} was asked for",
                        where=str(at),
                    )
                estimated = bool(item.get("isEstimated"))
                rows.append((item.get("datetime"), item["carbonIntensity"], estimated))
        return intensities(
            rows, source, signal, "Electricity Maps API", "electricity-maps", at, minutes=60
        )
