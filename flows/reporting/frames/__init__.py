"""Reporting frames: the published figures in the forms that others ask for (docs/frames.md).

Each frame is a list of entries, and an entry is where a figure comes from: the queries and the page
of docs are made from the same list.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from flows import __version__
from flows.errors import UsageError
from flows.warehouse.frames import query_rows
from transforms.constants import BOUNDS


@dataclass(frozen=True)
class Entry:
    """One figure or field of a frame.

    `value` is SQL; with `{}` in it, its low and high are that with `_low` and `_high` put in. An
    empty one is what the ledger can't know.
    """

    field: str
    value: str
    unit: str
    remark: str

    def sql(self, bound: str) -> str:
        if not self.value or (bound and "{}" not in self.value):
            return "NULL"
        return self.value.replace("{}", bound)


@dataclass(frozen=True)
class Frame:
    """A form of report. `per`: one report of a period, or one of each family or run."""

    name: str
    title: str
    about: str
    per: str
    entries: tuple[Entry, ...]


def _slots(column: str, scale: str) -> str:
    return f"sum({column}) / {scale}"


_T, _M3, _MWH = "1e12", "1e9", "3.6e12"
"""How many ug are a tonne, uL a cubic metre, mJ a MWh."""

_EMBODIED = (
    "Amortised over the hours of use; the Corporate Value Chain Standard books all of it in the year of "
    "purchase, so take care not to count it twice"
)

GHG = Frame(
    "ghg-protocol",
    "GHG Protocol: inventory by scope",
    "Corporate Standard, Scope 2 Guidance, Corporate Value Chain Standard. Of the period: runs, idle and unallocated.",
    "period",
    (
        Entry("Scope 1", _slots("co2e_scope1{}_ug", _T), "t CO2e", "Generation on site"),
        Entry(
            "Scope 2, location-based", _slots("co2e{}_ug", _T), "t CO2e", "Purchased electricity"
        ),
        Entry(
            "Scope 2, market-based",
            _slots("co2e_market{}_ug", _T),
            "t CO2e",
            "By contracts and residual mix; beside the location-based figure, never added to it",
        ),
        Entry(
            "Scope 3, category 2: capital goods",
            _slots("co2e_embodied{}_ug", _T),
            "t CO2e",
            f"Hardware. {_EMBODIED}",
        ),
        Entry(
            "Scope 3, category 3: fuel- and energy-related activities",
            _slots("co2e_losses{}_ug", _T),
            "t CO2e",
            "Grid losses, where `transmission_loss` is set. What is upstream of fuels is in life-cycle "
            "intensities (scope 2 here) unless the zone's signal is average_direct",
        ),
        Entry("Electricity from the grid", _slots("grid{}_mj", _MWH), "MWh", "Activity data"),
        Entry("Electricity generated on site", _slots("onsite_mj", _MWH), "MWh", "Activity data"),
    ),
)

ESRS = Frame(
    "esrs",
    "ESRS E1 (climate) and E3 (water): data points",
    "Commission Delegated Regulation (EU) 2023/2772, Annex I. Of the period: runs, idle and unallocated. Paragraph numbers are those of the text of 2023; later amendments are not looked at.",
    "period",
    (
        Entry(
            "E1-5 §37: total energy consumption",
            _slots("facility{}_mj", _MWH),
            "MWh",
            "Facility energy",
        ),
        Entry(
            "E1-5 §37 (a) to (c): from fossil, nuclear and renewable sources",
            "",
            "MWh",
            "Not in the ledger: it follows from the instruments by which the electricity was bought",
        ),
        Entry(
            "E1-5 §37: of it purchased electricity",
            _slots("grid{}_mj", _MWH),
            "MWh",
            "From the grid",
        ),
        Entry(
            "E1-5 §39: own production of energy",
            _slots("onsite_mj", _MWH),
            "MWh",
            "Generated on site",
        ),
        Entry(
            "E1-6 §48 (a): gross scope 1",
            _slots("co2e_scope1{}_ug", _T),
            "t CO2e",
            "On-site generation",
        ),
        Entry(
            "E1-6 §49 (a): gross scope 2, location-based",
            _slots("co2e{}_ug", _T),
            "t CO2e",
            "Purchased electricity",
        ),
        Entry(
            "E1-6 §49 (b): gross scope 2, market-based",
            _slots("co2e_market{}_ug", _T),
            "t CO2e",
            "By contracts and residual mix",
        ),
        Entry(
            "E1-6 §51: gross scope 3, of it capital goods",
            _slots("co2e_embodied{}_ug", _T),
            "t CO2e",
            f"Hardware. {_EMBODIED}",
        ),
        Entry(
            "E1-6 §51: gross scope 3, of it fuel- and energy-related",
            _slots("co2e_losses{}_ug", _T),
            "t CO2e",
            "Grid losses, where they are set",
        ),
        Entry(
            "E1-6 §52 (a): total, location-based",
            _slots("co2e_scope1{}_ug + co2e{}_ug + co2e_losses{}_ug + co2e_embodied{}_ug", _T),
            "t CO2e",
            "Of what the ledger counts",
        ),
        Entry(
            "E1-6 §52 (b): total, market-based",
            _slots(
                "co2e_scope1{}_ug + co2e_market{}_ug + co2e_losses{}_ug + co2e_embodied{}_ug", _T
            ),
            "t CO2e",
            "Of what the ledger counts",
        ),
        Entry(
            "E3-4 §28 (a): total water consumption",
            _slots("water_onsite{}_ul", _M3),
            "m³",
            "On site, in own operations",
        ),
        Entry(
            "E3-4 §28 (b): of it in areas at water risk",
            "",
            "m³",
            "Not in the ledger: it follows from where the sites are",
        ),
        Entry(
            "E3, value chain: water consumed in generating the electricity",
            _slots("water_offsite{}_ul", _M3),
            "m³",
            "Upstream; not in §28",
        ),
        Entry(
            "E3-4, beside it: water withdrawals",
            _slots("water_withdrawal{}_ul", _M3),
            "m³",
            "On site and in generating the electricity together",
        ),
    ),
)

AI_ACT = Frame(
    "eu-ai-act",
    "EU AI Act, Annex XI: energy and computational resources of a model",
    "Regulation (EU) 2024/1689, Annex XI, Section 1, point 2 (d) and (e). One report a family of runs.",
    "family",
    (
        Entry(
            "2 (e): energy consumption of the model",
            "sum(facility{}_kwh) / 1000",
            "MWh",
            "Facility energy of all its runs: training, development, evaluation, failed ones",
        ),
        Entry(
            "2 (e): of it measured",
            "sum(facility_kwh * facility_measured_share) / nullif(sum(facility_kwh), 0)",
            "share",
            "The rest is estimated; see data_quality and the validation report",
        ),
        Entry(
            "2 (e): of it final training runs that completed",
            "sum(facility{}_kwh) FILTER (phase = 'training' AND outcome = 'completed') / 1000",
            "MWh",
            "Labels `phase` and `outcome`",
        ),
        Entry(
            "2 (d): computational resources",
            "sum(gpu_hours)",
            "GPU-hours",
            "GPU time held, weighted by share",
        ),
        Entry(
            "2 (d): training time",
            "epoch(max(ended_at) - min(started_at)) / 3600",
            "h",
            "From the first start to the last end of its runs; floating point operations are not metered",
        ),
        Entry(
            "CO2e of all scopes counted",
            "sum(co2e_total{}_kg) / 1000",
            "t CO2e",
            "Beyond what the Annex asks",
        ),
        Entry(
            "Water consumed",
            "sum(water_onsite{}_l + water_offsite{}_l) / 1000",
            "m³",
            "Beyond what the Annex asks",
        ),
    ),
)

_RUNS = """
    SELECT *, epoch(ended_at - started_at) AS duration, facility_kwh / nullif(it_kwh, 0) AS pue,
        co2e_scope1_kg + co2e_kg AS emissions
    FROM (
        -- A run that goes on is reported as far as its last slot.
        SELECT t.labels, s.* REPLACE (
            coalesce(s.ended_at, f.last_slot + INTERVAL 5 MINUTE) AS ended_at
        )
        FROM run_summary AS s
        JOIN run_footprint AS f ON f.run_id = s.run_id
        LEFT JOIN training_run AS t ON t.run_id = s.run_id
    )
"""
"""Runs, with the columns that several entries rest on."""
_GPU_MODEL = (
    "(SELECT string_agg(DISTINCT coalesce(model, 'GPU'), ', ') FROM gpu_energy AS g "
    "WHERE g.run_id = r.run_id AND g.kind = 'run')"
)
_ZONES = (
    "(SELECT string_agg(DISTINCT zone, ', ' ORDER BY zone) FROM footprint_slot AS s "
    "WHERE s.run_id = r.run_id AND s.kind = 'run')"
)

HUGGING_FACE = Frame(
    "hugging-face",
    "Hugging Face: `co2_eq_emissions` of a model card",
    "Metadata of a model card, in YAML. One block a run; put it into the card's front matter.",
    "run",
    (
        Entry(
            "emissions",
            "emissions * 1000",
            "g CO2e",
            "Scope 1 and 2, location-based, facility energy; embodied emissions are not in it",
        ),
        Entry(
            "source",
            "'Wattledger ' || $version || ', ' || $publication",
            "",
            "Version and publication",
        ),
        Entry(
            "training_type",
            "coalesce(labels ->> '$.training_type', CASE WHEN phase = 'training' THEN 'pre-training' ELSE phase END)",
            "",
            "Label `training_type` (pre-training, fine-tuning), else the phase",
        ),
        Entry(
            "geographical_location",
            f"coalesce(labels ->> '$.location', {_ZONES})",
            "",
            "Label `location`, else the grid zone",
        ),
        Entry(
            "hardware_used",
            f"gpus || ' x ' || coalesce({_GPU_MODEL}, 'GPU')",
            "",
            "GPUs that took part",
        ),
    ),
)

CODECARBON = Frame(
    "codecarbon",
    "codecarbon: emissions.csv",
    "The columns of codecarbon 3's emissions.csv, a line a run, so that what reads it reads our figures. Energies are "
    "multiplied by the PUE, as codecarbon does; CPU and memory and what the site adds are one figure here.",
    "run",
    (
        Entry(
            "timestamp",
            "strftime(ended_at, '%Y-%m-%dT%H:%M:%S')",
            "",
            "End of the run, UTC; of one that goes on, of its last slot",
        ),
        Entry("project_name", "coalesce(name, run_id)", "", "name"),
        Entry("run_id", "run_id", "", "run_id"),
        Entry("experiment_id", "coalesce(family, '')", "", "family"),
        Entry("duration", "duration", "s", "From start to end"),
        Entry("emissions", "emissions", "kg", "Scope 1 and 2, location-based"),
        Entry("emissions_rate", "emissions / nullif(duration, 0)", "kg/s", "emissions / duration"),
        Entry(
            "cpu_power",
            "(it_kwh - energy_kwh) / nullif(duration, 0) * 3.6e6",
            "W",
            "Mean, without PUE",
        ),
        Entry("gpu_power", "energy_kwh / nullif(duration, 0) * 3.6e6", "W", "Mean, without PUE"),
        Entry("ram_power", "0.0", "W", "In cpu_power"),
        Entry("cpu_energy", "(it_kwh - energy_kwh) * pue", "kWh", "(it_kwh - energy_kwh) × PUE"),
        Entry("gpu_energy", "energy_kwh * pue", "kWh", "energy_kwh × PUE"),
        Entry("ram_energy", "0.0", "kWh", "In cpu_energy"),
        Entry("energy_consumed", "facility_kwh", "kWh", "facility_kwh"),
        Entry("water_consumed", "water_onsite_l", "L", "On site, as codecarbon's energy × WUE"),
        Entry("country_name", "''", "", "Not in the ledger"),
        Entry("country_iso_code", "''", "", "Not in the ledger: a zone may be a part of a country"),
        Entry("region", f"coalesce({_ZONES}, '')", "", "Grid zone"),
        Entry("cloud_provider", "''", "", "Not in the ledger"),
        Entry("cloud_region", "''", "", "Not in the ledger"),
        Entry("os", "''", "", "Not in the ledger"),
        Entry("python_version", "''", "", "Not in the ledger"),
        Entry("codecarbon_version", "'wattledger-' || $version", "", "Version of Wattledger"),
        Entry("cpu_count", "''", "", "Not in the ledger"),
        Entry("cpu_model", "''", "", "Not in the ledger"),
        Entry("gpu_count", "gpus", "", "GPUs that took part"),
        Entry(
            "gpu_model",
            f"gpus || ' x ' || coalesce({_GPU_MODEL}, 'GPU')",
            "",
            "As codecarbon writes it",
        ),
        Entry("longitude", "''", "", "Not in the ledger"),
        Entry("latitude", "''", "", "Not in the ledger"),
        Entry("ram_total_size", "''", "", "Not in the ledger"),
        Entry("tracking_mode", "'machine'", "", "Whole GPUs and hosts, by allocation"),
        Entry("cpu_utilization_percent", "''", "", "Not in the ledger"),
        Entry("gpu_utilization_percent", "''", "", "Not in the ledger"),
        Entry("ram_utilization_percent", "''", "", "Not in the ledger"),
        Entry("ram_used_gb", "''", "", "Not in the ledger"),
        Entry("on_cloud", "'N'", "", "Not in the ledger"),
        Entry("pue", "pue", "", "facility_kwh / it_kwh"),
        Entry("wue", "water_onsite_l / nullif(it_kwh, 0)", "L/kWh", "water_onsite_l / it_kwh"),
    ),
)

FRAMES = {frame.name: frame for frame in (GHG, ESRS, AI_ACT, HUGGING_FACE, CODECARBON)}


@dataclass(frozen=True)
class Asked:
    """Which part of the ledger: a period of slots, a family, a run; all of it where left out."""

    first: datetime | None = None
    last: datetime | None = None
    family: str = ""
    run: str = ""


def report(con: duckdb.DuckDBPyConnection, frame: Frame, asked: Asked) -> list[dict[str, Any]]:
    """The reports of a frame from a published file.

    Gives subject and entries (field, value, low, high, unit, remark) for each period, family or run.

    Raises:
        UsageError: there is nothing of what was asked for, or it is not what the frame is about.
    """
    useless = {
        "--from and --to": frame.per != "period" and (asked.first or asked.last),
        "--family": frame.per != "family" and asked.family,
        "--run": frame.per != "run" and asked.run,
    }
    for option, given in useless.items():
        if given:
            raise UsageError(
                f"{option} makes no sense here: it is one report a {frame.per}", where=frame.name
            )
    found = query_rows(con, *_query(con, frame, asked))
    if not found or (frame.per == "period" and found[0]["slots"] == 0):
        raise UsageError(
            "nothing is published for that period, family or run",
            where=frame.name,
            remedy='`wattledger query "SELECT run_id, family, started_at FROM run_summary"` shows what there is',
        )
    return [
        {
            "subject": row["subject"],
            "entries": [
                {
                    "field": entry.field,
                    "value": row[f"v{n}"],
                    "low": row[f"low{n}"],
                    "high": row[f"high{n}"],
                    "unit": entry.unit,
                    "remark": entry.remark,
                }
                for n, entry in enumerate(frame.entries)
            ],
        }
        for row in found
    ]


def _query(
    con: duckdb.DuckDBPyConnection, frame: Frame, asked: Asked
) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {}
    columns = []
    for n, entry in enumerate(frame.entries):
        columns.append(f"{entry.sql('')} AS v{n}")
        columns += [f"{entry.sql(bound)} AS {bound[1:]}{n}" for bound in BOUNDS[1:]]
    if frame.per == "period":
        tests = ["true"]
        if asked.first:
            tests.append("slot_start >= $first")
            values["first"] = asked.first
        if asked.last:
            tests.append("slot_start < $last")
            values["last"] = asked.last
        subject = "strftime(min(slot_start), '%Y-%m-%d %H:%MZ') || ' to ' || strftime(max(slot_start) + INTERVAL 5 MINUTE, '%Y-%m-%d %H:%MZ')"
        source = f"footprint_slot WHERE {' AND '.join(tests)}"
        columns.append("count(*) AS slots")
    elif frame.per == "family":
        subject = "coalesce(family, '(no family)')"
        source = "run_summary"
        if asked.family:
            source += " WHERE family = $family"
            values["family"] = asked.family
        source += " GROUP BY family ORDER BY sum(facility_kwh) DESC"
    else:
        subject = "r.run_id"
        source = f"({_RUNS}) AS r"
        if asked.run:
            source += " WHERE r.run_id = $run"
            values["run"] = asked.run
        source += " ORDER BY r.started_at, r.run_id"
    said = ", ".join(columns)
    if "$version" in said:
        values["version"] = __version__
    if "$publication" in said:
        values["publication"] = published(con)["publication_id"]
    return f"SELECT {subject} AS subject, {said} FROM {source}", values


def published(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The publication that a file is."""
    return query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")[0]


def as_csv(frame: Frame, reports: Sequence[Mapping[str, Any]]) -> str:
    """One line a run with its fields as columns, or one line an entry."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if frame.per == "run":
        writer.writerow(entry.field for entry in frame.entries)
        for one in reports:
            writer.writerow(_harmless(entry["value"]) for entry in one["entries"])
    else:
        names = ("field", "value", "low", "high", "unit", "remark")
        writer.writerow(("subject", *names))
        for one in reports:
            for entry in one["entries"]:
                cells = (one["subject"], *(entry[name] for name in names))
                writer.writerow(_harmless(cell) for cell in cells)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """A cell that a spreadsheet takes for text, whatever somebody called their run."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_yaml(reports: Sequence[Mapping[str, Any]]) -> str:
    """Blocks of a model card's front matter, each after a comment that names its run."""
    lines = []
    for one in reports:
        lines += [f"# {json.dumps(one['subject'], ensure_ascii=False)}", "co2_eq_emissions:"]
        for entry in one["entries"]:
            value = entry["value"]
            # JSON is YAML, and quotes what needs it.
            text = (
                f"{value:.6g}"
                if isinstance(value, float)
                else json.dumps(value, ensure_ascii=False)
            )
            lines.append(f"  {entry['field']}: {text}")
    return "\n".join(lines) + "\n"
