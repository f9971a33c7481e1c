"""Where the secret of a provider comes from."""

from __future__ import annotations

import pytest

from flows.errors import UsageError
from flows.settings import GridApiInput
from flows.sources.grid.providers.base import read_secret
from flows.sources.grid.providers.registry import load_provider


def read_block(name: str) -> str:
    return {"em": "from-the-block"}[name]


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"token_block": "em"}, "from-the-block"),
        ({"token_env": "OTHER"}, "from-another-variable"),
        ({}, "from-the-usual-variable"),
    ],
)
def test_a_block_comes_before_the_environment(
    settings: dict[str, str], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIA_API_KEY", "from-the-usual-variable")
    monkeypatch.setenv("OTHER", "from-another-variable")
    source = GridApiInput(provider="eia", zone="XX", **settings)  # type: ignore[arg-type]
    assert read_secret(source, load_provider("eia"), read_block) == secret


def test_a_block_that_is_missing_is_named() -> None:
    source = GridApiInput(provider="eia", zone="XX", token_block="none")
    with pytest.raises(UsageError, match=r"there is no Prefect Secret block 'none'.*token_env"):
        read_secret(source, load_provider("eia"), read_block)
