"""What wattledger.toml says, written into the warehouse, so that figures carry their inputs."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from flows.accounting.intensity import COUNTRY_FACTORS
from flows.errors import BadInput, SettingsError, locate
from flows.factors import WORLD, Factor, choose_site_quantities, find_country
from flows.settings import Contract, Quantity, Settings, Site, Tariff
from flows.times import parse_time
from flows.warehouse.frames import insert
from transforms.constants import BOUNDS

_NOTHING = Quantity.exact(0)
_Row = dict[str, Any]


def write_inputs(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> None:
    """Write sites, hosts, zones, contracts, tariffs and factors as configured now (inside the caller's transaction).

    Raises: as `list_inputs`.
    """
    for table, rows in list_inputs(con, settings, factors).items():
        con.execute(f"DELETE FROM {table}")
        insert(con, table, rows)


def list_inputs(
    con: duckdb.DuckDBPyConnection, settings: Settings, factors: Sequence[Factor]
) -> dict[str, list[dict[str, Any]]]:
    """Sites, hosts, zones, contracts, tariffs, factors and settings as configured now: table -> rows.

    Raises:
        SettingsError: a host belongs to no site; a site names an operator that no factor knows.
        BadInput: a file of deliveries cannot be used.
    """
    return {
        "host": _place_hosts(con, settings),
        "site": [_describe_site(site, factors) for site in settings.site],
        "zone": _list_zones(settings),
        "contract": [
            _describe_contract(position, contract)
            for position, contract in enumerate(settings.contract, 1)
        ],
        "contract_delivery": [
            delivery
            for contract in settings.contract
            for delivery in _list_deliveries(settings, contract)
        ],
        "tariff": [
            _describe_tariff(position, tariff, settings.project.currency)
            for position, tariff in enumerate(settings.tariff, 1)
        ],
        "factor": [vars(factor) for factor in _select_factors(settings, factors)],
        "setting": [
            {"section": section, "value_json": value}
            for section, value in settings.to_record().items()
        ],
    }


def _name_bounds(column: str, quantity: Quantity, per: int | None = None) -> _Row:
    """A quantity as columns: `column` has {} where the bound is named. `per`: in whole parts of its unit."""
    values = (quantity.value, quantity.low, quantity.high)
    return {
        column.format(bound): value if per is None else round(value * per)
        for bound, value in zip(BOUNDS, values, strict=True)
    }


def _place_hosts(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[_Row]:
    hosts = con.execute("SELECT DISTINCT host FROM gpu ORDER BY 1").fetchall()
    rows = [{"host": host, "site": settings.find_site(host)} for (host,) in hosts]
    for row in rows:
        if row["site"] is None:
            raise SettingsError(
                f"host {row['host']!r} belongs to no site",
                where="wattledger.toml",
                remedy='Add it to the hosts of a [[site]], for example hosts = ["*"]',
            )
    return rows


def _describe_site(site: Site, factors: Sequence[Factor]) -> _Row:
    quantities, _ = choose_site_quantities(factors, site)
    return {
        "site": site.name,
        "zone": site.zone,
        **_name_bounds("pue{}", quantities["pue"]),
        **_name_bounds("wue{}_l_per_kwh", quantities["wue_l_per_kwh"]),
        **_name_bounds("overhead{}_mw_per_gpu", quantities["overhead_w"], per=1000),
        "valid_from": site.valid_from,
        "valid_to": site.valid_to,
        **_name_bounds("rest{}_mw_per_gpu", site.host_rest_w_per_gpu, per=1000),
        **_name_bounds("onsite_share{}", quantities["onsite_share"]),
        **_name_bounds("onsite{}_g_per_kwh", quantities["onsite_g_per_kwh"]),
        **_name_bounds("onsite{}_l_per_kwh", quantities["onsite_l_per_kwh"]),
        "server": site.server or None,
        "gpus_per_server": site.gpus_per_server,
        **_name_bounds("withdrawal_ratio{}", quantities["withdrawal_ratio"]),
    }


def _list_zones(settings: Settings) -> list[_Row]:
    rows = []
    for name in sorted({site.zone for site in settings.site} | set(settings.zones)):
        zone = settings.zones.get(name)
        loss = zone.transmission_loss if zone else None
        rows.append(
            {
                "zone": name,
                "country": find_country(settings, name) or None,
                "signal": zone.signal if zone else "average_lifecycle",
                "ladder": " ".join(settings.grid.ladder),
                **_name_bounds("loss{}", loss or _NOTHING),
            }
        )
    return rows


def _describe_contract(position: int, contract: Contract) -> _Row:
    energy_mwh = contract.energy_mwh
    return {
        "contract": contract.name,
        "position": position,
        "site": contract.site,
        "instrument": contract.instrument,
        "matching": contract.matching,
        "share": contract.share,
        "energy_kwh": None if energy_mwh is None else energy_mwh * 1000,
        **_name_bounds("intensity{}_g_per_kwh", contract.intensity_g_per_kwh),
        "valid_from": contract.valid_from,
        "valid_to": contract.valid_to,
        "source": contract.source or "wattledger.toml",
    }


def _describe_tariff(position: int, tariff: Tariff, currency: str) -> _Row:
    return {
        "site": tariff.site,
        "position": position,
        "price_per_kwh": tariff.price_per_kwh,
        "currency": currency,
        "from_hour": tariff.from_hour,
        "to_hour": tariff.to_hour,
        "weekdays": " ".join(tariff.weekdays),
        "tz": tariff.tz,
        "valid_from": tariff.valid_from,
        "valid_to": tariff.valid_to,
        "source": tariff.source or "wattledger.toml",
    }


def _list_deliveries(settings: Settings, contract: Contract) -> list[_Row]:
    """What a contract delivered: its volume evenly over its time, or interval by interval."""
    if contract.energy_mwh is not None:
        times = contract.valid_from, contract.valid_to
        return [_describe_delivery(contract, *times, contract.energy_mwh * 1000)]
    if not contract.deliveries:
        return []
    path = settings.root / contract.deliveries
    rows = [
        _describe_delivery(contract, start, end, energy_kwh)
        for start, end, energy_kwh in sorted(_read_deliveries(path, contract.name))
    ]
    for row, next_row in itertools.pairwise(rows):
        if next_row["valid_from"] < row["valid_to"]:
            raise BadInput(
                f"deliveries overlap from {next_row['valid_from']:%Y-%m-%dT%H:%MZ}",
                where=str(path),
                remedy="Give each hour once",
            )
    return rows


def _describe_delivery(
    contract: Contract, start: datetime, end: datetime, energy_kwh: float
) -> _Row:
    return {
        "contract": contract.name,
        "valid_from": start,
        "valid_to": end,
        "energy_kwh": energy_kwh,
    }


def _read_deliveries(path: Path, contract: str) -> Iterator[tuple[datetime, datetime, float]]:
    """The rows of a file of deliveries: start, end and energy in kWh."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(
            f"cannot read the deliveries of contract {contract!r}: {error}",
            where=str(path),
            remedy="It should be CSV with valid_from, valid_to and energy_kwh",
        ) from None
    for number, line in enumerate(lines, 2):
        start, end = (
            _parse_delivery_time(path, number, line, column)
            for column in ("valid_from", "valid_to")
        )
        text = line.get("energy_kwh") or ""
        try:
            energy_kwh = float(text)
        except ValueError:
            energy_kwh = -1
        if not 0 <= energy_kwh < 1e12 or start >= end:
            raise BadInput(
                "an interval needs an end after its start and an energy of 0 kWh or more",
                where=locate(path, number, "energy_kwh", text),
                remedy="Fix that row",
            )
        yield start, end, energy_kwh


def _parse_delivery_time(path: Path, number: int, line: dict[str, str], column: str) -> datetime:
    time = parse_time(line.get(column) or "", column, locate(path, number), "UTC")
    if time is None:
        raise BadInput("no time", where=locate(path, number, column), remedy="Fill it in")
    return time


def _select_factors(settings: Settings, factors: Sequence[Factor]) -> list[Factor]:
    """All factors, but of countries only those of the configured zones."""
    zones = {site.zone for site in settings.site} | set(settings.zones)
    places = zones | {find_country(settings, zone) for zone in zones} | {WORLD}
    return [
        factor
        for factor in factors
        if factor.factor not in COUNTRY_FACTORS.values() or factor.scope in places
    ]
