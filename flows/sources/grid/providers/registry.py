"""The providers of grid data by name; only the module of the named one is loaded."""

from __future__ import annotations

from importlib import import_module

from flows.errors import UsageError
from flows.sources.grid.providers.base import Provider

PROVIDERS = {
    "electricity-maps": ("electricity_maps", "ElectricityMaps"),
    "watttime": ("watttime", "WattTime"),
    "uk-carbon-intensity": ("uk", "CarbonIntensity"),
    "entsoe": ("entsoe", "Entsoe"),
    "eia": ("eia", "Eia"),
}
"""Name in wattledger.toml -> module beside this one, and its class."""


def load_provider(name: str) -> Provider:
    """The provider of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PROVIDERS:
        raise UsageError(
            f"unknown provider of grid data {name!r}", remedy=f"One of {', '.join(PROVIDERS)}"
        )
    module, provider = PROVIDERS[name]
    loaded: Provider = getattr(import_module(f"flows.sources.grid.providers.{module}"), provider)()
    return loaded
