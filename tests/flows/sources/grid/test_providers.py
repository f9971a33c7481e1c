"""Grid providers, against a real HTTP server that answers in their captured forms."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.accounting.compute import compute
from flows.errors import BadInput, SettingsError
from flows.ingest.fetch_grid import Span, ask_once, fetch_zone
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.orchestration.secrets import read_secret_block
from flows.settings import Settings
from flows.sources.grid import generation
from flows.warehouse.registry import Outcome
from tests.conftest import ask, make_project, runs_csv, segment, wattledger
from tests.grid_server import LOGIN, TOKEN, Server, grid_server

DAY = datetime(2024, 5, 1, tzinfo=UTC)
ONE_DAY = Span(DAY, DAY + timedelta(days=1))

PROVIDERS = {
    "electricity-maps": ("ELECTRICITY_MAPS_TOKEN", TOKEN),
    "watttime": ("WATTTIME_CREDENTIALS", LOGIN),
    "uk-carbon-intensity": ("", ""),
    "entsoe": ("ENTSOE_TOKEN", TOKEN),
    "eia": ("EIA_API_KEY", TOKEN),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, secret in PROVIDERS.values():
        if name:
            monkeypatch.setenv(name, secret)
    with grid_server() as running:
        running.state.xml = entsoe_xml(DAY, 24)
        yield running


def entsoe_xml(first: datetime, hours: int) -> bytes:
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


def api(provider: str, url: str, zone: str = "XX", **more: object) -> str:
    region = {"entsoe": "DE_LU", "eia": "TVA"}.get(provider, "")
    given: dict[str, object] = {
        "provider": provider,
        "zone": zone,
        "url": url + ("/api" if provider == "entsoe" else ""),
        "retries": 2,
        "requests_per_s": 1000,
        **({"region": region} if region else {}),
        **more,
    }
    return "[[input.grid_api]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in given.items())


def project_with(folder: Path, *apis: str, signal: str = "average_lifecycle") -> Settings:
    return make_project(folder, "\n".join([*apis, f'[zones.XX]\nsignal = "{signal}"\n']))


def fetched(project: Settings, span: Span | None = ONE_DAY, **given: Any) -> list[Outcome]:
    return fetch_zone(
        project,
        "XX",
        lambda source: lambda r: ask_once(source, r, read_secret_block),
        span,
        **given,
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_provider_gives_a_whole_day_once(
    provider: str, server: Server, tmp_path: Path
) -> None:
    direct = provider == "uk-carbon-intensity"
    project = project_with(
        tmp_path / "p",
        api(provider, server.url),
        signal="average_direct" if direct else "average_lifecycle",
    )
    [outcome] = fetched(project)
    assert (outcome.verdict, outcome.warnings) == ("loaded", [])
    table = "grid_mix" if provider in ("entsoe", "eia") else "grid_intensity"
    [span] = ask(project, f"SELECT min(valid_from) AS a, max(valid_to) AS b FROM {table}")
    assert (span["a"], span["b"]) == (ONE_DAY.first, ONE_DAY.last)
    [again] = fetched(project)
    assert again.verdict == "known"
    [attempt] = ask(project, "FROM grid_fetch")
    assert (attempt["outcome"], attempt["attempts"]) == ("fetched", 2)
    assert len(list((project.root / "fetched" / provider / "XX").iterdir())) == 1


def values_of(project: Settings) -> list[tuple[Any, ...]]:
    found = ask(
        project,
        "SELECT hour(valid_from) AS h, signal, intensity_g_per_kwh AS g, is_estimated AS e, "
        "epoch(valid_to - valid_from) / 60 AS minutes FROM grid_intensity "
        "WHERE hour(valid_from) IN (2, 3) AND minute(valid_from) = 0 ORDER BY 1",
    )
    return [tuple(row.values()) for row in found]


def test_electricity_maps_marks_its_estimates(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    fetched(project)
    assert values_of(project) == [
        (2, "average_lifecycle", 402.0, False, 60.0),
        (3, "average_lifecycle", 403.0, True, 60.0),
    ]


def test_watttime_is_marginal_and_in_grams(server: Server, tmp_path: Path) -> None:
    """1 lb/MWh = 0.45359237 g/kWh."""
    project = project_with(tmp_path / "p", api("watttime", server.url))
    fetched(project)
    assert values_of(project)[0] == (2, "marginal", pytest.approx(400 * 0.45359237), False, 5.0)


def test_uk_intensity_is_direct_and_an_unmeasured_half_hour_a_forecast(
    server: Server, tmp_path: Path
) -> None:
    project = project_with(
        tmp_path / "p", api("uk-carbon-intensity", server.url), signal="average_direct"
    )
    fetched(project)
    assert values_of(project) == [
        (2, "average_direct", 400.0, False, 30.0),
        (3, "average_direct", 266.0, True, 30.0),
    ]
    regional = project_with(
        tmp_path / "r",
        api("uk-carbon-intensity", server.url, region="13"),
        signal="average_direct",
    )
    fetched(regional)
    assert {row[3] for row in values_of(regional)} == {True}
    assert server.state.asked[-1][0].endswith("/regionid/13")


def test_uk_intensity_is_refused_where_life_cycle_is_wanted(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("uk-carbon-intensity", server.url))
    [outcome] = fetched(project)
    assert "gives average_direct, but zone 'XX' uses average_lifecycle" in outcome.reason
    assert server.state.asked == []


def test_a_mix_of_several_resolutions_takes_the_finest(server: Server, tmp_path: Path) -> None:
    """6 GW nuclear, 3 GW gas by the hour, 1 GW sun by the quarter: (6*12 + 3*490 + 48) / 10."""
    project = project_with(tmp_path / "p", api("entsoe", server.url))
    fetched(project)
    [found] = ask(
        project,
        "SELECT count(*) AS n, count(DISTINCT valid_from) AS starts, sum(generation_kw) AS kw FROM grid_mix",
    )
    assert found == {"n": 3 * 96, "starts": 96, "kw": 96 * 10_000_000}
    ingest_gpu(project, [segment(project.root)])
    compute(project)
    [signal] = ask(project, "SELECT DISTINCT intensity_g_per_kwh AS g FROM slot_signal")
    assert signal["g"] == pytest.approx((6 * 12 + 3 * 490 + 48) / 10)


def test_eia_pages_and_hours_are_named_by_their_end(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("eia", server.url))
    long = Span(DAY, DAY + timedelta(days=60))
    [outcome] = fetched(project, long)
    assert outcome.verdict == "loaded"
    assert [given["offset"] for _, given in server.state.asked] == ["0", "5000"]
    [found] = ask(project, "SELECT count(*) AS n, min(valid_from) AS a FROM grid_mix")
    assert found == {"n": 60 * 24 * 4, "a": DAY}


def test_long_spans_are_cut_as_the_provider_wants(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    fetched(project, Span(DAY, DAY + timedelta(days=25)))
    spans = [
        datetime.fromisoformat(g["end"]) - datetime.fromisoformat(g["start"])
        for _, g in server.state.asked
    ]
    assert [span.days for span in spans] == [10, 10, 5]


def test_a_token_that_ends_between_two_pages_is_renewed(server: Server, tmp_path: Path) -> None:
    server.state.expires_after = 2
    project = project_with(tmp_path / "p", api("watttime", server.url))
    [outcome] = fetched(project, Span(DAY, DAY + timedelta(days=90)))
    assert outcome.verdict == "loaded"
    assert server.state.logins >= 2


FAULTS = {
    "token wrong": (("status", 401), r"refused the token \(HTTP 401\): no, because.*plan covers"),
    "quota gone": (("status", (429, {"Retry-After": "9"})), r"limit is used up.*back in 9 s"),
    "zone unknown": (("status", 404), r"does not understand the request.*zone.*region"),
    "own problem": (("status", 503), r"a problem of its own \(HTTP 503\)"),
    "web page": (("html", None), r"a web page came instead of JSON: 'Please log in'"),
    "cut off": (("cut", None), r"the answer was cut off"),
    "half JSON": (("half", None), r"not whole JSON"),
    "too slow": (("slow", 1.5), r"no answer within 0.5 s"),
    "empty": (("body", b'{"zone": "XX", "data": []}'), r"no data for zone 'XX'.*region"),
    "nonsense": (("body", b"[1, 2]"), r"no data for zone 'XX'"),
    "elsewhere": (("redirect", "https://elsewhere.example/"), r"redirects.*not followed"),
    "value is text": (
        (
            "body",
            b'{"data": [{"datetime": "2024-05-01T00:00:00Z", "carbonIntensity": "n/a"}]}',
        ),
        r"row 1, column 'intensity', value 'n/a': not a usable intensity",
    ),
    "time is nonsense": (
        ("body", b'{"data": [{"datetime": "soon", "carbonIntensity": 4}]}'),
        r"column 'datetime', value 'soon': not a time",
    ),
    "other factors": (
        (
            "body",
            b'{"data": [{"datetime": "2024-05-01T00:00:00Z", "carbonIntensity": 4, '
            b'"emissionFactorType": "direct"}]}',
        ),
        r"'direct' factors came, 'lifecycle' was asked for",
    ),
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=list(FAULTS))
def test_each_fault_is_a_sentence_and_a_record(
    fault: tuple[str, Any], said: str, server: Server, tmp_path: Path
) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url, timeout_s=0.5))
    server.state.always = fault
    [outcome] = fetched(project)
    assert outcome.verdict == "unreachable"
    assert re.search(said, outcome.reason), outcome.reason
    [attempt] = ask(project, "FROM grid_fetch")
    assert (attempt["outcome"], attempt["reason"]) == ("failed", outcome.reason)
    assert ask(project, "FROM grid_intensity") == []
    fetched(project)
    assert ask(project, "SELECT attempts FROM grid_fetch") == [{"attempts": 2}]


def test_an_answer_about_another_time_is_refused(server: Server, tmp_path: Path) -> None:
    server.state.shift = timedelta(days=30)
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    [outcome] = fetched(project)
    assert "the answer is about 2024-05-31" in outcome.reason
    assert "Check the clock of this host" in outcome.reason


def test_a_clock_that_differs_is_worth_a_note(server: Server, tmp_path: Path) -> None:
    server.state.date = datetime.now(UTC) + timedelta(hours=2)
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    [outcome] = fetched(project)
    assert outcome.verdict == "loaded"
    assert "clock and this host's differ by 7" in outcome.warnings[0]


def test_partial_data_is_loaded_and_the_next_provider_fills_the_day(
    server: Server, tmp_path: Path
) -> None:
    """The first one lacks the last 14 hours; the second one is asked for that day alone."""
    project = project_with(
        tmp_path / "p",
        api("electricity-maps", server.url),
        api("eia", server.url),
    )
    ingest_gpu(project, [segment(project.root)])  # 12:00 to 12:30
    server.state.missing_hours = 14
    outcomes = fetched(project, None)
    first = outcomes[0]
    assert first.warnings == ["electricity-maps gave 58 of 72 hours"]
    server.state.missing_hours = 0
    fetched(project, None)
    compute(project)
    found = ask(
        project,
        "SELECT DISTINCT rung, feed FROM slot_source WHERE quantity = 'intensity' ORDER BY 2",
    )
    assert found == [{"rung": "live", "feed": "electricity-maps"}]


def test_the_next_provider_steps_in_and_what_is_stored_counts_as_cached(
    server: Server, tmp_path: Path
) -> None:
    project = project_with(
        tmp_path / "p",
        api("electricity-maps", server.url),
        api("eia", server.url),
    )
    ingest_gpu(project, [segment(project.root)])
    server.state.faults = [("status", 401)]
    failed, instead = fetched(project, None)
    assert (failed.verdict, instead.verdict) == ("unreachable", "loaded")
    compute(project)
    rung = "SELECT DISTINCT rung, feed, quantity FROM slot_source WHERE quantity = 'intensity'"
    assert ask(project, rung) == [{"rung": "live", "feed": "eia", "quantity": "intensity"}]
    # Asked for again, and gone: what it said before still counts, and says that it is old.
    server.state.always = ("status", 503)
    assert {one.verdict for one in fetched(project)} == {"unreachable"}
    compute(project)
    assert ask(project, rung) == [{"rung": "cached", "feed": "eia", "quantity": "intensity"}]


def test_days_that_are_final_are_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    ingest_gpu(project, [segment(project.root)])
    fetched(project, None)
    asked = len(server.state.asked)
    assert fetched(project, None) == []
    assert len(server.state.asked) == asked
    starts = [given["start"] for _, given in server.state.asked]
    assert starts == ["2024-04-30T00:00Z"]  # with a day around the readings


def test_a_revision_supersedes_and_nothing_is_lost(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    fetched(project)
    server.state.value = 500
    [outcome] = fetched(project)
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 24)
    counts = ask(
        project,
        "SELECT count(*) AS n, count(superseded_at) AS old, count(*) FILTER (intensity_g_per_kwh < 450) AS low "
        "FROM grid_intensity",
    )
    assert counts == [{"n": 48, "old": 24, "low": 24}]
    assert len(list((project.root / "fetched").rglob("*.json"))) == 2


def test_the_kept_answers_alone_give_the_same_series(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("electricity-maps", server.url))
    fetched(project)
    other = project_with(tmp_path / "other")
    [outcome] = ingest_grid(other, sorted((project.root / "fetched").rglob("*.json")))
    assert outcome.verdict == "loaded"
    columns = "SELECT * EXCLUDE (fetched_at) FROM grid_intensity ORDER BY valid_from"
    assert ask(other, columns) == ask(project, columns)


def test_a_missing_token_says_which(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next provider is asked."""
    monkeypatch.delenv("EIA_API_KEY")
    project = project_with(
        tmp_path / "p", api("eia", server.url), api("electricity-maps", server.url)
    )
    missing, instead = fetched(project)
    assert (missing.verdict, instead.verdict) == ("unreachable", "loaded")
    assert "EIA_API_KEY is not set" in missing.reason
    [attempt] = ask(project, "SELECT reason FROM grid_fetch WHERE outcome = 'failed'")
    assert attempt["reason"] == missing.reason


def test_an_area_that_entsoe_does_not_have_is_named(server: Server, tmp_path: Path) -> None:
    project = project_with(tmp_path / "p", api("entsoe", server.url, region="ATLANTIS"))
    [outcome] = fetched(project)
    assert "ENTSO-E knows no area 'ATLANTIS'" in outcome.reason


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    one = api("eia", "http://127.0.0.1:1")
    with pytest.raises(SettingsError, match="share a name"):
        project_with(tmp_path / "a", one, one)
    with pytest.raises(SettingsError, match="not to be 'file'"):
        project_with(tmp_path / "b", api("eia", "http://127.0.0.1:1", name="file"))


def test_eia_hours_end_where_their_name_says(tmp_path: Path) -> None:
    item = {"period": "2024-05-01T01", "fueltype": "NG", "value": 5, "respondent": "TVA"}
    answer = {"response": {"data": [{**item, "value-units": "megawatthours"}]}}
    frame = generation.read_eia_answer(answer, tmp_path / "x.json", "", "")
    assert frame["valid_from"].to_list() == [DAY]
    answer["response"]["data"][0]["fueltype"] = "XYZ"
    with pytest.raises(BadInput, match="unknown energy source 'XYZ'"):
        generation.read_eia_answer(answer, tmp_path / "x.json", "", "")


def planted(folder: Path) -> list[str]:
    """Files below `folder` that hold the token, plain or as it looks in an address."""
    written = [TOKEN.encode(), TOKEN.replace("/", "%2F").encode(), LOGIN.encode()]
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in written)
    ]


@pytest.mark.service
@pytest.mark.long
def test_the_pipeline_retries_goes_on_caches_and_tells_nobody_the_token(
    server: Server, tmp_path: Path, on_server: dict[str, str]
) -> None:
    """Through Prefect: 503, 429 with Retry-After and a cut answer are waited out; WattTime's
    password is wrong; everything that was written or said is searched for the tokens."""
    apis = (
        api("electricity-maps", server.url, retries=3),
        api("eia", server.url),
        api("watttime", server.url, token_env="WRONG_LOGIN"),
    )
    project = project_with(tmp_path / "p", *apis)
    ingest_gpu(project, [segment(project.root)])
    row = "r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"
    ingest_runs(project, [runs_csv(project.root, [row])])
    server.state.faults = [("status", 503), ("status", (429, {"Retry-After": "1"})), ("cut", None)]
    env = {
        **on_server,
        **{name: secret for name, secret in PROVIDERS.values() if name},
        "WRONG_LOGIN": f"somebody:{TOKEN}x",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    }
    done = wattledger("pipeline", "--project", project.root, env=env)
    said = done.stdout + done.stderr
    # Published, and 2 as one provider could not be asked.
    assert done.returncode == 2, said
    assert (project.root / "published" / "report.html").exists()
    assert "refused the token" in said
    attempts = ask(project, "SELECT feed, outcome FROM grid_fetch ORDER BY feed")
    assert [tuple(a.values()) for a in attempts] == [
        ("electricity-maps", "fetched"),
        ("watttime", "failed"),
    ]
    assert len(server.state.asked) == 4
    # The same questions from another project: answered from the cache.
    other = project_with(tmp_path / "other", apis[0])
    ingest_gpu(other, [segment(other.root)])
    again = wattledger("fetch", "--project", other.root, "--json", env=env)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[0]["rows_loaded"] == 72
    assert len(server.state.asked) == 4
    # Named days are asked for again; the token comes from a Prefect Secret block this time.
    save = (
        "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[1]).save('em')"
    )
    subprocess.run([sys.executable, "-c", save, TOKEN], env=env, check=True, capture_output=True)
    block = api("electricity-maps", server.url, token_block="em")
    project_with(tmp_path / "other", block)
    del env["ELECTRICITY_MAPS_TOKEN"]
    days = ("--from", "2024-05-01", "--to", "2024-05-01")
    fresh = wattledger("fetch", "XX", *days, "--project", other.root, env=env)
    assert fresh.returncode == 0, fresh.stderr
    assert len(server.state.asked) == 5
    for text in (said, again.stdout + again.stderr, fresh.stdout + fresh.stderr):
        assert TOKEN not in text
    assert planted(tmp_path) == []


def test_debug_logs_hold_no_token(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for provider in ("eia", "entsoe"):
        project = project_with(tmp_path / provider, api(provider, server.url))
        assert fetched(project)[0].verdict == "loaded"
        assert planted(project.root) == []
    assert "HTTP Request" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN.replace("/", "%2F") not in caplog.text
