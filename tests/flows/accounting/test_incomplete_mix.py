"""A mix without one of its fuels is no figure of its own: the next tier takes its place, and says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flows import settings as settings_module
from flows.accounting.intensity import GridView, compute_slot_values
from flows.factors import read_factors
from flows.ingest.grid import ingest_grid
from flows.settings import Settings
from flows.sources.grid.layouts import Options
from flows.warehouse.connection import connect
from flows.warehouse.store import store_of
from tests.conftest import make_project
from transforms.constants import SLOT_US

T0 = datetime(2026, 2, 3, 8, tzinfo=UTC)


def entsoe(folder: Path, series: dict[str, tuple[int, float]]) -> Path:
    """An answer of ENTSO-E from 8:00: production type -> hours and megawatts."""
    parts = []
    for kind, (hours, megawatts) in series.items():
        points = "".join(
            f"<Point><position>{n}</position><quantity>{megawatts}</quantity></Point>"
            for n in range(1, hours + 1)
        )
        parts.append(
            '<TimeSeries><inBiddingZone_Domain.mRID codingScheme="A01">10Y1001A1001A82H'
            "</inBiddingZone_Domain.mRID><quantity_Measure_Unit.name>MAW"
            "</quantity_Measure_Unit.name><curveType>A01</curveType><MktPSRType>"
            f"<psrType>{kind}</psrType></MktPSRType><Period><timeInterval>"
            f"<start>{T0:%Y-%m-%dT%H:%MZ}</start><end>{T0 + timedelta(hours=hours):%Y-%m-%dT%H:%MZ}"
            f"</end></timeInterval><resolution>PT60M</resolution>{points}</Period></TimeSeries>"
        )
    path = folder / "answer.xml"
    path.write_text(
        '<GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">'
        f"<type>A75</type>{''.join(parts)}</GL_MarketDocument>"
    )
    return path


TRAILING = {"B02": (3, 12000), "B04": (3, 4000), "B19": (4, 9000)}
"""The last hour has wind only."""


def value_at(project: Settings, zone: str, hour: int, quantity: str) -> tuple[float, str, str]:
    """Value, tier and source of an hour from T0."""
    with connect(store_of(project).path, read_only=True) as con:
        view = GridView(con, project, read_factors(project))
        first = int((T0 + timedelta(hours=hour)).timestamp()) * 1_000_000 // SLOT_US
        slots = pl.DataFrame(
            {"zone": zone, "slot": list(range(first, first + 3_600_000_000 // SLOT_US))}
        )
        signal, source = compute_slot_values(view, slots, quantity)
    assert source["rung"].n_unique() == 1
    assert (signal["low"] <= signal["value"]).all()
    assert (signal["value"] <= signal["high"]).all()
    return signal["value"][0], source["rung"][0], source["source"][0]


def test_the_last_hour_has_wind_only(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    [outcome] = ingest_grid(project, [entsoe(tmp_path, TRAILING)], Options(zone="DE"))
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 10)
    assert any("1 of 4 intervals" in said and "lignite, gas" in said for said in outcome.warnings)
    value, tier, _ = value_at(project, "DE", 2, "intensity")
    assert (value, tier) == (pytest.approx((12 * 820 + 4 * 490 + 9 * 11) / 25, rel=0.05), "live")
    for quantity in ("intensity", "ewif", "withdrawal"):
        value, tier, source = value_at(project, "DE", 3, quantity)
        assert tier == "country_year"
        assert source.endswith("(the mix of file lacks lignite, gas)")
    assert 200 < value_at(project, "DE", 3, "intensity")[0] < 450


def test_another_feed_takes_its_place(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    series = tmp_path / "s.csv"
    series.write_text(
        "zone,valid_from,intensity_g_per_kwh\nDE,2026-02-03T10:00:00Z,444\nDE,2026-02-03T11:00:00Z,444\n"
    )
    ingest_grid(project, [entsoe(tmp_path, TRAILING)], Options(zone="DE"))
    ingest_grid(project, [series])
    assert value_at(project, "DE", 3, "intensity")[:2] == (444, "live")


def test_what_may_be_missing_is_a_setting(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    text = (project.root / "wattledger.toml").read_text()
    (project.root / "wattledger.toml").write_text(f"{text}\n[grid]\nmax_missing_share = 0.7\n")
    project = settings_module.load(project.root)
    ingest_grid(project, [entsoe(tmp_path, TRAILING)], Options(zone="DE"))
    assert value_at(project, "DE", 3, "intensity")[:2] == (pytest.approx(11), "live")
