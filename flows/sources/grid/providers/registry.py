"""Providers of grid data, each a small module behind the protocol of `base`."""

from __future__ import annotations

from flows.sources.grid.providers.base import Provider


def provider(name: str) -> Provider:
    """The provider of that name; only its own module is loaded."""
    if name == "electricity-maps":
        from flows.sources.grid.providers.electricity_maps import ElectricityMaps

        return ElectricityMaps()
    if name == "watttime":
        from flows.sources.grid.providers.watttime import WattTime

        return WattTime()
    if name == "uk-carbon-intensity":
        from flows.sources.grid.providers.uk import CarbonIntensity

        return CarbonIntensity()
    if name == "entsoe":
        from flows.sources.grid.providers.entsoe import Entsoe

        return Entsoe()
    from flows.sources.grid.providers.eia import Eia

    return Eia()
