"""ENTSO-E Transparency Platform: actual generation per type, by entsoe-py.

entsoe-py knows the areas, writes the request and understands refusals; we carry its requests
(so that the token, waiting and remembering are as for every provider) and read the document, as
its own parser fills the values that curve type A03 leaves out only in part.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import requests
from requests.adapters import BaseAdapter

from flows.errors import SourceError, UsageError
from flows.sources.grid.entsoe_xml import ROWS, read_entsoe_document
from flows.sources.grid.generation import build_mix
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Provider,
    Question,
    Request,
    no_data_error,
    resolve_url,
)
from flows.sources.grid.providers.http import ParamAuth
from flows.sources.grid.series import GridData, Limits

_DAYS = 100
"""A request may span a year; this keeps answers small."""
_TOKEN = "securityToken"


class Entsoe(Provider):
    url = "https://web-api.tp.entsoe.eu/api"
    token_env = "ENTSOE_TOKEN"
    requests_per_s = 2.0
    signals = ("mix",)
    form = "xml"

    def auth(self, secret: str, base: str) -> httpx.Auth | None:
        return ParamAuth(_TOKEN, secret)

    def pages(self, question: Question, ask: Ask) -> Iterator[Page]:
        import pandas as pd
        from entsoe import EntsoeRawClient
        from entsoe.exceptions import NoMatchingDataError

        source = question.source
        base = resolve_url(source, self)
        carrier = _Carrier(base, ask)
        session = requests.Session()
        session.mount("https://", carrier)
        session.mount("http://", carrier)
        # The library never sees the token: it is put in when the request is sent.
        client = EntsoeRawClient(api_key="-", session=session, retry_count=1, retry_delay=0)
        area = source.region or source.zone.replace("-", "_")
        for begin, end in question.split(_DAYS):
            try:
                client.query_generation(area, pd.Timestamp(begin), pd.Timestamp(end))
            except NoMatchingDataError:
                raise no_data_error(source, base, "no matching data found") from None
            except ValueError:
                raise UsageError(
                    f"ENTSO-E knows no area {area!r}",
                    where=f"input.grid_api {source.name!r}",
                    remedy="Set `region` to one of entsoe-py's areas, for example DE_LU or NO_2, "
                    "or to an EIC code",
                ) from None
            except requests.RequestException as error:
                raise SourceError(
                    f"{type(error).__name__}",
                    where=base,
                    remedy="It is asked again on the next run",
                ) from None
            yield carrier.last_page()

    def read(
        self, pages: Sequence[Page], question: Question, path: Path, limits: Limits
    ) -> GridData:
        faults = limits.collect(path)
        tables, points = [pl.DataFrame(schema=ROWS)], 0
        for page in pages:
            rows, more = read_entsoe_document(
                io.StringIO(page.body), path, question.source.zone, "", faults, points
            )
            tables.append(rows)
            points += more
        return build_mix("entsoe-xml", pl.concat(tables), faults, points, limits=limits, unit="MW")


class _Carrier(BaseAdapter):  # type: ignore[misc]
    """Carries the requests of entsoe-py through `ask`."""

    def __init__(self, base: str, ask: Ask) -> None:
        super().__init__()
        self._base, self._ask = base, ask
        self._page: Page | None = None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        params = httpx.URL(str(request.url)).params.multi_items()
        self._page = self._ask(Request(self._base, tuple((k, v) for k, v in params if k != _TOKEN)))
        response = requests.Response()
        response.status_code = 200
        response.headers["content-type"] = "text/xml"
        response.encoding = "utf-8"
        response.raw = io.BytesIO(self._page.body.encode())
        response.request, response.url = request, self._base
        return response

    def last_page(self) -> Page:
        assert self._page is not None
        return self._page

    def close(self) -> None:
        """Nothing is held open."""
