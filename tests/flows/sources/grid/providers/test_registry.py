"""Providers by name: the settings and the registry know the same ones, and each is loaded alone."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from flows.errors import UsageError
from flows.settings import GridApiInput
from flows.sources.grid.providers.registry import PROVIDERS, load_provider
from transforms.constants import SIGNALS


def test_the_settings_allow_the_providers_that_there_are() -> None:
    assert set(get_args(GridApiInput.model_fields["provider"].annotation)) == set(PROVIDERS)


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_provider_is_loaded_by_its_name(name: str) -> None:
    provider = load_provider(name)
    assert provider.url.startswith("https://")
    assert set(provider.signals) <= {*SIGNALS, "mix"}


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown provider of grid data 'eai'\. One of .*eia"):
        load_provider("eai")


def test_only_the_named_module_is_loaded() -> None:
    code = (
        "import sys; from flows.sources.grid.providers.registry import load_provider; "
        "load_provider('eia'); print('pandas' in sys.modules, 'entsoe' in sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == ["False", "False"]
