"""What can go wrong with a request, and that no log tells the secret."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ask
from tests.grid_server import TOKEN, Server
from tests.provider_projects import (
    describe_provider,
    fetch,
    find_token_files,
    make_provider_project,
)

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
    "nested": (("body", b"[" * 100_000), r"not whole JSON"),
    "endless": (("bomb", 100), r"longer than 67,108,864 bytes"),
    "elsewhere": (("redirect", "https://elsewhere.example/"), r"redirects.*not followed"),
    "value is text": (
        (
            "body",
            b'{"data": [{"datetime": "2024-05-01T00:00:00Z", "carbonIntensity": "four"}]}',
        ),
        r"row 1, column 'intensity', value 'four': not a usable value",
    ),
    "no value": (
        (
            "body",
            b'{"data": [{"datetime": "2024-05-01T00:00:00Z", "carbonIntensity": "n/a"}]}',
        ),
        r"none of 1 rows has a value",
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


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.values(), ids=list(FAULTS))
def test_each_fault_is_a_sentence_and_a_record(
    fault: tuple[str, Any], sentence: str, provider_server: Server, tmp_path: Path
) -> None:
    project = make_provider_project(
        tmp_path / "p", describe_provider("electricity-maps", provider_server.url, timeout_s=0.5)
    )
    provider_server.state.always = fault
    [outcome] = fetch(project)
    assert outcome.verdict == "unreachable"
    assert re.search(sentence, outcome.reason), outcome.reason
    [attempt] = ask(project, "FROM grid_fetch")
    assert (attempt["outcome"], attempt["reason"]) == ("failed", outcome.reason)
    assert ask(project, "FROM grid_intensity") == []
    fetch(project)
    assert ask(project, "SELECT attempts FROM grid_fetch") == [{"attempts": 2}]


def test_debug_logs_hold_no_token(
    provider_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for provider in ("eia", "entsoe"):
        project = make_provider_project(
            tmp_path / provider, describe_provider(provider, provider_server.url)
        )
        assert fetch(project)[0].verdict == "loaded"
        assert find_token_files(project.root) == []
    assert "HTTP Request" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN.replace("/", "%2F") not in caplog.text
