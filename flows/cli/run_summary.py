"""What a run drew, right after it: `python -m flows.cli.run_summary RECORD [PROJECT]` prints JSON.

The ledger's own computation on a scratch database that holds this run alone: the readings of the
spool and, with a project, its sites, factors and grid data. Only this host's part of the run, and not
checked by the gate: the figures that count are those that the pipeline publishes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.accounting import stretches
from flows.accounting.compute import candidate
from flows.accounting.energy import gap_rule
from flows.accounting.inputs import configure
from flows.errors import WattledgerError
from flows.factors import effective
from flows.ingest.gpu_store import POWER_SOURCE_CODE
from flows.reporting.numbers import format_number, format_percent, format_range
from flows.settings import Quantity, Settings, Site, Zone, load
from flows.sources.gpu import spool as spool_source
from flows.sources.gpu.segments import COLUMNS
from flows.sources.runs.records import list_devices
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import query_rows, register
from flows.warehouse.schema import migrate
from flows.warehouse.store import store_of
from transforms.constants import PPM
from transforms.schema import in_role
from wattledger.runs.records import Record, load_record, utc_now
from wattledger.spool.spool import Spool

_MARGIN = timedelta(seconds=60)
"""Readings before the start and after the end that close the first and last interval."""
_NOTHING = Quantity(value=0, low=0, high=0)


def preview(record: Record, project: Path | None = None) -> dict[str, Any]:
    """Energy of a run's GPUs on this host and, with a project, CO2e and water.

    Gives run_id, seconds, exit_code, gpus, whole_host_kwh, whole_host_modelled, and where GPUs were read the
    columns of `run_summary`; `factors` says why CO2e and water are missing, if they are.
    """
    first = datetime.fromisoformat(record.started_at)
    last = datetime.fromisoformat(record.ended_at or utc_now())
    spool = Spool(Path(record.readings), record.host)
    shares: dict[str, int] = {}
    for held in list_devices(record):
        shares[held.gpu_uuid] = min(PPM, shares.get(held.gpu_uuid, 0) + held.share_ppm)
    found = spool_source.read_readings(spool, shares, first - _MARGIN, last + _MARGIN)
    hosts = spool_source.read_host_readings(spool, first, last)
    summary: dict[str, Any] = {
        "run_id": record.run_id,
        "seconds": (last - first).total_seconds(),
        "exit_code": record.exit_code,
        "gpus": len(record.gpus),
        "factors": "",
        **_host(hosts, first, last),
    }
    if found.is_empty() and (record.gpus or hosts.is_empty()):
        return summary
    seen = _Seen(record, found, hosts, spool.read_status().get("gpus", []), shares, first, last)
    try:
        settings = load(project) if project else None
        row = _figures(seen, settings)
    except WattledgerError as error:
        summary["factors"] = str(error)
        row = _figures(seen, None)
        settings = None
    if settings is None:
        row = {k: v for k, v in row.items() if k.startswith(("energy_", "gpu_", "gap_", "filled_"))}
        summary["factors"] = summary["factors"] or "no project names this host's site and grid"
    return {**summary, **row}


@dataclass(frozen=True)
class _Seen:
    """What is known of a run on this host."""

    record: Record
    readings: pl.DataFrame
    host_readings: pl.DataFrame
    gpus: list[dict[str, Any]]
    """All GPUs of the host, as its collector lists them."""
    shares: dict[str, int]
    first: datetime
    last: datetime


def _host(found: pl.DataFrame, first: datetime, last: datetime) -> dict[str, Any]:
    """Energy of CPU and memory of the whole host during the run, spread evenly over intervals."""
    if found.is_empty():
        return {}
    begin, end = (round(moment.timestamp() * 1_000_000) for moment in (first, last))
    ends = pl.col("ts").to_physical()
    part = (pl.min_horizontal(ends, end) - pl.max_horizontal(ends - pl.col("span_us"), begin)).clip(
        0
    )
    energy = found.select(
        "is_modelled",
        "component",
        "method",
        mj=pl.col("energy_mj") * part // pl.col("span_us"),
        seen_us=part,
    )
    return {
        "whole_host_kwh": float(energy["mj"].sum()) / 3.6e9,
        "whole_host_modelled": sorted(energy.filter("is_modelled")["component"].unique()),
        "whole_host_seen_s": float(energy.filter(pl.col("component") == "cpu")["seen_us"].sum())
        / 1e6,
        "whole_host_methods": sorted(energy["method"].unique()),
    }


def _figures(seen: _Seen, settings: Settings | None) -> dict[str, Any]:
    """The row of run_summary that a ledger with nothing but this run would have.

    Raises:
        WattledgerError: the project does not know the host's site or its grid.
    """
    con = connect_in_memory()
    try:
        migrate(con, "the run's summary")
        chosen = settings or _no_factors()
        factors = effective(chosen)
        _fill(con, seen)
        if settings is not None:
            _copy_grid(con, settings)
        configure(con, chosen, factors)
        rule = gap_rule(chosen)
        partials = stretches.partials_of_readings(con, rule, lambda n: None)
        tables = candidate(con, chosen, factors, partials)
        con.register("computed", tables["run_footprint"].to_arrow())
        con.execute("INSERT INTO run_footprint BY NAME FROM computed")
        return query_rows(con, "FROM run_summary")[0]
    finally:
        con.close()


def _no_factors() -> Settings:
    """A site that adds nothing: only the energy of its figures means something."""
    site = Site(
        name="here", zone="here", pue=Quantity(value=1, low=1, high=1), wue_l_per_kwh=_NOTHING
    )
    return Settings(site=[site], zones={"here": Zone(fallback_intensity_g_per_kwh=_NOTHING)})


def _fill(con: duckdb.DuckDBPyConnection, seen: _Seen) -> None:
    record = seen.record
    found = {held.gpu_uuid: (held.gpu_index, held.model) for held in list_devices(record)}
    found |= {gpu["uuid"]: (gpu["index"], gpu["model"]) for gpu in seen.gpus}
    con.executemany(
        "INSERT INTO gpu VALUES (?, ?, ?, ?, ?)",
        [[key, uuid, record.host, *of] for key, (uuid, of) in enumerate(sorted(found.items()), 1)],
    )
    con.executemany(
        "INSERT INTO run_allocation VALUES (?, ?, ?, ?, ?, now(), NULL)",
        [
            [record.run_id, uuid, seen.first, seen.last, share]
            for uuid, share in sorted(seen.shares.items())
        ],
    )
    con.execute(
        "INSERT INTO training_run VALUES (?, ?, ?, NULL, ?, ?, '{}', '', now(), NULL)",
        [record.run_id, record.name, record.owner, seen.first, seen.last],
    )
    with register(con, found=seen.readings.select(list(COLUMNS))):
        con.execute(
            "INSERT INTO gpu_reading BY NAME SELECT gpu_key, ts, power_mw, energy_mj, "
            f"{POWER_SOURCE_CODE} AS power_source_code, "
            "0 AS segment_key FROM found AS s JOIN gpu USING (gpu_uuid) ORDER BY gpu_key, ts"
        )
    with register(con, found=seen.host_readings):
        con.execute("INSERT INTO host_reading BY NAME SELECT *, 0 AS segment_key FROM found")


def _copy_grid(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """The grid data of the project's warehouse, if it has one that nobody is writing."""
    if not store_of(settings).exists():
        return
    source = store_of(settings).connect(read_only=True)
    try:
        for name in in_role("grid"):
            with register(con, copied=source.execute(f"FROM {name}").to_arrow_table()):
                con.execute(f"INSERT INTO {name} FROM copied")
    finally:
        source.close()


def said(summary: dict[str, Any], record: Record) -> list[str]:
    """The summary in a few lines."""
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    lasted = " ".join(
        f"{value} {unit}"
        for value, unit in ((hours, "h"), (minutes, "min"), (seconds, "s"))
        if value or unit == "s"
    )
    code = summary["exit_code"]
    end = f"exit code {code}" if record.ended_by == "exit" else f"ended by {record.ended_by}"
    lines = [
        f"run {record.run_id}: {summary['gpus']} GPU{'s' * (summary['gpus'] != 1)} "
        f"of {record.host}, {lasted}, {end}"
    ]
    if "energy_kwh" in summary and summary["gpus"]:
        watts = summary["energy_kwh"] * 3.6e6 / max(summary["seconds"], 1e-9)
        lines.append(
            f"  GPU energy  {_energy(summary['energy_kwh'])} "
            f"({_energy(summary['energy_low_kwh'])} to {_energy(summary['energy_high_kwh'])}), "
            f"{format_percent(summary['energy_measured_share'])} measured, {format_number(watts)} W on average"
        )
    elif summary["gpus"]:
        lines.append("  no GPU reading falls into the run")
    if "whole_host_kwh" in summary:
        modelled = summary["whole_host_modelled"]
        how = "measured" if not modelled else f"{' and '.join(modelled)} estimated by codecarbon"
        unseen = summary["seconds"] - summary["whole_host_seen_s"]
        part = f", {unseen:.0f} s of it not seen" if unseen >= 1 else ""
        lines.append(
            f"  CPU, memory {_energy(summary['whole_host_kwh'])} of the whole host, {how}{part}"
        )
    if summary.get("co2e_kg") is not None:
        low, high = summary["co2e_low_kg"] * 1000, summary["co2e_high_kg"] * 1000
        lines.append(
            f"  CO2e        {format_number(summary['co2e_kg'] * 1000)} g ({format_range(low, high)})"
        )
        lines.append(
            f"  water       {format_number(summary['water_onsite_l'])} L on site, "
            f"{format_number(summary['water_offsite_l'])} L in generation"
        )
        lines.append("  a preview: the figures that count are those the pipeline publishes")
    elif summary["factors"]:
        lines.append(f"  CO2e and water: {summary['factors']}")
    return lines


def _energy(kwh: float) -> str:
    return f"{format_number(kwh)} kWh" if kwh >= 0.1 else f"{format_number(kwh * 1000)} Wh"


def main(words: list[str]) -> int:
    """Print the summary as JSON; `lines` holds it for people."""
    record = load_record(Path(words[0]))
    summary = preview(record, Path(words[1]) if len(words) > 1 else None)
    summary["lines"] = said(summary, record)
    print(json.dumps(summary, default=_plain))
    return 0


def _plain(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
