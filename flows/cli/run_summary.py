"""Summarize a run right after it: `python -m flows.cli.run_summary RECORD FOLDER [PROJECT]` prints JSON.

The ledger's own computation runs on a scratch database that holds this run alone: the readings of the
spool and, with a project, its sites, factors and grid data. The summary covers only this host's part of
the run and passes no gate: the figures that count are those that the pipeline publishes.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from flows.accounting.candidate import compute_candidate
from flows.accounting.inputs import write_inputs
from flows.accounting.stretches import read_gap_rule, reduce_all_readings
from flows.errors import WattledgerError
from flows.factors import read_factors
from flows.ingest.gpu_store import POWER_SOURCE_CODE
from flows.reporting.numbers import format_number, format_percent, format_range
from flows.settings import Quantity, Settings, Site, Zone, load
from flows.sources.gpu import spool as spool_source
from flows.sources.gpu.segments import COLUMNS
from flows.sources.runs.records import list_devices
from flows.warehouse.connection import connect_in_memory
from flows.warehouse.frames import insert, query_rows, register
from flows.warehouse.schema import migrate
from flows.warehouse.store import store_of
from transforms.constants import PPM
from transforms.schema import in_role
from wattledger.runs.records import Record, load_record, utc_now
from wattledger.spool.spool import Spool

_MARGIN = timedelta(seconds=60)
"""Readings before the start and after the end that close the first and last interval."""
_OF_ENERGY = ("energy_", "gpu_", "gap_", "filled_")
"""How figures begin that rest on readings alone."""
_NOTHING = Quantity(value=0, low=0, high=0)


def summarize_run(record: Record, folder: Path, project: Path | None = None) -> dict[str, Any]:
    """Compute the energy of a run's GPUs on this host and, with a project, CO2e and water.

    Args:
        record: What the run recorded of itself.
        folder: The folder of its host in the spool; no field of a record is believed to name it.
        project: Folder of a project that knows this host's site and grid.

    Returns:
        run_id, seconds, exit_code, gpus; `whole_host_*` where CPU and memory were read; the columns of
        `run_summary` where GPUs were read; `factors` says why CO2e and water are missing, if they are.
    """
    evidence = _collect_evidence(record, Spool(folder.parent, folder.name))
    summary: dict[str, Any] = {
        "run_id": record.run_id,
        "seconds": (evidence.last - evidence.first).total_seconds(),
        "exit_code": record.exit_code,
        "gpus": len(record.gpus),
        "factors": "",
        **_sum_host_energy(evidence.host_readings, evidence.first, evidence.last),
    }
    if evidence.readings.is_empty() and (record.gpus or evidence.host_readings.is_empty()):
        return summary
    try:
        settings = load(project) if project else None
        figures = _compute_figures(evidence, settings)
    except WattledgerError as error:
        summary["factors"] = str(error)
        figures = _compute_figures(evidence, None)
        settings = None
    if settings is None:
        figures = {name: value for name, value in figures.items() if name.startswith(_OF_ENERGY)}
        summary["factors"] = summary["factors"] or "no project names this host's site and grid"
    return {**summary, **figures}


@dataclass(frozen=True)
class _Evidence:
    """What is known of a run on this host."""

    record: Record
    readings: pl.DataFrame
    host_readings: pl.DataFrame
    gpus: list[dict[str, Any]]
    """All GPUs of the host, as its collector lists them."""
    shares: dict[str, int]
    """How much of each GPU the run held, in ppm."""
    first: datetime
    last: datetime


def _collect_evidence(record: Record, spool: Spool) -> _Evidence:
    """Read what the spool holds of a run."""
    first = datetime.fromisoformat(record.started_at)
    last = datetime.fromisoformat(record.ended_at or utc_now())
    shares: dict[str, int] = {}
    for device in list_devices(record):
        shares[device.gpu_uuid] = min(PPM, shares.get(device.gpu_uuid, 0) + device.share_ppm)
    return _Evidence(
        record,
        spool_source.read_readings(spool, shares, first - _MARGIN, last + _MARGIN),
        spool_source.read_host_readings(spool, first, last),
        spool.read_status().get("gpus", []),
        shares,
        first,
        last,
    )


def _sum_host_energy(readings: pl.DataFrame, first: datetime, last: datetime) -> dict[str, Any]:
    """Sum the energy of CPU and memory of the whole host during the run, spread evenly over intervals."""
    if readings.is_empty():
        return {}
    begin, end = (round(moment.timestamp() * 1_000_000) for moment in (first, last))
    interval_end = pl.col("ts").to_physical()
    interval_begin = interval_end - pl.col("span_us")
    inside = pl.min_horizontal(interval_end, end) - pl.max_horizontal(interval_begin, begin)
    energy = readings.select(
        "is_modelled",
        "component",
        "method",
        mj=pl.col("energy_mj") * inside.clip(0) // pl.col("span_us"),
        seen_us=inside.clip(0),
    )
    cpu = energy.filter(pl.col("component") == "cpu")
    return {
        "whole_host_kwh": float(energy["mj"].sum()) / 3.6e9,
        "whole_host_modelled": sorted(energy.filter("is_modelled")["component"].unique()),
        "whole_host_seen_s": float(cpu["seen_us"].sum()) / 1e6,
        "whole_host_methods": sorted(energy["method"].unique()),
    }


def _compute_figures(evidence: _Evidence, settings: Settings | None) -> dict[str, Any]:
    """Compute the row of `run_summary` that a ledger with nothing but this run would have.

    Raises:
        WattledgerError: the project does not know the host's site or its grid.
    """
    with closing(connect_in_memory()) as con:
        migrate(con, "the run's summary")
        in_force = settings or _settings_that_add_nothing()
        factors = read_factors(in_force)
        _insert_evidence(con, evidence)
        if settings is not None:
            _copy_grid(con, settings)
        write_inputs(con, in_force, factors)
        rule = read_gap_rule(in_force)
        stretches = reduce_all_readings(con, rule)
        tables = compute_candidate(con, in_force, factors, stretches)
        insert(con, "run_footprint", tables["run_footprint"])
        return query_rows(con, "FROM run_summary")[0]


def _settings_that_add_nothing() -> Settings:
    """Make a site of which only the energy of GPUs means something."""
    site = Site(
        name="here", zone="here", pue=Quantity(value=1, low=1, high=1), wue_l_per_kwh=_NOTHING
    )
    return Settings(site=[site], zones={"here": Zone(fallback_intensity_g_per_kwh=_NOTHING)})


def _insert_evidence(con: duckdb.DuckDBPyConnection, evidence: _Evidence) -> None:
    record = evidence.record
    gpus = {
        device.gpu_uuid: (device.gpu_index, device.model) for device in list_devices(record)
    } | {gpu["uuid"]: (gpu["index"], gpu["model"]) for gpu in evidence.gpus}
    insert(
        con,
        "gpu",
        [
            {"gpu_key": key, "gpu_uuid": uuid, "host": record.host, "gpu_index": at, "model": model}
            for key, (uuid, (at, model)) in enumerate(sorted(gpus.items()), 1)
        ],
    )
    insert(
        con,
        "run_allocation",
        [
            {
                "run_id": record.run_id,
                "gpu_uuid": uuid,
                "from_ts": evidence.first,
                "to_ts": evidence.last,
                "share_ppm": share,
            }
            for uuid, share in sorted(evidence.shares.items())
        ],
        loaded_at="now()",
    )
    run = {
        "run_id": record.run_id,
        "name": record.name,
        "owner": record.owner,
        "started_at": evidence.first,
        "ended_at": evidence.last,
        "labels": "{}",
        "source_name": "",
    }
    insert(con, "training_run", [run], loaded_at="now()")
    with register(con, spool_reading=evidence.readings.select(list(COLUMNS))):
        con.execute(
            "INSERT INTO gpu_reading BY NAME SELECT gpu_key, ts, power_mw, energy_mj, "
            f"{POWER_SOURCE_CODE} AS power_source_code, "
            "0 AS segment_key FROM spool_reading AS s JOIN gpu USING (gpu_uuid) ORDER BY gpu_key, ts"
        )
    insert(con, "host_reading", evidence.host_readings, segment_key="0")


def _copy_grid(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Copy the grid data of the project's warehouse, if it has one that nobody is writing."""
    store = store_of(settings)
    if not store.exists():
        return
    with closing(store.connect(read_only=True)) as source:
        for name in in_role("grid"):
            insert(con, name, source.execute(f"FROM {name}").to_arrow_table())


def format_summary(summary: dict[str, Any], record: Record) -> list[str]:
    """Write a summary as a few lines for people.

    Args:
        summary: What `summarize_run` gives.
        record: What the run recorded of itself.
    """
    code = summary["exit_code"]
    end = f"exit code {code}" if record.ended_by == "exit" else f"ended by {record.ended_by}"
    lines = [
        f"run {record.run_id}: {summary['gpus']} GPU{'s' * (summary['gpus'] != 1)} "
        f"of {record.host}, {_format_duration(summary['seconds'])}, {end}"
    ]
    if "energy_kwh" in summary and summary["gpus"]:
        lines.append(_format_gpu_energy(summary))
    elif summary["gpus"]:
        lines.append("  no GPU reading falls into the run")
    if "whole_host_kwh" in summary:
        lines.append(_format_host_energy(summary))
    if summary.get("co2e_kg") is not None:
        low, high = summary["co2e_low_kg"] * 1000, summary["co2e_high_kg"] * 1000
        lines += [
            f"  CO2e        {format_number(summary['co2e_kg'] * 1000)} g ({format_range(low, high)})",
            f"  water       {format_number(summary['water_onsite_l'])} L on site, "
            f"{format_number(summary['water_offsite_l'])} L in generation",
            "  a preview: the figures that count are those the pipeline publishes",
        ]
    elif summary["factors"]:
        lines.append(f"  CO2e and water: {summary['factors']}")
    return lines


def _format_duration(seconds: float) -> str:
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return " ".join(
        f"{value} {unit}"
        for value, unit in ((hours, "h"), (minutes, "min"), (whole_seconds, "s"))
        if value or unit == "s"
    )


def _format_gpu_energy(summary: dict[str, Any]) -> str:
    watts = summary["energy_kwh"] * 3.6e6 / max(summary["seconds"], 1e-9)
    low, high = (_format_energy(summary[f"energy_{bound}_kwh"]) for bound in ("low", "high"))
    return (
        f"  GPU energy  {_format_energy(summary['energy_kwh'])} ({low} to {high}), "
        f"{format_percent(summary['energy_measured_share'])} measured, "
        f"{format_number(watts)} W on average"
    )


def _format_host_energy(summary: dict[str, Any]) -> str:
    modelled = summary["whole_host_modelled"]
    how = "measured" if not modelled else f"{' and '.join(modelled)} estimated by codecarbon"
    unseen = summary["seconds"] - summary["whole_host_seen_s"]
    gap = f", {unseen:.0f} s of it not seen" if unseen >= 1 else ""
    energy = _format_energy(summary["whole_host_kwh"])
    return f"  CPU, memory {energy} of the whole host, {how}{gap}"


def _format_energy(kwh: float) -> str:
    return f"{format_number(kwh)} kWh" if kwh >= 0.1 else f"{format_number(kwh * 1000)} Wh"


def main(words: list[str]) -> int:
    """Print the summary as JSON; `lines` holds it for people."""
    record = load_record(Path(words[0]))
    project = Path(words[2]) if len(words) > 2 else None
    summary = summarize_run(record, Path(words[1]), project)
    summary["lines"] = format_summary(summary, record)
    print(json.dumps(summary, default=_plain_text))
    return 0


def _plain_text(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
