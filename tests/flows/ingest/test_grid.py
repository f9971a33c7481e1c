"""Grid data into the warehouse: every row is accounted for, and what was understood is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.ingest.grid import ingest_grid
from flows.settings import Settings
from flows.sources.grid.layouts import Options
from flows.warehouse.registry import Outcome
from tests.conftest import ask, make_project
from tests.flows.sources.grid.samples import TABLES, at

T0 = datetime(2026, 2, 3, 8, tzinfo=UTC)


def load(project: Settings, content: str, name: str = "s.csv", **options: str) -> Outcome:
    path = project.root / name
    path.write_text(content)
    [outcome] = ingest_grid(project, [path], Options(**options))
    assert outcome.rows_read == (
        outcome.rows_loaded
        + outcome.rows_duplicate
        + outcome.rows_skipped
        + outcome.rows_quarantined
    )
    assert outcome.rows_skipped == sum(outcome.skipped.values())
    return outcome


def intervals(project: Settings) -> list[tuple[Any, ...]]:
    rows = ask(
        project,
        "SELECT valid_from, valid_to, intensity_g_per_kwh AS g FROM grid_intensity "
        "WHERE superseded_at IS NULL ORDER BY valid_from",
    )
    return [(r["valid_from"].hour, r["valid_to"].hour, r["g"]) for r in rows]


def test_an_hour_without_a_value_is_a_gap(project: Settings) -> None:
    hours = [
        {"zone": "JP-KN", "carbonIntensity": g, "datetime": f"2026-02-03T{h:02}:00:00.000Z"}
        for h, g in ((8, 355), (9, 384), (10, None), (11, 396))
    ]
    outcome = load(project, json.dumps({"zone": "JP-KN", "history": hours}), "history.json")
    assert (outcome.rows_loaded, outcome.skipped) == (3, {"without a value": 1})
    assert intervals(project) == [(8, 9, 355), (9, 10, 384), (11, 12, 396)]
    assert outcome.understood == [
        "zone JP-KN, average_lifecycle, read in g/kWh: 2026-02-03 08:00:00 to 12:00:00 UTC, "
        "3 intervals of 60 minutes; mean 378.3 g/kWh, from 355 to 396"
    ]


def eia(rows: list[tuple[int, str, Any]], **more: Any) -> str:
    data = [
        {
            "period": f"2026-02-03T{hour:02}",
            "respondent": "WACM",
            "fueltype": kind,
            "value": value,
            "value-units": "megawatthours",
        }
        for hour, kind, value in rows
    ]
    return json.dumps({"response": {"data": data, **more}})


WHOLE = [("COL", "2515"), ("NG", "-316"), ("SUN", "0"), ("WAT", "717"), ("WND", "142")]


def test_an_answer_cut_within_an_hour(project: Settings) -> None:
    rows = [(9, *fuel) for fuel in WHOLE] + [(10, *fuel) for fuel in WHOLE[:2]]
    outcome = load(
        project, eia(rows, total="10", warnings=[{"description": "only 5000"}]), "a.json"
    )
    assert outcome.rows_loaded == 5
    assert outcome.skipped == {"of a period at which the answer is cut": 2}
    assert any("holds 7 of 10 rows" in said for said in outcome.warnings)
    assert "the answer warns: only 5000" in outcome.warnings
    # Nobody says that it is cut: then the hour is incomplete.
    again = load(project, eia(rows), "b.json")
    assert (again.rows_loaded, again.rows_duplicate) == (2, 5)
    assert any("1 of 2 intervals" in said and "hydro_reservoir" in said for said in again.warnings)


def test_values_that_are_missing_in_every_way(project: Settings) -> None:
    rows = [(9, *fuel) for fuel in WHOLE]
    rows[3] = (9, "WAT", None)
    assert load(project, eia(rows), "a.json").rows_loaded == 4  # no hydropower in this zone, then
    both = rows + [(10, kind, value) for kind, value in WHOLE]
    outcome = load(project, eia(both), "b.json")
    assert outcome.skipped == {"without a value": 1}
    assert any("hydro_reservoir" in said for said in outcome.warnings)
    sentinels = [(h, "COL", "100") for h in range(1, 24)] + [(0, "COL", "99999")]
    outcome = load(project, eia(sentinels), "c.json")
    assert outcome.rows_quarantined == 1
    assert any("stands for a missing value" in said for said in outcome.warnings)


SERIES = "time,zone,intensity\n" + "".join(f"{at(h)},XX,{300 + h}\n" for h in range(200))


def test_bad_rows_are_set_aside_by_number(project: Settings) -> None:
    lines = SERIES.splitlines()
    lines[20] = f"{at(19)},XX,-5"
    lines[40] = lines[40].replace("XX", "XX,extra")
    outcome = load(project, "\n".join(lines))
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_quarantined) == (200, 198, 2)
    rows = ask(project, "SELECT row_no, reason, raw_value FROM quarantined_row ORDER BY row_no")
    assert [(r["row_no"], r["reason"]) for r in rows] == [
        (21, "the intensity does not lie between 0 and 3,000 g/kWh"),
        (41, "4 fields where the header has 3"),
    ]
    assert load(project, "\n".join([*lines, f"{at(200)},XX,500"]), "t.csv").rows_duplicate == 198


def test_both_rows_of_a_contradiction_are_set_aside(project: Settings) -> None:
    outcome = load(project, f"{SERIES}{at(7)},XX,999\n{at(9)},XX,309\n")
    assert (outcome.rows_loaded, outcome.rows_quarantined, outcome.rows_duplicate) == (199, 2, 1)
    rows = ask(project, "SELECT row_no, reason FROM quarantined_row ORDER BY 1")
    assert [row["row_no"] for row in rows] == [9, 202]
    assert "given twice, with two values" in rows[0]["reason"]
    assert any("no gap" in said for said in outcome.warnings)


def test_a_short_answer_with_a_contradiction(project: Settings) -> None:
    hours = [{"zone": "DE", "carbonIntensity": 300 + h, "datetime": at(h)} for h in (*range(24), 5)]
    hours[-1]["carbonIntensity"] = 800
    outcome = load(project, json.dumps({"history": hours}), "a.json")
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (23, 2)


def test_a_file_of_contradictions_is_refused(project: Settings) -> None:
    other = "".join(f"{at(h)},XX,{800 + h}\n" for h in range(200))
    outcome = load(project, SERIES + other)
    assert outcome.verdict == "quarantined"
    assert "given twice" in outcome.reason


def test_the_far_future_is_refused_by_row(project: Settings) -> None:
    outcome = load(project, f"{SERIES}2095-01-01T00:00:00Z,XX,300\n1995-01-01T00:00:00Z,XX,300\n")
    assert (outcome.rows_loaded, outcome.rows_quarantined) == (200, 2)


def test_a_zone_without_series_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    toml = project.root / "wattledger.toml"
    zone = project.site[0].zone
    outcome = load(project, SERIES.replace("XX", "XX-LU"))
    assert any(
        f"zone {zone!r} of site" in said and "zones that have one: XX-LU" in said
        for said in outcome.warnings
    ), toml.read_text()
    assert not any("has no series" in said for said in load(project, SERIES, "t.csv").warnings)


FORMS = {
    "generic": ("XX", [("average_lifecycle", 300.0)]),
    "generic quoted": ("XX", [("average_lifecycle", 300.0)]),
    "electricity maps": ("DE", [("average_direct", 300.0), ("average_lifecycle", 200.5)]),
    "sgip": ("XX", [("marginal", 300.0)]),
    "location": ("XX", [("average_lifecycle", 300.0)]),
    "lets wait awhile": ("XX", [("average_lifecycle", 300.0)]),
    "entsoe wide": ("XX", [("gas", 4e6), ("nuclear", 2e6), ("wind_onshore", 300e3)]),
    "entsoe old export": ("XX", [("gas", 4e6), ("nuclear", 2e6)]),
    "entsoe export": ("DE-LU", [("gas", 4e6), ("nuclear", 2e6)]),
    "smard": ("XX", [("lignite", 4000250.0), ("nuclear", 2000500.0)]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["as it is", "tabs", "reversed columns", "parquet"])
def test_columns_in_any_order_type_and_dress(form: str, how: str, tmp_path: Path) -> None:
    from flows.sources.grid import reader

    zone, expected = FORMS[form]
    lines = TABLES[form][0]
    options = Options(tz="UTC", zone="" if form in ("electricity maps", "entsoe export") else "XX")
    separator = ";" if ";" in lines[0] else ","
    path = tmp_path / "s.csv"
    path.write_text("\n".join(lines))
    frame = pl.read_csv(path, separator=separator, infer_schema=False)
    if form == "entsoe wide" and how == "reversed columns":
        frame = frame.rename({"": "time"})
    if how == "tabs":
        frame.write_csv(path, separator="\t", line_terminator="\r\n")
    elif how == "reversed columns":
        frame.select(reversed(frame.columns)).write_csv(path, separator=separator)
    elif how == "parquet":
        if separator == ";" and form == "smard":
            pytest.skip("numbers are numbers there")
        path = tmp_path / "s.parquet"
        typed = [
            pl.coalesce(pl.col(c).cast(pl.Float64, strict=False)).alias(c)
            if frame[c].cast(pl.Float64, strict=False).null_count() == 0
            else pl.col(c)
            for c in frame.columns
        ]
        frame.select(typed).write_parquet(path)
    data = reader.read(path, options, "auto", tmp_path)
    first = data.rows.filter(pl.col("valid_from") == pl.col("valid_from").min())
    assert first["zone"].unique().to_list() == [zone]
    name, value = (
        ("fuel", "generation_kw") if data.mix is not None else ("signal", "intensity_g_per_kwh")
    )
    assert sorted(first.select(name, value).rows()) == [(k, pytest.approx(v)) for k, v in expected]
    assert data.faults.count == 0
    assert ((data.rows["valid_to"] - data.rows["valid_from"]) == timedelta(hours=1)).all()
    began = data.rows["valid_from"].min()
    central = form in ("smard", "entsoe export", "entsoe old export")
    # SMARD's clock is its own; `--tz` says otherwise only where the file is silent.
    assert began == datetime(2025, 6, 2, tzinfo=UTC) - timedelta(
        hours=2 if central and form != "smard" else 0
    )


def test_the_repeated_hour_of_an_export_is_told_by_mark_or_by_order(tmp_path: Path) -> None:
    from flows.sources.grid import reader

    head = '"MTU (CET/CEST)","Area","Production Type","Generation (MW)"\n'
    for marks in (("", "", "", ""), (" (CEST)", " (CEST)", " (CET)", " (CET)")):
        hours = ["01:00:00", "02:00:00", "02:00:00", "03:00:00"]
        rows = [
            f'"26/10/2025 {h}{m} - 26/10/2025 {h[:3]}59:59{m}","BZN|DE-LU","{kind}","{100 + i}"'
            for kind in ("Fossil Gas", "Solar")
            for i, (h, m) in enumerate(zip(hours, marks, strict=True))
        ]
        path = tmp_path / "s.csv"
        path.write_text(head + "\n".join(rows))
        data = reader.read(path, Options(), "auto", tmp_path)
        gas = data.rows.filter(fuel="gas").sort("valid_from")
        assert [t.hour for t in gas["valid_from"]] == [23, 0, 1, 2]
        assert gas["generation_kw"].to_list() == [100_000, 101_000, 102_000, 103_000]
        assert data.faults.count == 0


def test_a_power_breakdown_is_a_mix(project: Settings) -> None:
    hours = [
        {
            "datetime": f"2026-02-03T{h:02}:00:00.000Z",
            "isEstimated": h == 9,
            "powerProductionBreakdown": {"nuclear": 5000, "gas": None if h == 10 else 4000, "wind": 1000, "battery discharge": 5},
        }
        for h in (8, 9, 10)
    ]  # fmt: skip
    outcome = load(project, json.dumps({"zone": "FR", "history": hours}), "a.json")
    assert outcome.rows_loaded == 11
    assert any("1 of 3 intervals" in said and "gas" in said for said in outcome.warnings)
    [gas] = ask(
        project, "SELECT sum(generation_kw) AS kw, count(*) AS n FROM grid_mix WHERE fuel = 'gas'"
    )
    assert gas == {"kw": 8_000_000, "n": 2}


def test_other_answers_that_people_save(project: Settings) -> None:
    uk = {
        "data": [
            {"from": "2026-02-03T08:00Z", "to": "2026-02-03T08:30Z", "intensity": {"forecast": 200, "actual": 210}},
            {"from": "2026-02-03T08:30Z", "to": "2026-02-03T09:00Z", "intensity": {"forecast": 205, "actual": None}},
        ]
    }  # fmt: skip
    outcome = load(project, json.dumps(uk), "uk.json")
    assert "zone GB, average_direct" in outcome.understood[0]
    assert "2 intervals of 30 minutes, 1 of them estimated" in outcome.understood[0]
    watttime = {
        "data": [{"point_time": "2026-02-03T08:00:00+00:00", "value": 1000.0}],
        "meta": {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 300},
    }  # fmt: skip
    outcome = load(project, json.dumps(watttime), "wt.json")
    assert "read in lb/MWh" in outcome.understood[0]
    assert "mean 453.6 g/kWh" in outcome.understood[0]
