"""Electricity Maps: carbon intensity by the hour, life-cycle or direct, with estimates marked.

API v3, `carbon-intensity/past-range`. The one Python client that is kept up (aioelectricitymaps) knows
only the latest and the last 24 hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from flows.errors import BadInput
from flows.sources.grid.answers import find_minutes, has_hours, list_hours, read_values
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
from flows.sources.grid.providers.http import HeaderAuth
from flows.sources.grid.series import GridData, Limits

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

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        url = f"{resolve_url(question.source, self)}/v3/carbon-intensity/past-range"
        requests = (
            Request(
                url,
                (
                    ("zone", question.region),
                    ("start", format_utc(begin)),
                    ("end", format_utc(end)),
                    ("emissionFactorType", question.signal.removeprefix("average_")),
                ),
            )
            for begin, end in question.split(_DAYS)
        )
        return ask_each(
            requests,
            question,
            ask,
            lambda answer, _: list_hours(answer) if has_hours(answer) else [],
        )

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        kind = question.signal.removeprefix("average_")
        rows, minutes = [], 60
        for page in pages:
            answer = parse_body(page, path)
            minutes = find_minutes(answer) or minutes if isinstance(answer, dict) else minutes
            for item in list_hours(answer):
                if item.get("emissionFactorType", kind) != kind:
                    raise BadInput(
                        f"{item['emissionFactorType']!r} factors came, {kind!r} was asked for",
                        where=str(path),
                    )
                estimated = bool(item.get("isEstimated"))
                rows.append((item.get("datetime"), item["carbonIntensity"], estimated))
        return read_values(
            question.source.provider,
            rows,
            path,
            limits,
            zone=question.source.zone,
            signal=question.signal,
            source="Electricity Maps API",
            minutes=minutes,
        )
