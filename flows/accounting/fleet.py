"""What the devices of a fleet are: where they stand, what they may draw, what making them counts, who held them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl

from flows.accounting.stretches import read_gap_rule
from flows.accounting.tables import slot_start
from flows.errors import SettingsError
from flows.factors import Factor, find_for_model, find_value, list_embodied_factors
from flows.settings import Settings
from flows.warehouse.frames import load_query
from transforms import attribution, changes, embodied
from transforms.constants import BOUNDS, NO_GPU, PPM, SLOT_US
from transforms.gaps import GapRule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fleet:
    """What the figures take each device to be, and who held it; readings apart."""

    devices: pl.DataFrame
    """gpu_key, host, site, is_gpu, host_group, place and count among the carriers of the host's energy (null
    for those that carry none), idle_mw, limit_mw."""
    embodied: pl.DataFrame
    """The table gpu_embodied, with model and server."""
    spans: pl.DataFrame
    """Allocations, as `transforms.attribution.close_allocations` gives them."""
    sites: pl.DataFrame
    """The tables site and zone, joined."""
    usual_powers: pl.DataFrame | None
    """What runs usually draw, as `transforms.attribution.find_usual_powers` gives it; None: to be found from all
    of their energy, where that is computed at once."""
    rule: GapRule
    counter_ppm: int
    power_ppm: int
    rapl_ppm: int
    modelled_low_ppm: int
    modelled_high_ppm: int

    def select_groups(self, groups: pl.Series) -> Fleet:
        """The part of the fleet that belongs to some host groups."""
        devices = self.devices.filter(pl.col("host_group").is_in(groups.implode()))
        return replace(
            self,
            devices=devices,
            embodied=self.embodied.join(devices, on="gpu_key", how="semi"),
            spans=self.spans.join(devices, on="gpu_key", how="semi"),
        )


def describe_fleet(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> Fleet:
    """Describe the fleet as the warehouse and the settings do now."""
    modelled = next(factor for factor in factors if factor.factor == "host_model_ratio")
    devices = con.execute(load_query("accounting/devices"), {"no_gpu": NO_GPU}).pl()
    grouped = changes.assign_host_groups(devices.lazy()).collect()
    return Fleet(
        devices=grouped.join(_list_power_limits(con, factors), on="gpu_key", validate="1:1").sort(
            "gpu_key"
        ),
        embodied=_rate_embodied(con, factors),
        spans=_read_spans(con),
        sites=con.execute(
            "SELECT s.*, z.loss, z.loss_low, z.loss_high FROM site AS s JOIN zone AS z USING (zone)"
        ).pl(),
        usual_powers=None,
        rule=read_gap_rule(settings),
        counter_ppm=round(find_value(factors, "meter_tolerance", "counter") * PPM),
        power_ppm=round(find_value(factors, "meter_tolerance", "power") * PPM),
        rapl_ppm=round(find_value(factors, "meter_tolerance", "rapl") * PPM),
        modelled_low_ppm=round(modelled.low * PPM),
        modelled_high_ppm=round(modelled.high * PPM),
    )


def find_last_reading(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """Time of the last reading of all; a run without an end goes on until then."""
    [(last,)] = con.execute(
        "SELECT max(p.last_ts) FROM segment_profile AS p JOIN segment AS s USING (segment_id) "
        "WHERE s.verdict = 'loaded'"
    ).fetchall()
    return last if isinstance(last, datetime) else None


def find_site_settings(sites: pl.DataFrame, slots: pl.DataFrame) -> pl.DataFrame:
    """Find the settings that are valid for a site in a slot.

    Args:
        sites: `Fleet.sites`: one row per site and time of validity.
        slots: site and slot; other columns are ignored.

    Returns:
        One row per site and slot.

    Raises:
        SettingsError: there are no settings, or two.
    """
    needed = slots.select("site", "slot").unique()
    valid = (
        needed.join(sites, on="site", how="left")
        .with_columns(start=slot_start())
        .filter(
            (pl.col("valid_from").is_null() | (pl.col("valid_from") <= pl.col("start")))
            & (pl.col("valid_to").is_null() | (pl.col("valid_to") > pl.col("start")))
        )
        .drop("start", "valid_from", "valid_to")
    )
    doubled = valid.filter(valid.select("site", "slot").is_duplicated())
    missing = needed.join(valid, on=["site", "slot"], how="anti")
    for wrong, what in ((doubled, "is described twice for"), (missing, "is not described for")):
        if wrong.height:
            time = datetime.fromtimestamp(wrong["slot"][0] * SLOT_US / 1e6, UTC)
            raise SettingsError(
                f"site {wrong['site'][0]!r} {what} {time:%Y-%m-%dT%H:%MZ}",
                where="wattledger.toml",
                remedy="Adjust valid_from and valid_to of its [[site]] entries",
            )
    return valid


def _read_spans(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Allocations in force; a run without an end goes on until the last reading of all."""
    last = find_last_reading(con)
    last_us = 0 if last is None else (last - _EPOCH) // timedelta(microseconds=1)
    allocations = con.execute(
        "SELECT run_id, gpu_key, from_ts, to_ts, share_ppm FROM run_allocation "
        "JOIN gpu USING (gpu_uuid) WHERE superseded_at IS NULL"
    ).pl()
    return attribution.close_allocations(allocations.lazy(), last_us).collect()


def _list_power_limits(con: duckdb.DuckDBPyConnection, factors: Sequence[Factor]) -> pl.DataFrame:
    """What each device draws idle, and at most: gpu_key, idle_mw, limit_mw.

    The limit is the largest that its readings tell, else that of its model.
    """
    gpus = con.execute(load_query("accounting/board_limits")).fetchall()
    models = {model for _, model, _ in gpus}
    idle = {m: round(find_for_model(factors, "gpu_idle_w", m).low * 1000) for m in models}
    limit = {m: round(find_for_model(factors, "gpu_limit_w", m).high * 1000) for m in models}
    return pl.DataFrame(
        [(key, idle[model], told or limit[model]) for key, model, told in gpus],
        schema={"gpu_key": pl.Int32, "idle_mw": pl.Int64, "limit_mw": pl.Int64},
        orient="row",
    )


def _rate_embodied(con: duckdb.DuckDBPyConnection, factors: Sequence[Factor]) -> pl.DataFrame:
    """What making each device and its part of the server counts, per hour held."""
    devices = con.execute(load_query("accounting/servers"), {"no_gpu": NO_GPU}).pl()
    rows = []
    for model, server in devices.select("model", "server").unique().iter_rows():
        row: dict[str, Any] = {"model": model, "server": server}
        for name, factor in list_embodied_factors(factors, model, server).items():
            row |= {name: factor.value, f"{name}_low": factor.low, f"{name}_high": factor.high}
        rows.append(row)
    names = [f"{name}{bound}" for name in embodied.INPUTS for bound in BOUNDS]
    described = pl.DataFrame(
        rows, schema={"model": pl.String, "server": pl.String, **dict.fromkeys(names, pl.Float64)}
    )
    return embodied.compute_hourly_rates(
        devices.lazy().join(
            described.lazy(), on=["model", "server"], nulls_equal=True, validate="m:1"
        )
    ).collect()
