"""Which factors the figures of each run rest on, so that an override shows wherever it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from flows.accounting.intensity import COUNTRY_FACTORS, MIX_FACTORS, Known
from flows.factors import (
    COUNTRY_MIX,
    WORLD,
    country_of,
    embodied_factors,
    for_model,
    of_site,
)
from transforms.constants import SERIES_TIERS

_BY = ["kind", "run_id"]
_Use = tuple[str, str]
"""A factor and its scope."""


def factor_use(
    known: Known,
    by_run: pl.DataFrame,
    sources: pl.DataFrame,
    energy: pl.DataFrame,
    made: pl.DataFrame,
) -> pl.DataFrame:
    """The table factor_use.

    Takes the slots of the footprint, the sources of every signal, the energy of every run on every
    GPU, and the model and server of each GPU.
    """
    models = dict(known.con.execute("SELECT gpu_key, model FROM gpu").fetchall())
    found = pl.concat(
        [
            _metering(energy),
            _boards(known, energy, models),
            _hosts(by_run),
            _sites(known, by_run),
            _grid(known, by_run, sources),
            _embodied(known, energy, made),
        ]
    ).unique()
    origins = pl.DataFrame(
        [(f.factor, f.scope, f.origin) for f in known.factors],
        schema=["factor", "scope", "origin"],
        orient="row",
    ).unique(["factor", "scope"], keep="last", maintain_order=True)
    return found.join(origins, on=["factor", "scope"], how="inner").sort(
        *_BY, "factor", "scope", nulls_last=True
    )


def _where(frame: pl.DataFrame, used: pl.Expr, factor: str, scope: str) -> pl.DataFrame:
    """Runs for which `used` is above zero in sum, with a factor."""
    return (
        frame.group_by(_BY)
        .agg(used=used.sum())
        .filter(pl.col("used") > 0)
        .select(*_BY, factor=pl.lit(factor), scope=pl.lit(scope))
    )


def _metering(energy: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(
        [
            _where(energy, pl.col("counter_mj"), "meter_tolerance", "counter"),
            _where(energy, pl.col("power_integral_mj"), "meter_tolerance", "power"),
        ]
    )


def _hosts(by_run: pl.DataFrame) -> pl.DataFrame:
    modelled = pl.col("host_mj") - pl.col("host_measured_mj")
    return pl.concat(
        [
            _where(by_run, pl.col("host_measured_mj"), "meter_tolerance", "rapl"),
            _where(by_run, modelled, "host_model_ratio", "codecarbon"),
        ]
    )


def _joined(
    frame: pl.DataFrame, keys: list[str], uses: Mapping[tuple[object, ...], list[_Use]]
) -> pl.DataFrame:
    """Runs with the factors that their keys stand for."""
    schema = {key: frame.schema[key] for key in keys}
    rows = [(*key, factor, scope) for key, all_ in uses.items() for factor, scope in all_]
    table = pl.DataFrame(
        rows, schema={**schema, "factor": pl.String, "scope": pl.String}, orient="row"
    )
    return frame.join(table, on=keys).select(*_BY, "factor", "scope").unique()


def _boards(known: Known, energy: pl.DataFrame, models: Mapping[int, str | None]) -> pl.DataFrame:
    """Idle power and limit of the GPUs whose energy was bridged or filled."""
    guessed = energy.filter(pl.col("gap_mj") + pl.col("filled_mj") > 0)
    keyed = guessed.select(*_BY, "gpu_key").unique()
    uses: dict[tuple[object, ...], list[_Use]] = {
        (key,): [
            (name, for_model(known.factors, name, models.get(key)).scope)
            for name in ("gpu_idle_w", "gpu_limit_w")
        ]
        for key in keyed["gpu_key"].unique()
    }
    return _joined(keyed, ["gpu_key"], uses)


def _embodied(known: Known, energy: pl.DataFrame, made: pl.DataFrame) -> pl.DataFrame:
    """What making the GPUs that runs held, and their servers, counts."""
    keyed = energy.filter(kind="run").select(*_BY, "gpu_key").unique().join(made, on="gpu_key")
    kinds = keyed.select("gpu_key", "model", "server").unique()
    of_kind = {
        kind: [
            (factor.factor, factor.scope)
            for factor in embodied_factors(known.factors, *kind).values()
        ]
        for kind in kinds.select("model", "server").unique().iter_rows()
    }
    uses: dict[tuple[object, ...], list[_Use]] = {
        (key,): of_kind[model, server] for key, model, server in kinds.iter_rows()
    }
    return _joined(keyed, ["gpu_key"], uses)


def _sites(known: Known, by_run: pl.DataFrame) -> pl.DataFrame:
    uses: dict[tuple[object, ...], list[_Use]] = {}
    for site in known.settings.site:
        _, used = of_site(known.factors, site)
        uses.setdefault((site.name,), []).extend((f.factor, f.scope) for f in used)
    return _joined(by_run.select(*_BY, "site").unique(), ["site"], uses)


def _grid(known: Known, by_run: pl.DataFrame, sources: pl.DataFrame) -> pl.DataFrame:
    keys = ["zone", "quantity", "rung", "source"]
    keyed = (
        by_run.select(*_BY, "zone", "slot")
        .join(sources.select(*keys, "slot"), on=["zone", "slot"])
        .select(*_BY, *keys)
        .unique()
    )
    uses: dict[tuple[object, ...], list[_Use]] = {
        key: list(_of_source(known, *key)) for key in keyed.select(keys).unique().iter_rows()
    }
    return _joined(keyed, keys, uses)


def _of_source(known: Known, zone: str, quantity: str, rung: str, source: str) -> Iterator[_Use]:
    """The factors behind one source of one quantity."""
    signal = known.signal(zone, quantity)
    per_fuel = MIX_FACTORS.get(signal, "")
    if rung in SERIES_TIERS and not (per_fuel and source.endswith(per_fuel)):
        yield "grid_series_tolerance", "default"
    elif rung in (*SERIES_TIERS, "profile"):
        fuels = known.con.execute(
            "SELECT DISTINCT fuel FROM grid_mix WHERE zone = ? AND superseded_at IS NULL", [zone]
        ).fetchall()
        yield from ((per_fuel, fuel) for (fuel,) in fuels)
        if rung == "profile":
            yield "grid_series_tolerance", "default"
    elif rung in ("country_year", "world"):
        name = COUNTRY_FACTORS[signal]
        places = {WORLD} if rung == "world" else {zone, country_of(known.settings, zone)}
        yield from ((name, place) for place in places)
        if name in COUNTRY_MIX:
            fuels = [(f.scope,) for f in known.factors if f.factor == per_fuel]
            yield from ((per_fuel, fuel) for (fuel,) in fuels)
