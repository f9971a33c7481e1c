"""Which factors the figures of each run rest on, so that an override shows wherever it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from flows.accounting.intensity import COUNTRY_FACTORS, MIX_FACTORS, GridView
from flows.factors import (
    COUNTRY_MIX,
    WORLD,
    choose_site_quantities,
    find_country,
    find_for_model,
    list_embodied_factors,
)
from flows.warehouse.frames import load_query
from transforms.constants import SERIES_TIERS

_RUN = ["kind", "run_id"]
_Use = tuple[str, str]
"""A factor and its scope."""


def list_factor_uses(
    view: GridView,
    slots: pl.DataFrame,
    sources: pl.DataFrame,
    energy: pl.DataFrame,
    embodied: pl.DataFrame,
) -> pl.DataFrame:
    """List the factors that the figures of each run rest on.

    Args:
        view: The grid data, with the factors in force.
        slots: The table footprint_slot, with slot for slot_start.
        sources: The table slot_source, with slot for slot_start.
        energy: The table device_energy: what each run used on each GPU.
        embodied: The table gpu_embodied, with model and server.

    Returns:
        The table factor_use.
    """
    boards = {
        key: (model, told is not None)
        for key, model, told in view.con.execute(load_query("accounting/board_limits")).fetchall()
    }
    uses = pl.concat(
        [
            _list_meter_uses(energy),
            _list_board_uses(view, energy, boards),
            _list_host_uses(slots),
            _list_site_uses(view, slots),
            _list_grid_uses(view, slots, sources),
            _list_embodied_uses(view, energy, embodied),
        ]
    ).unique()
    origins = pl.DataFrame(
        [(f.factor, f.scope, f.origin) for f in view.factors],
        schema=["factor", "scope", "origin"],
        orient="row",
    ).unique(["factor", "scope"], keep="last", maintain_order=True)
    return uses.join(origins, on=["factor", "scope"], how="inner", validate="m:1").sort(
        *_RUN, "factor", "scope", nulls_last=True
    )


def _find_runs(frame: pl.DataFrame, used: pl.Expr, factor: str, scope: str) -> pl.DataFrame:
    """Runs for which `used` is above zero in sum, with a factor."""
    return (
        frame.group_by(_RUN)
        .agg(used=used.sum())
        .filter(pl.col("used") > 0)
        .select(*_RUN, factor=pl.lit(factor), scope=pl.lit(scope))
    )


def _list_meter_uses(energy: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(
        [
            _find_runs(energy, pl.col("counter_mj"), "meter_tolerance", "counter"),
            _find_runs(energy, pl.col("power_integral_mj"), "meter_tolerance", "power"),
        ]
    )


def _list_host_uses(slots: pl.DataFrame) -> pl.DataFrame:
    modelled = pl.col("host_mj") - pl.col("host_measured_mj")
    return pl.concat(
        [
            _find_runs(slots, pl.col("host_measured_mj"), "meter_tolerance", "rapl"),
            _find_runs(slots, modelled, "host_model_ratio", "codecarbon"),
        ]
    )


def _join_factors(
    frame: pl.DataFrame, keys: list[str], uses: Mapping[tuple[object, ...], list[_Use]]
) -> pl.DataFrame:
    """Runs with the factors that their keys stand for."""
    schema = {key: frame.schema[key] for key in keys}
    rows = [(*key, factor, scope) for key, factors in uses.items() for factor, scope in factors]
    table = pl.DataFrame(
        rows, schema={**schema, "factor": pl.String, "scope": pl.String}, orient="row"
    )
    return frame.join(table, on=keys).select(*_RUN, "factor", "scope").unique()


def _list_board_uses(
    view: GridView, energy: pl.DataFrame, boards: Mapping[int, tuple[str | None, bool]]
) -> pl.DataFrame:
    """Idle power and limit of the GPUs whose energy was bridged or filled; no limit where the readings tell it.

    `boards`: the model of each GPU, and whether its readings tell its limit.
    """
    estimated = energy.filter(pl.col("gap_mj") + pl.col("filled_mj") > 0)
    keyed = estimated.select(*_RUN, "gpu_key").unique()
    uses: dict[tuple[object, ...], list[_Use]] = {
        (key,): [
            (name, find_for_model(view.factors, name, model).scope)
            for name in ("gpu_idle_w", *(() if is_told else ("gpu_limit_w",)))
        ]
        for key in keyed["gpu_key"].unique()
        for model, is_told in [boards.get(key, (None, False))]
    }
    return _join_factors(keyed, ["gpu_key"], uses)


def _list_embodied_uses(
    view: GridView, energy: pl.DataFrame, embodied: pl.DataFrame
) -> pl.DataFrame:
    """What making the GPUs that runs held, and their servers, counts."""
    keyed = (
        energy.filter(kind="run")
        .select(*_RUN, "gpu_key")
        .unique()
        .join(embodied, on="gpu_key", validate="m:1")
    )
    kinds = keyed.select("gpu_key", "model", "server").unique()
    of_model = {
        scopes: [
            (factor.factor, factor.scope)
            for factor in list_embodied_factors(view.factors, *scopes).values()
        ]
        for scopes in kinds.select("model", "server").unique().iter_rows()
    }
    uses: dict[tuple[object, ...], list[_Use]] = {
        (key,): of_model[model, server] for key, model, server in kinds.iter_rows()
    }
    return _join_factors(keyed, ["gpu_key"], uses)


def _list_site_uses(view: GridView, slots: pl.DataFrame) -> pl.DataFrame:
    uses: dict[tuple[object, ...], list[_Use]] = {}
    for site in view.settings.site:
        _, used = choose_site_quantities(view.factors, site)
        uses.setdefault((site.name,), []).extend((f.factor, f.scope) for f in used)
    return _join_factors(slots.select(*_RUN, "site").unique(), ["site"], uses)


def _list_grid_uses(view: GridView, slots: pl.DataFrame, sources: pl.DataFrame) -> pl.DataFrame:
    keys = ["zone", "quantity", "rung", "source"]
    keyed = (
        slots.select(*_RUN, "zone", "slot")
        .join(sources.select(*keys, "slot"), on=["zone", "slot"])
        .select(*_RUN, *keys)
        .unique()
    )
    uses: dict[tuple[object, ...], list[_Use]] = {
        key: list(_list_source_factors(view, *key))
        for key in keyed.select(keys).unique().iter_rows()
    }
    return _join_factors(keyed, keys, uses)


def _list_source_factors(
    view: GridView, zone: str, quantity: str, tier: str, source: str
) -> Iterator[_Use]:
    """The factors behind one source of one quantity."""
    signal = view.find_signal(zone, quantity)
    per_fuel = MIX_FACTORS.get(signal, "")
    if tier in SERIES_TIERS and not (per_fuel and source.endswith(per_fuel)):
        yield "grid_series_tolerance", "default"
    elif tier in (*SERIES_TIERS, "profile"):
        fuels = view.con.execute(
            "SELECT DISTINCT fuel FROM grid_mix WHERE zone = ? AND superseded_at IS NULL", [zone]
        ).fetchall()
        yield from ((per_fuel, fuel) for (fuel,) in fuels)
        if tier == "profile":
            yield "grid_series_tolerance", "default"
    elif tier in ("country_year", "world"):
        name = COUNTRY_FACTORS[signal]
        places = {WORLD} if tier == "world" else {zone, find_country(view.settings, zone)}
        yield from ((name, place) for place in places)
        if name in COUNTRY_MIX:
            fuels = [(f.scope,) for f in view.factors if f.factor == per_fuel]
            yield from ((per_fuel, fuel) for (fuel,) in fuels)
