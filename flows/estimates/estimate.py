"""Estimates of runs that nobody metered: inputs from settings and factors, formulas of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows.accounting.intensity import list_stand_ins
from flows.errors import UsageError
from flows.factors import (
    WORLD,
    Factor,
    choose_site_quantities,
    find_factor,
    find_for_model,
    list_embodied_factors,
    make_quantity,
    read_factors,
)
from flows.settings import Quantity, Settings, Site, Zone
from transforms.constants import BOUNDS
from transforms.estimate import INPUTS, bound_column, estimate_footprints

Inputs = dict[str, Quantity]
"""What a case is made of (`transforms.estimate.INPUTS`), each with its bounds and source."""

GALLON_L = 3.785411784
"""A US gallon."""
GPUS_PER_SERVER = 8
"""Where no site says otherwise: HGX and DGX boards."""

_GRID_INPUTS = {
    "intensity": "intensity_g_per_kwh",
    "ewif": "ewif_l_per_kwh",
    "withdrawal": "withdrawal_l_per_kwh",
}
"""Quantity of a zone -> the input that it is."""

_SITE_INPUTS = (
    "overhead_w",
    "pue",
    "wue_l_per_kwh",
    "withdrawal_ratio",
    "onsite_share",
    "onsite_g_per_kwh",
    "onsite_l_per_kwh",
)


@dataclass(frozen=True)
class Load:
    """How hard GPUs work: a mean power, a utilisation or a share of the board limit; else as in training."""

    power_w: Quantity | None = None
    utilisation: Quantity | None = None
    """0 is idle power, 1 the board limit."""
    power_share: Quantity | None = None
    """Mean power / board limit."""


def estimate_cases(
    cases: Mapping[str, Inputs], gpus_per_server: int = GPUS_PER_SERVER
) -> list[dict[str, Any]]:
    """Estimate the figures of cases.

    Args:
        cases: Name -> inputs; an input that a case leaves out counts nothing.
        gpus_per_server: How many GPUs share the embodied carbon of a server.

    Returns:
        One row per case, in their order: case and `transforms.estimate.FIGURES` with bounds.
    """
    rows = [_case_row(name, inputs, gpus_per_server) for name, inputs in cases.items()]
    footprints = estimate_footprints(pl.LazyFrame(rows)).collect().to_dicts()
    by_case = {row["case"]: row for row in footprints}
    return [by_case[name] for name in cases]


def _case_row(name: str, inputs: Inputs, gpus_per_server: int) -> dict[str, Any]:
    """A case as `transforms.estimate.estimate_footprints` takes it."""
    row: dict[str, Any] = {"case": name, "gpus_per_server": gpus_per_server}
    for key, neutral in INPUTS.items():
        quantity = inputs.get(key) or Quantity.exact(neutral)
        values = (quantity.value, quantity.low, quantity.high)
        row |= {bound_column(key, b): float(v) for b, v in zip(BOUNDS, values, strict=True)}
    return row


def estimate_run(
    settings: Settings,
    site: Site,
    gpu: str,
    gpu_hours: float,
    load: Load,
    price_per_kwh: float | None = None,
) -> dict[str, Any]:
    """Estimate one run: its figures with bounds, and the inputs that they rest on, with their sources.

    Raises:
        UsageError, SettingsError: as `collect_inputs`.
    """
    factors = read_factors(settings)
    inputs = {
        "gpu_hours": Quantity.exact(gpu_hours, "as given"),
        **collect_inputs(settings, factors, site, gpu, load),
    }
    if price_per_kwh is not None:
        inputs["price_per_kwh"] = Quantity.exact(price_per_kwh, "as given")
    [figures] = estimate_cases({"estimate": inputs}, site.gpus_per_server or GPUS_PER_SERVER)
    del figures["case"]
    return {
        "estimated": True,
        "gpu": gpu,
        "zone": site.zone,
        "figures": figures,
        "inputs": describe_inputs(inputs),
    }


def collect_inputs(
    settings: Settings, factors: Sequence[Factor], site: Site, gpu: str, load: Load
) -> Inputs:
    """Everything but the GPU-hours, for GPUs of a model at a site.

    Raises:
        UsageError: no factor knows the GPU, and no power was given; or nothing is known of the zone.
        SettingsError: the site names an operator, server or plant that no factor knows.
    """
    server = site.server or _usual_server(factors, gpu)
    site_quantities, _ = choose_site_quantities(factors, site.model_copy(update={"server": server}))
    return {
        "gpu_w": _find_mean_power(factors, gpu, load),
        **{name: site_quantities[name] for name in _SITE_INPUTS},
        **{
            name: make_quantity(f)
            for name, f in list_embodied_factors(factors, gpu, server).items()
        },
        **_collect_grid_inputs(settings, factors, site.zone),
    }


def _collect_grid_inputs(settings: Settings, factors: Sequence[Factor], zone: str) -> Inputs:
    """Intensities, water and losses of a zone."""
    inputs = {
        key: find_grid_quantity(settings, factors, zone, name) for name, key in _GRID_INPUTS.items()
    }
    # Without contracts, the market-based figure is of the residual mix, or else of the location.
    residual = list_stand_ins(settings, factors, zone, "residual")
    inputs["residual_g_per_kwh"] = (
        find_grid_quantity(settings, factors, zone, "residual")
        if residual
        else inputs["intensity_g_per_kwh"]
    )
    loss = settings.zones.get(zone, Zone()).transmission_loss
    if loss is not None:
        inputs["loss"] = loss
    return inputs


def find_grid_quantity(
    settings: Settings, factors: Sequence[Factor], zone: str, name: str
) -> Quantity:
    """Find an intensity or water of a zone without a series: configured, else its country's, else the world's.

    Raises:
        UsageError: only the intensity of the world is known, and the zone is not the world.
    """
    best = list_stand_ins(settings, factors, zone, name)[0]
    if name == "intensity" and best.tier == WORLD and zone != WORLD:
        raise UsageError(
            f"nothing is known of zone {zone!r}",
            where="zone",
            remedy="Name a country (US, or US-TVA), `world`, or set "
            f"zones.{zone}.fallback_intensity_g_per_kwh in wattledger.toml",
        )
    return Quantity(value=best.value, low=best.low, high=best.high, source=best.source)


def describe_inputs(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Inputs as they are printed: value, low, high and source of each."""
    return {name: quantity.model_dump() for name, quantity in inputs.items()}


def _find_mean_power(factors: Sequence[Factor], gpu: str, load: Load) -> Quantity:
    """Mean power of a GPU in W: as given, else from its board limit.

    Raises:
        UsageError: no factor knows the GPU, and no power was given.
    """
    if load.power_w is not None:
        return load.power_w
    limit = find_for_model(factors, "gpu_limit_w", gpu)
    if limit.scope == "default":
        models = {f.scope.replace("*", " ").strip() for f in factors if f.factor == "gpu_limit_w"}
        raise UsageError(
            f"no factor knows the GPU {gpu!r}",
            where="gpu",
            remedy="Give its mean power in W, or one of: "
            + ", ".join(sorted(models - {"default", "none"})),
        )
    if load.utilisation is not None:
        idle = find_for_model(factors, "gpu_idle_w", gpu)
        return _power_at_utilisation(load.utilisation, idle, limit)
    share = load.power_share or make_quantity(
        find_factor(factors, "training_power_share", "default", "gpu")
    )
    return Quantity(
        value=share.value * limit.value,
        low=share.low * limit.low,
        high=share.high * limit.high,
        source=f"{share.value:g} of {limit.value:g} W ({limit.source}); {share.source}",
    )


def _power_at_utilisation(utilisation: Quantity, idle: Factor, limit: Factor) -> Quantity:
    """Mean power between idle power and the board limit, in proportion to utilisation."""

    def interpolate(share: float, idle_w: float) -> float:
        return idle_w + share * (limit.value - idle_w)

    return Quantity(
        value=interpolate(utilisation.value, idle.value),
        low=interpolate(utilisation.low, idle.low),
        high=interpolate(utilisation.high, idle.high),
        source=f"idle power + utilisation {utilisation.value:g} of the way to {limit.value:g} W "
        f"({limit.source})",
    )


def _usual_server(factors: Sequence[Factor], gpu: str) -> str:
    """The server model that a GPU usually sits in, of those that factors know."""
    servers = {f.scope for f in factors if f.factor == "host_overhead_w_per_gpu"}
    names = (f"{line}-{part}" for part in gpu.upper().split() for line in ("HGX", "DGX"))
    return next((name for name in names if name in servers), "default")
