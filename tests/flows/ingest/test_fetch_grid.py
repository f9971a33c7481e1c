"""Fetching from providers: which days, from whom next, and what is recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.accounting.compute import compute
from flows.errors import SettingsError
from flows.ingest.gpu import ingest_gpu
from tests.conftest import ask, segment
from tests.grid_server import Server
from tests.provider_projects import (
    ONE_DAY,
    PROVIDERS,
    describe_provider,
    fetch,
    make_provider_project,
)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_provider_gives_a_whole_day_once(
    provider: str, provider_server: Server, tmp_path: Path
) -> None:
    direct = provider == "uk-carbon-intensity"
    project = make_provider_project(
        tmp_path / "p",
        describe_provider(provider, provider_server.url),
        signal="average_direct" if direct else "average_lifecycle",
    )
    [outcome] = fetch(project)
    assert (outcome.verdict, outcome.warnings) == ("loaded", [])
    table = "grid_mix" if provider in ("entsoe", "eia") else "grid_intensity"
    [span] = ask(project, f"SELECT min(valid_from) AS a, max(valid_to) AS b FROM {table}")
    assert (span["a"], span["b"]) == (ONE_DAY.first, ONE_DAY.last)
    [again] = fetch(project)
    assert again.verdict == "known"
    [attempt] = ask(project, "FROM grid_fetch")
    assert (attempt["outcome"], attempt["attempts"]) == ("fetched", 2)
    assert len(list((project.root / "fetched" / provider / "XX").iterdir())) == 1


def test_a_clock_that_differs_is_worth_a_note(provider_server: Server, tmp_path: Path) -> None:
    provider_server.state.date = datetime.now(UTC) + timedelta(hours=2)
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    [outcome] = fetch(project)
    assert outcome.verdict == "loaded"
    assert "clock and this host's differ by 7" in outcome.warnings[0]


def test_partial_data_is_loaded_and_the_next_provider_fills_the_day(
    provider_server: Server, tmp_path: Path
) -> None:
    """The first one lacks the last 14 hours; the second one is asked for that day alone."""
    project = make_provider_project(
        tmp_path / "p",
        describe_provider("electricity-maps", provider_server.url),
        describe_provider("eia", provider_server.url),
    )
    ingest_gpu(project, [segment(project.root)])  # 12:00 to 12:30
    provider_server.state.missing_hours = 14
    outcomes = fetch(project, None)
    first = outcomes[0]
    assert first.warnings == ["electricity-maps gave 58 of 72 hours"]
    provider_server.state.missing_hours = 0
    fetch(project, None)
    compute(project)
    sources = ask(
        project,
        "SELECT DISTINCT rung, feed FROM slot_source WHERE quantity = 'intensity' ORDER BY 2",
    )
    assert sources == [{"rung": "live", "feed": "electricity-maps"}]


def test_the_next_provider_steps_in_and_what_is_stored_counts_as_cached(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p",
        describe_provider("electricity-maps", provider_server.url),
        describe_provider("eia", provider_server.url),
    )
    ingest_gpu(project, [segment(project.root)])
    provider_server.state.faults = [("status", 401)]
    failed, instead = fetch(project, None)
    assert (failed.verdict, instead.verdict) == ("unreachable", "loaded")
    compute(project)
    rung = "SELECT DISTINCT rung, feed, quantity FROM slot_source WHERE quantity = 'intensity'"
    assert ask(project, rung) == [{"rung": "live", "feed": "eia", "quantity": "intensity"}]
    # Asked for again, and gone: what it said before still counts, and says that it is old.
    provider_server.state.always = ("status", 503)
    assert {outcome.verdict for outcome in fetch(project)} == {"unreachable"}
    compute(project)
    assert ask(project, rung) == [{"rung": "cached", "feed": "eia", "quantity": "intensity"}]


def test_days_that_are_final_are_not_asked_for_again(
    provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    ingest_gpu(project, [segment(project.root)])
    fetch(project, None)
    requests = len(provider_server.state.asked)
    assert fetch(project, None) == []
    assert len(provider_server.state.asked) == requests
    starts = [params["start"] for _, params in provider_server.state.asked]
    assert starts == ["2024-04-30T00:00Z"]  # with a day around the readings


def test_a_revision_supersedes_and_nothing_is_lost(provider_server: Server, tmp_path: Path) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url)
    )
    fetch(project)
    provider_server.state.value = 500
    [outcome] = fetch(project)
    assert (outcome.verdict, outcome.rows_loaded) == ("loaded", 24)
    counts = ask(
        project,
        "SELECT count(*) AS n, count(superseded_at) AS old, count(*) FILTER (intensity_g_per_kwh < 450) AS low "
        "FROM grid_intensity",
    )
    assert counts == [{"n": 48, "old": 24, "low": 24}]
    assert len(list((project.root / "fetched").rglob("*.json"))) == 2


def test_a_missing_token_says_which(
    provider_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next provider is asked."""
    monkeypatch.delenv("EIA_API_KEY")
    project = make_provider_project(
        tmp_path / "p",
        describe_provider("eia", provider_server.url),
        describe_provider("electricity-maps", provider_server.url),
    )
    missing, instead = fetch(project)
    assert (missing.verdict, instead.verdict) == ("unreachable", "loaded")
    assert "EIA_API_KEY is not set" in missing.reason
    [attempt] = ask(project, "SELECT reason FROM grid_fetch WHERE outcome = 'failed'")
    assert attempt["reason"] == missing.reason


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    entry = describe_provider("eia", "http://127.0.0.1:1")
    with pytest.raises(SettingsError, match="share a name"):
        make_provider_project(tmp_path / "a", entry, entry)
    with pytest.raises(SettingsError, match="not to be 'file'"):
        make_provider_project(
            tmp_path / "b", describe_provider("eia", "http://127.0.0.1:1", name="file")
        )
