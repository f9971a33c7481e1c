"""What wattledger.toml says, written into the warehouse, so that figures carry their inputs."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb

from flows.accounting.intensity import COUNTRY_FACTORS
from flows.errors import BadInput, SettingsError, locate
from flows.factors import WORLD, Factor, country_of, of_site
from flows.settings import Contract, Quantity, Settings, Tariff
from flows.times import parse_time
from transforms.schema import TABLES

_NOTHING = Quantity.exact(0)


def configure(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> None:
    """Write sites, hosts, zones, contracts and factors as configured now (inside the caller's
    transaction).

    Raises:
        SettingsError: a host belongs to no site; a site names an operator that no factor knows.
        BadInput: a file of deliveries can't be used.
    """
    hosts = [row[0] for row in con.execute("SELECT DISTINCT host FROM gpu ORDER BY 1").fetchall()]
    placed = [(name, settings.find_site(name)) for name in hosts]
    for name, site in placed:
        if site is None:
            raise SettingsError(
                f"host {name!r} belongs to no site",
                where="wattledger.toml",
                remedy='Add it to the hosts of a [[site]], for example hosts = ["*"]',
            )
    tables: dict[str, list[tuple[Any, ...]]] = {
        "host": placed,
        "site": _sites(settings, factors),
        "zone": _zones(settings),
        "contract": [_contract(place, one) for place, one in enumerate(settings.contract, 1)],
        "contract_delivery": [
            row for one in settings.contract for row in _deliveries(settings, one)
        ],
        "tariff": [_tariff(settings, place, one) for place, one in enumerate(settings.tariff, 1)],
        "factor": _factors(settings, factors),
        "setting": list(settings.to_record().items()),
    }
    for table, values in tables.items():
        con.execute(f"DELETE FROM {table}")
        marks = ", ".join("?" for _ in TABLES[table].columns)
        if values:
            con.executemany(f"INSERT INTO {table} VALUES ({marks})", [list(v) for v in values])


def _bounds(quantity: Quantity) -> tuple[float, float, float]:
    return quantity.value, quantity.low, quantity.high


def _milliwatts(watts: Quantity) -> tuple[int, int, int]:
    value, low, high = (round(bound * 1000) for bound in _bounds(watts))
    return value, low, high


def _sites(settings: Settings, factors: Sequence[Factor]) -> list[tuple[Any, ...]]:
    found = []
    for site in settings.site:
        of, _ = of_site(factors, site)
        found.append(
            (
                site.name,
                site.zone,
                *_bounds(of["pue"]),
                *_bounds(of["wue_l_per_kwh"]),
                *_milliwatts(of["overhead_w"]),
                site.valid_from,
                site.valid_to,
                *_milliwatts(site.host_rest_w_per_gpu),
                *_bounds(of["onsite_share"]),
                *_bounds(of["onsite_g_per_kwh"]),
                *_bounds(of["onsite_l_per_kwh"]),
                site.server or None,
                site.gpus_per_server,
                *_bounds(of["withdrawal_ratio"]),
            )
        )
    return found


def _zones(settings: Settings) -> list[tuple[Any, ...]]:
    names = sorted({site.zone for site in settings.site} | set(settings.zones))
    ladder = " ".join(settings.grid.ladder)
    found = []
    for name in names:
        zone = settings.zones.get(name)
        found.append(
            (
                name,
                country_of(settings, name) or None,
                zone.signal if zone else "average_lifecycle",
                ladder,
                *_bounds((zone.transmission_loss if zone else None) or _NOTHING),
            )
        )
    return found


def _contract(place: int, one: Contract) -> tuple[Any, ...]:
    return (
        one.name,
        place,
        one.site,
        one.instrument,
        one.matching,
        one.share,
        None if one.energy_mwh is None else one.energy_mwh * 1000,
        *_bounds(one.intensity_g_per_kwh),
        one.valid_from,
        one.valid_to,
        one.source or "wattledger.toml",
    )


def _tariff(settings: Settings, place: int, one: Tariff) -> tuple[Any, ...]:
    return (
        one.site,
        place,
        one.price_per_kwh,
        settings.project.currency,
        one.from_hour,
        one.to_hour,
        " ".join(one.weekdays),
        one.tz,
        one.valid_from,
        one.valid_to,
        one.source or "wattledger.toml",
    )


def _deliveries(settings: Settings, one: Contract) -> list[tuple[str, datetime, datetime, float]]:
    """What a contract delivered: its volume evenly over its time, or interval by interval."""
    if one.energy_mwh is not None:
        return [(one.name, one.valid_from, one.valid_to, one.energy_mwh * 1000)]
    if not one.deliveries:
        return []
    path = settings.root / one.deliveries
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(
            f"can't read the deliveries of contract {one.name!r}: {error}",
            where=str(path),
            remedy="It should be CSV with valid_from, valid_to and energy_kwh",
        ) from None
    found = []
    for number, line in enumerate(lines, 2):
        moments = []
        for column in ("valid_from", "valid_to"):
            moment = parse_time(line.get(column) or "", column, locate(path, number), "UTC")
            if moment is None:
                raise BadInput("no time", where=locate(path, number, column), remedy="Fill it in")
            moments.append(moment)
        text = line.get("energy_kwh") or ""
        try:
            energy = float(text)
        except ValueError:
            energy = -1
        if not 0 <= energy < 1e12 or moments[0] >= moments[1]:
            raise BadInput(
                "an interval needs an end after its start and an energy of 0 kWh or more",
                where=locate(path, number, "energy_kwh", text),
                remedy="Mend that row",
            )
        found.append((one.name, moments[0], moments[1], energy))
    ordered = sorted(found)
    for before, after in itertools.pairwise(ordered):
        if after[1] < before[2]:
            raise BadInput(
                f"deliveries overlap from {after[1]:%Y-%m-%dT%H:%MZ}",
                where=str(path),
                remedy="Give each hour once",
            )
    return ordered


def _factors(settings: Settings, factors: Sequence[Factor]) -> list[tuple[Any, ...]]:
    """All factors, but of countries only those of the configured zones."""
    zones = {site.zone for site in settings.site} | set(settings.zones)
    places = zones | {country_of(settings, zone) for zone in zones} | {WORLD}
    return [
        (
            f.factor,
            f.scope,
            f.value,
            f.low,
            f.high,
            f.unit,
            f.source,
            f.licence,
            f.origin,
            f.year,
            f.valid_from,
            f.valid_to,
        )
        for f in factors
        if f.factor not in COUNTRY_FACTORS.values() or f.scope in places
    ]
