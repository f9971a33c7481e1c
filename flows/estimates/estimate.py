"""Estimates of runs that nobody metered: inputs from settings and factors, the formulas of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows.accounting.intensity import stand_ins
from flows.errors import UsageError
from flows.factors import (
    WORLD,
    Factor,
    effective,
    embodied_factors,
    find,
    for_model,
    of_site,
    quantity,
)
from flows.settings import Quantity, Settings, Site, Zone
from transforms.constants import BOUNDS
from transforms.estimate import INPUTS, bounded, estimate

Inputs = dict[str, Quantity]
"""What a case is made of (`transforms.estimate.INPUTS`), each with its bounds and source."""

GALLON_L = 3.785411784
"""A US gallon."""
GPUS_PER_SERVER = 8
"""Where no site says otherwise: HGX and DGX boards."""


@dataclass(frozen=True)
class Load:
    """How hard GPUs work: mean power as given, or by utilisation, or as is usual in training."""

    power_w: Quantity | None = None
    utilisation: Quantity | None = None
    """0 is idle power, 1 the board limit."""
    power_share: Quantity | None = None
    """Mean power / board limit."""


def run(
    cases: Mapping[str, Inputs], gpus_per_server: int = GPUS_PER_SERVER
) -> list[dict[str, Any]]:
    """The figures of cases, in their order; inputs that a case leaves out count nothing."""
    rows = []
    for name, inputs in cases.items():
        row: dict[str, Any] = {"case": name, "gpus_per_server": gpus_per_server}
        for key, neutral in INPUTS.items():
            given = inputs.get(key) or Quantity.exact(neutral)
            for bound, value in zip(BOUNDS, (given.value, given.low, given.high), strict=True):
                row[bounded(key, bound)] = float(value)
        rows.append(row)
    found = {row["case"]: row for row in estimate(pl.LazyFrame(rows)).collect().to_dicts()}
    return [found[name] for name in cases]


def of_run(
    settings: Settings,
    site: Site,
    gpu: str,
    gpu_hours: float,
    load: Load,
    price_per_kwh: float | None = None,
) -> dict[str, Any]:
    """One run: its figures with bounds, and the inputs that they rest on, each with its source."""
    factors = effective(settings)
    inputs = {
        "gpu_hours": Quantity.exact(gpu_hours, "as given"),
        **inputs_of(settings, factors, site, gpu, load),
    }
    if price_per_kwh is not None:
        inputs["price_per_kwh"] = Quantity.exact(price_per_kwh, "as given")
    [figures] = run({"estimate": inputs}, site.gpus_per_server or GPUS_PER_SERVER)
    del figures["case"]
    return {
        "estimated": True,
        "gpu": gpu,
        "zone": site.zone,
        "figures": figures,
        "inputs": shown(inputs),
    }


def inputs_of(
    settings: Settings, factors: Sequence[Factor], site: Site, gpu: str, load: Load
) -> Inputs:
    """Everything but the GPU-hours, for GPUs of a model at a site.

    Raises:
        UsageError: no factor knows the GPU, and no power was given; nothing is known of the zone.
        SettingsError: the site names an operator, server or plant that no factor knows.
    """
    server = site.server or _usual_server(factors, gpu)
    of, _ = of_site(factors, site.model_copy(update={"server": server}))
    found: Inputs = {
        "gpu_w": _power(factors, gpu, load),
        "overhead_w": of["overhead_w"],
        **{
            name: of[name]
            for name in (
                "pue",
                "wue_l_per_kwh",
                "withdrawal_ratio",
                "onsite_share",
                "onsite_g_per_kwh",
                "onsite_l_per_kwh",
            )
        },
        **{name: quantity(f) for name, f in embodied_factors(factors, gpu, server).items()},
    }
    for name, key in (
        ("intensity", "intensity_g_per_kwh"),
        ("ewif", "ewif_l_per_kwh"),
        ("withdrawal", "withdrawal_l_per_kwh"),
    ):
        found[key] = grid_input(settings, factors, site.zone, name)
    # Without contracts, the market-based figure is of the residual mix, or else of the location.
    residual = stand_ins(settings, factors, site.zone, "residual")
    found["residual_g_per_kwh"] = (
        grid_input(settings, factors, site.zone, "residual")
        if residual
        else found["intensity_g_per_kwh"]
    )
    loss = settings.zones.get(site.zone, Zone()).transmission_loss
    if loss is not None:
        found["loss"] = loss
    return found


def grid_input(settings: Settings, factors: Sequence[Factor], zone: str, name: str) -> Quantity:
    """Intensity or water of a zone without a series: as configured, else of its country, else the world's.

    Raises:
        UsageError: no intensity is known but the world's, and that was not asked for.
    """
    best = stand_ins(settings, factors, zone, name)[0]
    if name == "intensity" and best.rung == WORLD and zone != WORLD:
        raise UsageError(
            f"nothing is known of zone {zone!r}",
            where="zone",
            remedy="Name a country (US, or US-TVA), `world`, or set "
            f"zones.{zone}.fallback_intensity_g_per_kwh in wattledger.toml",
        )
    return Quantity(value=best.value, low=best.low, high=best.high, source=best.source)


def shown(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Inputs as they are printed."""
    return {name: given.model_dump() for name, given in inputs.items()}


def _power(factors: Sequence[Factor], gpu: str, load: Load) -> Quantity:
    """Mean power of a GPU in W."""
    if load.power_w is not None:
        return load.power_w
    limit = for_model(factors, "gpu_limit_w", gpu)
    if limit.scope == "default":
        known = [f.scope.replace("*", " ").strip() for f in factors if f.factor == "gpu_limit_w"]
        raise UsageError(
            f"no factor knows the GPU {gpu!r}",
            where="gpu",
            remedy="Give its mean power in W, or one of: "
            + ", ".join(sorted({name for name in known if name not in ("default", "none")})),
        )
    if load.utilisation is not None:
        idle = for_model(factors, "gpu_idle_w", gpu)
        busy = load.utilisation

        def drawn(share: float, rest_w: float) -> float:
            return rest_w + share * (limit.value - rest_w)

        return Quantity(
            value=drawn(busy.value, idle.value),
            low=drawn(busy.low, idle.low),
            high=drawn(busy.high, idle.high),
            source=f"idle power + utilisation {busy.value:g} of the way to {limit.value:g} W "
            f"({limit.source})",
        )
    share = load.power_share or quantity(find(factors, "training_power_share", "default", "gpu"))
    return Quantity(
        value=share.value * limit.value,
        low=share.low * limit.low,
        high=share.high * limit.high,
        source=f"{share.value:g} of {limit.value:g} W ({limit.source}); {share.source}",
    )


def _usual_server(factors: Sequence[Factor], gpu: str) -> str:
    """The server model that a GPU usually sits in, of those that factors know."""
    known = {f.scope for f in factors if f.factor == "host_overhead_w_per_gpu"}
    names = (f"{line}-{part}" for part in gpu.upper().split() for line in ("HGX", "DGX"))
    return next((name for name in names if name in known), "default")
