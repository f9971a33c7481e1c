"""Small files of every form of grid data, for tests that damage them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

T0 = datetime(2025, 6, 2, tzinfo=UTC)
HOURS = 48
FUELS = {"Fossil Gas": "gas", "Nuclear": "nuclear", "Wind Onshore": "wind_onshore"}


def at(hour: float, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return (T0 + timedelta(hours=hour)).strftime(form)


def _table(header: str, row: str, separator: str = ",") -> list[str]:
    lines = [header]
    for h in range(HOURS):
        fields = {
            "z": at(h),
            "naive": at(h, "%Y-%m-%d %H:%M:%S"),
            "german": at(h, "%d.%m.%Y %H:%M"),
            "german_end": at(h + 1, "%d.%m.%Y %H:%M"),
            "mtu": f"{at(h, '%d/%m/%Y %H:%M:%S')} - {at(h + 1, '%d/%m/%Y %H:%M:%S')}",
            "old_mtu": f"{at(h, '%d.%m.%Y %H:%M')} - {at(h + 1, '%d.%m.%Y %H:%M')} (CET/CEST)",
            "g": f"{300 + h}",
            "g2": f"{200 + h}.5",
            "kg": f"0.{300 + h}",
            "mw": f"{4000 + h}",
            "mw2": f"{2000 + h}",
            "german_mw": f"4.{h:03},25",
            "german_mw2": f"2.{h:03},5",
        }
        lines.append(row.format(**fields))
    return lines


TABLES: dict[str, tuple[list[str], int]] = {
    "generic": (_table("time,zone,intensity_g_per_kwh", "{z},XX,{g}"), 1),
    "generic quoted": (_table('"valid_from";"intensity [kg/kWh]"', '"{z}";"{kg}"'), 1),
    "electricity maps": (
        _table(
            "Datetime (UTC),Country,Zone Name,Zone Id,Carbon intensity gCO₂eq/kWh (direct),"
            "Carbon intensity gCO₂eq/kWh (Life cycle),Data Estimated",
            '{naive},Germany,"Germany, all of it",DE,{g},{g2},false',
        ),
        2,
    ),
    "sgip": (_table("time,moer", "{z},{kg}"), 1),
    "location": (_table("location,timestamp,duration,value", "XX,{z},60,{g}"), 1),
    "lets wait awhile": (_table("Time,Carbon Intensity", "{naive},{g}"), 1),
    "entsoe wide": (_table(",Fossil Gas,Nuclear,Wind Onshore", "{z},{mw},{mw2},{g}"), 3),
    "entsoe old export": (
        _table(
            '"Area","MTU","Fossil Gas  - Actual Aggregated [MW]","Nuclear  - Actual Aggregated [MW]",'
            '"Fossil Oil shale  - Actual Aggregated [MW]"',
            '"Germany (DE)","{old_mtu}","{mw}","{mw2}","n/e"',
        ),
        2,
    ),
    "smard": (
        _table(
            "Datum von;Datum bis;Braunkohle [MWh] Originalauflösungen;"
            "Kernenergie [MWh] Originalauflösungen;Photovoltaik [MWh] Originalauflösungen",
            "{german};{german_end};{german_mw};{german_mw2};-",
        ),
        2,
    ),
}
"""Form -> lines, and values of a line."""


def export_lines() -> list[str]:
    """ENTSO-E's export: a row for each production type."""
    lines = ['"MTU (CET/CEST)","Area","Production Type","Generation (MW)"']
    for kind, output in (("Fossil Gas", 4000), ("Nuclear", 2000), ("Marine", None)):
        for h in range(HOURS):
            mtu = f"{at(h, '%d/%m/%Y %H:%M:%S')} - {at(h + 1, '%d/%m/%Y %H:%M:%S')}"
            value = "n/e" if output is None else output + h
            lines.append(f'"{mtu}","BZN|DE-LU","{kind}","{value}"')
    return lines


TABLES["entsoe export"] = (export_lines(), 1)

ANSWERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "electricity maps": (
        {
            "zone": "DE",
            "history": [
                {
                    "zone": "DE",
                    "carbonIntensity": 300 + h,
                    "datetime": at(h, "%Y-%m-%dT%H:%M:%S.000Z"),
                    "emissionFactorType": "lifecycle",
                    "isEstimated": h % 5 == 0,
                }
                for h in range(HOURS)
            ],
        },
        ("history",),
    ),
    "power breakdown": (
        {
            "zone": "DE",
            "history": [
                {
                    "zone": "DE",
                    "datetime": at(h),
                    "powerProductionBreakdown": {
                        "gas": 4000 + h,
                        "nuclear": 2000,
                        "wind": 3000,
                        "hydro discharge": None,
                    },
                    "powerConsumptionBreakdown": {"gas": 1},
                    "isEstimated": False,
                }
                for h in range(HOURS)
            ],
        },
        ("history",),
    ),
    "eia": (
        {
            "response": {
                "total": str(HOURS * 3),
                "data": [
                    {
                        "period": at(h, "%Y-%m-%dT%H"),
                        "respondent": "TVA",
                        "fueltype": kind,
                        "value": str(value + h),
                        "value-units": "megawatthours",
                    }
                    for h in range(HOURS)
                    for kind, value in (("COL", 3000), ("NUC", 7000), ("SUN", 100))
                ],
            }
        },
        ("response", "data"),
    ),
    "uk": (
        {
            "data": [
                {
                    "from": at(h / 2, "%Y-%m-%dT%H:%MZ"),
                    "to": at(h / 2 + 0.5, "%Y-%m-%dT%H:%MZ"),
                    "intensity": {"forecast": 200, "actual": 210 + h, "index": "moderate"},
                }
                for h in range(HOURS)
            ]
        },
        ("data",),
    ),
    "watttime": (
        {
            "data": [{"point_time": at(h / 12), "value": 870.5 + h} for h in range(HOURS)],
            "meta": {
                "region": "CAISO_NORTH",
                "signal_type": "co2_moer",
                "units": "lbs_co2_per_mwh",
                "data_point_period_seconds": 300,
            },
        },
        ("data",),
    ),
}
"""Form -> an answer, and where its items are."""


def entsoe_document() -> str:
    series = "".join(
        f"<TimeSeries><inBiddingZone_Domain.mRID>10Y1</inBiddingZone_Domain.mRID>"
        f"<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>{curve}</curveType>"
        f"<MktPSRType><psrType>{kind}</psrType></MktPSRType><Period><timeInterval>"
        f"<start>{at(0, '%Y-%m-%dT%H:%MZ')}</start><end>{at(HOURS, '%Y-%m-%dT%H:%MZ')}</end>"
        f"</timeInterval><resolution>PT60M</resolution>\n"
        + "\n".join(
            f"<Point><position>{h + 1}</position><quantity>{value + h}</quantity></Point>"
            for h in range(HOURS)
        )
        + "\n</Period></TimeSeries>\n"
        for kind, value, curve in (("B04", 4000, "A01"), ("B14", 7000, "A03"), ("B19", 500, "A01"))
    )
    return (
        '<?xml version="1.0"?>\n<GL_MarketDocument '
        'xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">\n'
        f"<type>A75</type>\n{series}</GL_MarketDocument>\n"
    )


def as_json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, indent=1)
