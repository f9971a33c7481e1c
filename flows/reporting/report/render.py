"""Render a published file as two HTML pages: the report, and a summary on one page (no scripts, no network)."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from flows.reporting.numbers import format_number, format_percent, format_range
from flows.reporting.report import charts
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import load_query, query_rows
from transforms.constants import SLOT_US

if TYPE_CHECKING:
    from jinja2 import Environment

_GREEN, _PURPLE, _BLUE = "#2f6f4f", "#7a5c99", "#3b7ea1"
_WATER = {"on site": ("water_onsite_l", _BLUE), "off site": ("water_offsite_l", "#a9cfe3")}
"""Part of the water -> its column of run_summary, and its colour."""
_POINTS = 1500
"""Points along a time axis; longer series are averaged over equal lengths of time."""
_LARGEST = 6
"""Runs in the pictures of alternatives and sensitivity: those with the most CO2e."""

Row = dict[str, Any]


def write_report(database: Path, folder: Path, settings: Settings) -> None:
    """Write report.html and summary.html of a published file into a folder."""
    environment = _make_environment()
    shared = {
        "title": settings.project.title or settings.project.name,
        "style": resources.files("flows.reporting.report").joinpath("style.css").read_text("utf-8"),
    }
    con = connect(database, read_only=True)
    try:
        pages = {"report": _read_report(con), "summary": _read_summary(con)}
    finally:
        con.close()
    for name, content in pages.items():
        page = environment.get_template(f"{name}.html.j2").render(**shared, **content)
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


@cache
def _make_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("flows.reporting", "report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"sig": format_number, "percent": format_percent}
    environment.globals |= {"between": format_range}
    return environment


def _read_publication(con: duckdb.DuckDBPyConnection) -> Row:
    """The publication that the file holds."""
    return query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")[0]


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    [(count,)] = con.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


def _read_summary(con: duckdb.DuckDBPyConnection) -> Row:
    """What a person who signs wants on one page: verdicts, overrides, restatements, digests."""
    publication = _read_publication(con)
    parameters = {"id": publication["publication_id"]}
    results = query_rows(con, "FROM validation_result ORDER BY suite, check_name")
    for result in results:
        result["examples"] = _format_examples(result["examples"])
    return {
        "publication": publication,
        "fleet": query_rows(con, "FROM fleet_summary WHERE kind = 'run'"),
        "suites": query_rows(
            con,
            "SELECT r.suite, checked_rows, count(*) AS checks, count_if(c.success) AS passed "
            "FROM validation_run AS r JOIN validation_result AS c USING (validation_id) "
            "GROUP BY ALL ORDER BY 1",
        ),
        "results": results,
        "overrides": query_rows(con, "FROM gate_override WHERE publication_id = $id", parameters),
        "restated": query_rows(con, load_query("reporting/largest_restatements"), parameters),
        "restated_runs": con.execute(
            "SELECT count(*) FROM restatement WHERE publication_id = $id", parameters
        ).fetchall()[0][0],
        "refused": _count(con, "quarantine"),
        "signed_share": con.execute(_SIGNED_SHARE).fetchall()[0][0],
        "broken_chains": query_rows(con, "FROM segment_chain WHERE missing > 0 LIMIT 3"),
    }


_SIGNED_SHARE = """
    SELECT coalesce(sum(signed_share * energy_kwh) / nullif(sum(energy_kwh), 0), 0)
    FROM data_quality JOIN run_summary USING (run_id)
"""


def _format_examples(examples: str) -> list[str]:
    """The first two rows that a check did not expect, as text; takes them as JSON."""
    return [
        ", ".join(
            f"{key} {value}"
            for key, value in row.items()
            if value is not None and key != "segment_id"
        )
        for row in json.loads(examples)[:2]
    ]


def _read_report(con: duckdb.DuckDBPyConnection) -> Row:
    """What the report shows, by its name in the template."""
    declared = query_rows(con, "FROM run_summary")
    runs = [run for run in declared if run["energy_kwh"] is not None]
    publication = _read_publication(con)
    return {
        "publication": publication,
        "declared": declared,
        "runs": runs,
        "charts": _draw_charts(con, runs),
        **_read_figures(con),
        **_read_inputs(con),
        **_read_evidence(con, publication["publication_id"]),
    }


def _read_figures(con: duckdb.DuckDBPyConnection) -> Row:
    """Figures beside those of the runs."""
    return {
        "fleet": query_rows(con, "FROM fleet_summary"),
        "balance": query_rows(con, load_query("reporting/energy_balance"))[0],
        "cleaner": query_rows(con, load_query("reporting/cleanest_alternatives")),
        "families": query_rows(con, "FROM family_summary"),
        "idle": {row["run_id"]: row for row in query_rows(con, "FROM idle_spread")},
    }


def _read_inputs(con: duckdb.DuckDBPyConnection) -> Row:
    """What the figures rest on: sites, contracts, factors, grid and meters."""
    return {
        "sites": query_rows(con, "FROM site ORDER BY site, valid_from"),
        "contracts": query_rows(con, load_query("reporting/contract_coverage")),
        "factors": query_rows(con, _FACTORS_USED),
        "factor_count": _count(con, "factor"),
        "signals": query_rows(con, load_query("reporting/zone_signals")),
        "sources": query_rows(con, load_query("reporting/sources_by_energy")),
        "fetches": query_rows(
            con, "FROM grid_fetch WHERE outcome <> 'fetched' ORDER BY last_attempt_at DESC LIMIT 20"
        ),
        "meters": query_rows(con, "FROM meter_agreement"),
    }


def _read_evidence(con: duckdb.DuckDBPyConnection, publication_id: str) -> Row:
    """What vouches for the figures: checks, overrides, restatements, files and events."""
    parameters = {"id": publication_id}
    return {
        "overrides": query_rows(con, "FROM gate_override WHERE publication_id = $id", parameters),
        "restated": query_rows(con, load_query("reporting/restated_runs"), parameters),
        "quality": query_rows(con, "FROM data_quality"),
        "checks": query_rows(
            con,
            "SELECT suite, check_name, severity, statement, success, unexpected_rows "
            "FROM validation_result ORDER BY success, severity, suite, check_name",
        ),
        "checked": query_rows(con, "SELECT suite, checked_rows FROM validation_run ORDER BY suite"),
        "files": query_rows(
            con,
            "FROM segment ORDER BY verdict DESC, source_format, first_ts, source_name LIMIT 200",
        ),
        "file_count": _count(con, "segment"),
        "refused": query_rows(con, "FROM quarantine ORDER BY recorded_at"),
        "set_aside": query_rows(con, load_query("reporting/rows_set_aside")),
        "events": query_rows(con, load_query("reporting/collector_events")),
    }


_FACTORS_USED = """
    FROM factor AS f WHERE EXISTS (
        FROM factor_use AS u WHERE u.factor = f.factor AND u.scope = f.scope
    ) ORDER BY origin, factor, scope
"""


def _draw_charts(con: duckdb.DuckDBPyConnection, runs: list[Row]) -> dict[str, str]:
    """The pictures of the report, as SVG; those without data are empty or left out."""
    [(slots,)] = con.execute("SELECT count(DISTINCT slot_start) FROM footprint_slot").fetchall()
    axis = {"minutes": SLOT_US // 60_000_000 * max(1, -(-slots // _POINTS))}
    power = con.execute(load_query("reporting/power_over_time"), axis).pl()
    if not runs:
        return {"power": charts.draw_power(power)} if power.height else {}
    intensity = con.execute(load_query("reporting/intensity_over_time"), axis).pl()
    largest = {"runs": _LARGEST}
    alternatives = con.execute(load_query("reporting/alternatives_of_largest"), largest).pl()
    sensitivity = con.execute(load_query("reporting/sensitivity_of_largest"), largest).pl()
    return {
        **_draw_tornados(sensitivity),
        "alternatives": charts.draw_alternatives(alternatives) if alternatives.height else "",
        "power": charts.draw_power(power),
        "intensity": charts.draw_intensity(intensity) if intensity.height else "",
        **_draw_bars(runs),
    }


def _draw_tornados(sensitivity: pl.DataFrame) -> dict[str, str]:
    """What each input alone moves, of CO2e and of water."""

    def select_swings(total: str, low: str, high: str) -> pl.DataFrame:
        return sensitivity.select("run_id", "input", value=total, at_low=low, at_high=high).filter(
            (pl.col("value") > 0)
            & ((pl.col("at_low") != pl.col("value")) | (pl.col("at_high") != pl.col("value")))
        )

    swings = {
        "co2e": (
            select_swings("co2e_total_kg", "co2e_at_low_kg", "co2e_at_high_kg"),
            "CO2e",
            _PURPLE,
        ),
        "water": (select_swings("water_l", "water_at_low_l", "water_at_high_l"), "water", _BLUE),
    }
    return {
        f"tornado_{name}": charts.draw_tornado(frame, f"{title}, by each input alone", colour)
        for name, (frame, title, colour) in swings.items()
        if frame.height
    }


def _draw_bars(runs: list[Row]) -> dict[str, str]:
    """CO2e, energy and water of the runs."""
    co2e, energy = _select_bounded(runs, "co2e", "kg"), _select_bounded(runs, "facility", "kwh")
    return {
        "co2e": charts.draw_bounded_bars(co2e, "kg CO2e, location-based", _PURPLE),
        "energy": charts.draw_bounded_bars(energy, "facility energy, kWh", _GREEN),
        "water": charts.draw_stacked_bars(
            _select_water(runs),
            "litres of water consumed",
            {part: colour for part, (_, colour) in _WATER.items()},
        ),
    }


def _select_bounded(runs: list[Row], name: str, unit: str) -> pl.DataFrame:
    """A figure of each run: label, value, low, high."""
    return pl.DataFrame(
        {
            "label": [run["run_id"] for run in runs],
            "value": [run[f"{name}_{unit}"] for run in runs],
            "low": [run[f"{name}_low_{unit}"] for run in runs],
            "high": [run[f"{name}_high_{unit}"] for run in runs],
        },
        schema_overrides=dict.fromkeys(("value", "low", "high"), pl.Float64),
    )


def _select_water(runs: list[Row]) -> pl.DataFrame:
    """The water of each run by part: label, part, value, rank."""
    return pl.DataFrame(
        [
            (run["run_id"], part, run[column], rank)
            for rank, (part, (column, _)) in enumerate(_WATER.items())
            for run in runs
        ],
        schema={"label": pl.String, "part": pl.String, "value": pl.Float64, "rank": pl.Int64},
        orient="row",
    )
