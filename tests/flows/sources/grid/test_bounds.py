"""What would take forever, or all memory, is refused at once; and what is known for something else is named."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from flows.errors import BadInput
from flows.sources.grid import reader
from flows.sources.grid.series import GridData
from flows.sources.grid.tables import Options
from flows.sources.verdict import judge_file
from tests.flows.sources.grid.samples import entsoe_document

NS = 'xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"'


def read(folder: Path, name: str, content: bytes, options: Options | None = None) -> GridData:
    path = folder / name
    path.write_bytes(content)
    with judge_file(path):
        return reader.read(path, options or Options(zone="XX", tz="UTC"), "auto", folder)


def document(
    end: str, resolution: str, curve: str = "A03", start: str = "2025-01-01T00:00Z"
) -> bytes:
    return (
        f"<GL_MarketDocument {NS}><type>A75</type><TimeSeries><inBiddingZone_Domain.mRID>X"
        "</inBiddingZone_Domain.mRID><quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name>"
        f"<curveType>{curve}</curveType><MktPSRType><psrType>B04</psrType></MktPSRType><Period>"
        f"<timeInterval><start>{start}</start><end>{end}</end></timeInterval>"
        f"<resolution>{resolution}</resolution><Point><position>1</position><quantity>1</quantity>"
        "</Point></Period></TimeSeries></GL_MarketDocument>"
    ).encode()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMBS = {
    "500 years by the minute": ("a.xml", document("2525-01-01T00:00Z", "PT1M"), "a period of 182,"),
    "a year by nothing": ("a.xml", document("2026-01-01T00:00Z", "PT0M"), "unknown resolution"),
    "a resolution of years": ("a.xml", document("2026-01-01T00:00Z", "P1Y"), "unknown resolution"),
    "the year 9999": ("a.xml", document("9999-12-31T23:59Z", "PT60M", start="9999-12-31T00:00Z"), "future"),
    "brackets": ("a.json", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "objects": ("a.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "a number of many digits": ("a.json", b'{"history": [{"carbonIntensity": 1' + b"0" * 6000 + b"}]}", "not JSON"),
    "entities": ("a.xml", f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "x">{LAUGHS}]><a>&l9;</a>'.encode(), "declares entities"),
    "a long duration": ("a.csv", b"location,timestamp,duration,value\nXX,2025-01-01T00:00:00Z,99999999999999,5\n", "a duration"),
    "an interval of years": ("a.csv", b"valid_from,valid_to,intensity\n2020-01-01T00:00:00Z,2025-01-01T00:00:00Z,5\n", "longer than 31 days"),
    "a bomb": ("a.csv.gz", gzip.compress(b"time,intensity\n" + b"2025-01-01T00:00:00Z,5\n" * 9_000_000, 9), "unpacks to more than"),
    "many columns": ("a.csv", b"a," * 100_000 + b"\n1\n", "100,001 columns"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_each_is_refused_at_once(bomb: str, tmp_path: Path) -> None:
    name, content, sentence = BOMBS[bomb]
    path = tmp_path / name
    path.write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(BadInput, match=sentence):
        read(tmp_path, name, content)
    assert time.perf_counter() - began < 5, "a second where nothing else runs"


def test_deep_xml_is_a_document_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a a, not generation"):
        read(tmp_path, "a.xml", b"<a>" * 100_000 + b"</a>" * 100_000)


OTHERS = {
    "load": (f"<GL_MarketDocument {NS}><type>A65</type></GL_MarketDocument>", r"a load \(A65\)"),
    "capacity": (f"<GL_MarketDocument {NS}><type>A68</type></GL_MarketDocument>", "installed capacities"),
    "forecast": (f"<GL_MarketDocument {NS}><type>A71</type></GL_MarketDocument>", "a forecast of generation"),
    "day ahead": (
        f"<GL_MarketDocument {NS}><type>A75</type><process.processType>A01</process.processType></GL_MarketDocument>",
        "a day-ahead forecast",
    ),
    "prices": (
        '<Publication_MarketDocument xmlns="urn:x"><type>A44</type></Publication_MarketDocument>',
        r"a Publication_MarketDocument \(day-ahead prices\)",
    ),
    "nothing": (
        '<Acknowledgement_MarketDocument xmlns="urn:x"><Reason><code>999</code><text>No matching data found'
        "</text></Reason></Acknowledgement_MarketDocument>",
        "a Acknowledgement_MarketDocument, not generation: No matching data found",
    ),
    "demand": ('{"response": {"data": [{"period": "2025-01-01T00", "type": "D", "value": "1"}]}}', "a demand"),
    "interchange": ('{"response": {"data": [{"period": "2025-01-01T00", "fromba": "A", "value": "1"}]}}', "interchange"),
    "em forecast": ('{"zone": "DE", "forecast": [{"carbonIntensity": 5}]}', "a forecast"),
    "em renewables": ('{"zone": "DE", "data": [{"renewablePercentage": 5}]}', "a share of renewable"),
    "watttime index": (
        '{"data": [{"point_time": "2025-01-01T00:00:00Z", "value": 5}], "meta": {"units": "percentile", "signal_type": "co2_moer"}}',
        "not co2_moer in lbs_co2_per_mwh",
    ),
    "watttime forecast": (
        '{"data": [{"point_time": "2025-01-01T00:00:00Z", "value": 5}], "meta": {"generated_at": "x", "units": "lbs_co2_per_mwh"}}',
        "a forecast",
    ),
    "uk mix": ('{"data": [{"from": "2025-01-01T00:00Z", "generationmix": [{"fuel": "gas", "perc": 5}]}]}', "a generation mix in percent"),
    "load table": ('"MTU (CET/CEST)","Area","Actual Total Load (MW)"\n"01/01/2025 00:00","DE","5"\n', "a load"),
    "price table": ('"MTU (CET/CEST)","Area","Day-ahead Price (EUR/MWh)"\n"01/01/2025 00:00","DE","5"\n', "prices"),
    "gpu log": ("timestamp, power.draw [W]\n2025-01-01 00:00:00, 5 W\n", "a log of GPUs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_each_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    content, sentence = OTHERS[kind]
    ending = {"<": "xml", "{": "json"}.get(content[0], "csv")
    for name in (f"a.{ending}", "download"):
        with pytest.raises(BadInput, match=sentence):
            read(tmp_path, name, content.encode())


def test_a_document_without_faults_has_none(tmp_path: Path) -> None:
    data = read(tmp_path, "answer.xml", entsoe_document().encode())
    assert (data.rows_read, data.faults.count, data.duplicates) == (144, 0, 0)
