"""Projects that ask providers of grid data, for tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flows.ingest.fetch_grid import fetch_zone, request_page
from flows.ingest.grid_days import Span
from flows.orchestration.secrets import read_secret_block
from flows.settings import Settings
from flows.warehouse.registry import Outcome
from tests.conftest import ask, make_project
from tests.grid_server import LOGIN, TOKEN

DAY = datetime(2024, 5, 1, tzinfo=UTC)
ONE_DAY = Span(DAY, DAY + timedelta(days=1))

PROVIDERS = {
    "electricity-maps": ("ELECTRICITY_MAPS_TOKEN", TOKEN),
    "watttime": ("WATTTIME_CREDENTIALS", LOGIN),
    "uk-carbon-intensity": ("", ""),
    "entsoe": ("ENTSOE_TOKEN", TOKEN),
    "eia": ("EIA_API_KEY", TOKEN),
}


def build_entsoe_document(first: datetime, hours: int) -> bytes:
    """A document as the Transparency Platform sends it: curve type A03, repeated values left out."""
    series = "".join(
        f"""<TimeSeries><mRID>{n}</mRID>
        <inBiddingZone_Domain.mRID codingScheme="A01">10Y1001A1001A83F</inBiddingZone_Domain.mRID>
        <quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>A03</curveType>
        <MktPSRType><psrType>{kind}</psrType></MktPSRType><Period><timeInterval>
        <start>{first:%Y-%m-%dT%H:%MZ}</start><end>{first + timedelta(hours=hours):%Y-%m-%dT%H:%MZ}</end>
        </timeInterval><resolution>{step}</resolution>
        <Point><position>1</position><quantity>{value}</quantity></Point>
        </Period></TimeSeries>"""
        for n, (kind, value, step) in enumerate(
            (("B14", 6000, "PT60M"), ("B04", 3000, "PT60M"), ("B16", 1000, "PT15M")), 1
        )
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><GL_MarketDocument '
        'xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">'
        f"<mRID>1</mRID><type>A75</type>{series}</GL_MarketDocument>"
    ).encode()


def describe_provider(provider: str, url: str, zone: str = "XX", **more: object) -> str:
    """An entry of [[input.grid_api]] that asks the test server."""
    region = {"entsoe": "DE_LU", "eia": "TVA"}.get(provider, "")
    settings: dict[str, object] = {
        "provider": provider,
        "zone": zone,
        "url": url + ("/api" if provider == "entsoe" else ""),
        "retries": 2,
        "requests_per_s": 1000,
        **({"region": region} if region else {}),
        **more,
    }
    return "[[input.grid_api]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items())


def make_provider_project(folder: Path, *apis: str, signal: str = "average_lifecycle") -> Settings:
    return make_project(folder, "\n".join([*apis, f'[zones.XX]\nsignal = "{signal}"\n']))


def fetch(project: Settings, span: Span | None = ONE_DAY, **options: Any) -> list[Outcome]:
    """Ask the providers of zone XX, without Prefect."""
    return fetch_zone(
        project,
        "XX",
        lambda source: partial(request_page, source, read_block=read_secret_block),
        span,
        **options,
    )


def list_values(project: Settings) -> list[tuple[Any, ...]]:
    """The intensities stored at 2 and 3 o'clock: hour, signal, g/kWh, estimated, minutes."""
    rows = ask(
        project,
        "SELECT hour(valid_from) AS h, signal, intensity_g_per_kwh AS g, is_estimated AS e, "
        "epoch(valid_to - valid_from) / 60 AS minutes FROM grid_intensity "
        "WHERE hour(valid_from) IN (2, 3) AND minute(valid_from) = 0 ORDER BY 1",
    )
    return [tuple(row.values()) for row in rows]


def find_token_files(folder: Path) -> list[str]:
    """Files below `folder` that hold the token, plain or as it looks in an address."""
    written = [TOKEN.encode(), TOKEN.replace("/", "%2F").encode(), LOGIN.encode()]
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in written)
    ]
