"""Render a published file as one HTML page (no scripts, no network)."""

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
from flows.warehouse.frames import query_rows

if TYPE_CHECKING:
    from jinja2 import Environment

_WATER = {"on site": "#3b7ea1", "off site": "#a9cfe3"}
_POINTS = 1500
"""Points along a time axis; longer series are averaged by equal stretches."""
_COMPARED = 6
"""Runs in the picture of alternatives: those with the most CO2e."""


def write_report(database: Path, folder: Path, settings: Settings) -> None:
    """Write report.html and summary.html of `database` (a published file) into `folder`."""
    environment = _templates()
    shared = {
        "title": settings.project.title or settings.project.name,
        "style": resources.files("flows.reporting.report").joinpath("style.css").read_text("utf-8"),
    }
    con = connect(database, read_only=True)
    try:
        pages = {"report": _content(con), "summary": _summary(con)}
    finally:
        con.close()
    for name, content in pages.items():
        page = environment.get_template(f"{name}.html.j2").render(**shared, **content)
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("flows.reporting", "report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"sig": format_number, "percent": format_percent}
    environment.globals |= {"between": format_range}
    return environment


def _summary(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What a person who signs wants on one page: verdicts, overrides, restatements, digests."""
    [publication] = query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")
    mine = {"id": publication["publication_id"]}
    results = query_rows(con, "FROM validation_result ORDER BY suite, check_name")
    for result in results:
        result["examples"] = [
            ", ".join(
                f"{key} {value}"
                for key, value in row.items()
                if value is not None and key != "segment_id"
            )
            for row in json.loads(result["examples"])[:2]
        ]
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
        "overrides": query_rows(con, "FROM gate_override WHERE publication_id = $id", mine),
        "restated": query_rows(con, _RESTATED, mine),
        "restated_runs": con.execute(
            "SELECT count(*) FROM restatement WHERE publication_id = $id", mine
        ).fetchall()[0][0],
        "refused": con.execute("SELECT count(*) FROM quarantine").fetchall()[0][0],
    }


_RESTATED = """
    SELECT run_id, previous_id, co2e_before_ug / 1e9 AS before_kg, co2e_after_ug / 1e9 AS after_kg,
        (co2e_after_ug - co2e_before_ug) / nullif(co2e_before_ug, 0) AS change, causes
    FROM restatement WHERE publication_id = $id
    ORDER BY abs(coalesce(co2e_after_ug, 0) - coalesce(co2e_before_ug, 0)) DESC, run_id LIMIT 6
"""


def _content(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    runs = query_rows(con, "FROM run_summary")
    return {
        "publication": query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")[0],
        "overrides": query_rows(con, _OVERRIDES),
        "restated": query_rows(con, _OWN_RESTATEMENTS),
        "runs": runs,
        "fleet": query_rows(con, "FROM fleet_summary"),
        "balance": query_rows(
            con,
            "SELECT sum(metered_mj) / 3.6e9 AS metered_kwh, sum(attributed_mj) / 3.6e9 AS "
            "attributed_kwh, sum(idle_mj) / 3.6e9 AS idle_kwh, sum(unallocated_mj) / 3.6e9 AS "
            "unallocated_kwh, coalesce(sum(abs(difference_mj)), 0) AS difference_mj FROM conservation",
        )[0],
        "quality": query_rows(con, "FROM data_quality"),
        "checks": query_rows(
            con,
            "SELECT suite, check_name, severity, statement, success, unexpected_rows "
            "FROM validation_result ORDER BY success, severity, suite, check_name",
        ),
        "checked": query_rows(con, "SELECT suite, checked_rows FROM validation_run ORDER BY suite"),
        "sites": query_rows(con, "FROM site ORDER BY site, valid_from"),
        "factors": query_rows(con, _FACTORS_USED),
        "factor_count": con.execute("SELECT count(*) FROM factor").fetchall()[0][0],
        "signals": query_rows(con, _SIGNALS),
        "files": query_rows(
            con,
            "FROM segment ORDER BY verdict DESC, source_format, first_ts, source_name LIMIT 200",
        ),
        "file_count": con.execute("SELECT count(*) FROM segment").fetchall()[0][0],
        "refused": query_rows(con, "FROM quarantine ORDER BY recorded_at"),
        "meters": query_rows(con, "FROM meter_agreement"),
        "sources": query_rows(con, _SOURCES),
        "fetches": query_rows(
            con, "FROM grid_fetch WHERE outcome <> 'fetched' ORDER BY last_attempt_at DESC LIMIT 20"
        ),
        "contracts": query_rows(con, _CONTRACTS),
        "cleaner": query_rows(con, _CLEANER),
        "families": query_rows(con, "FROM family_summary"),
        "idle": {row["run_id"]: row for row in query_rows(con, "FROM idle_spread")},
        "events": query_rows(con, _EVENTS),
        "charts": _charts(con, runs),
    }


_OVERRIDES = """
    FROM gate_override WHERE publication_id =
        (SELECT max_by(publication_id, sequence) FROM publication)
"""
_OWN_RESTATEMENTS = """
    SELECT run_id, previous_id, causes, energy_before_mj / 3.6e9 AS energy_before_kwh,
        energy_after_mj / 3.6e9 AS energy_after_kwh, co2e_before_ug / 1e9 AS co2e_before_kg,
        co2e_after_ug / 1e9 AS co2e_after_kg
    FROM restatement WHERE publication_id =
        (SELECT max_by(publication_id, sequence) FROM publication)
    ORDER BY run_id
"""
_FACTORS_USED = """
    FROM factor AS f WHERE EXISTS (
        FROM factor_use AS u WHERE u.factor = f.factor AND u.scope = f.scope
    ) ORDER BY origin, factor, scope
"""
_SOURCES = """
    FROM (
        SELECT quantity, rung, feed, source, is_estimated,
            sum(s.energy_share * f.facility_mj) / (
                SELECT sum(facility_mj) FROM run_footprint WHERE kind = 'run'
            ) AS share
        FROM intensity_sources AS s JOIN run_footprint AS f ON f.run_id = s.run_id AND f.kind = 'run'
        WHERE quantity IN ('intensity', 'ewif', 'marginal')
        GROUP BY ALL
    ) ORDER BY quantity <> 'intensity', quantity, share DESC, rung, feed, source LIMIT 30
"""
_CONTRACTS = """
    SELECT c.*, coalesce(s.share, 0) AS covered
    FROM contract AS c LEFT JOIN (
        SELECT contract, site, avg(covered_ppm) / 1e6 AS share FROM contract_slot GROUP BY ALL
    ) AS s USING (contract, site) ORDER BY position
"""
_CLEANER = """
    SELECT run_id, any_value(location_co2e_kg) AS was_kg,
        min(co2e_kg) FILTER (is_own_zone) AS best_hour_kg,
        arg_min(shift_h, co2e_kg) FILTER (is_own_zone) AS best_shift_h,
        min(co2e_kg) FILTER (NOT is_own_zone AND shift_h = 0) AS best_zone_kg,
        arg_min(zone, co2e_kg) FILTER (NOT is_own_zone AND shift_h = 0) AS best_zone
    FROM alternatives WHERE co2e_kg IS NOT NULL
    GROUP BY run_id ORDER BY was_kg DESC LIMIT 20
"""
_EVENTS = """
    SELECT event, count(*) AS n, count(DISTINCT gpu_uuid) AS gpus, min(ts) AS first, max(ts) AS last,
        arg_max(host || ': ' || detail, ts) AS example
    FROM collector_event WHERE event NOT IN ('started', 'stopped', 'recovered')
    GROUP BY event ORDER BY n DESC, event
"""
_SIGNALS = """
    SELECT zone, avg(intensity_g_per_kwh) AS mean, min(intensity_g_per_kwh) AS least,
        max(intensity_g_per_kwh) AS most, avg(ewif_l_per_kwh) AS ewif,
        avg(series_ppm) / 1e6 AS reported, avg(estimated_ppm) / 1e6 AS estimated,
        avg(fallback_ppm) / 1e6 AS fallback, avg(ewif_series_ppm) / 1e6 AS ewif_reported
    FROM slot_signal GROUP BY zone ORDER BY zone
"""


def _charts(con: duckdb.DuckDBPyConnection, runs: list[dict[str, Any]]) -> dict[str, str]:
    [(slots,)] = con.execute("SELECT count(DISTINCT slot_start) FROM footprint_slot").fetchall()
    minutes = 5 * max(1, -(-slots // _POINTS))
    bucket = f"time_bucket(INTERVAL {minutes} MINUTE, slot_start)"
    power = con.execute(
        f"""
        SELECT {bucket} AS slot_start, kind, sum(facility_mj) / 1e6 / {minutes * 60} AS power_kw,
            CASE kind WHEN 'run' THEN 0 WHEN 'unallocated' THEN 1 ELSE 2 END AS rank
        FROM footprint_slot GROUP BY ALL ORDER BY ALL
        """
    ).pl()
    signals = con.execute(
        f"""
        SELECT {bucket} AS slot_start, zone, avg(intensity_g_per_kwh) AS value,
            avg(intensity_low_g_per_kwh) AS low, avg(intensity_high_g_per_kwh) AS high
        FROM slot_signal WHERE intensity_g_per_kwh IS NOT NULL GROUP BY ALL ORDER BY ALL
        """
    ).pl()
    if not runs:
        return {"power": charts.draw_power(power)} if power.height else {}
    labels = [run["run_id"] for run in runs]

    def bounded(name: str, unit: str) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "label": labels,
                "value": [run[f"{name}_{unit}"] for run in runs],
                "low": [run[f"{name}_low_{unit}"] for run in runs],
                "high": [run[f"{name}_high_{unit}"] for run in runs],
            },
            schema_overrides=dict.fromkeys(("value", "low", "high"), pl.Float64),
        )

    water = pl.concat(
        pl.DataFrame(
            {
                "label": labels,
                "part": [part] * len(labels),
                "value": [run[column] for run in runs],
                "rank": [rank] * len(labels),
            },
            schema_overrides={"value": pl.Float64},
        )
        for rank, (part, column) in enumerate(
            (("on site", "water_onsite_l"), ("off site", "water_offsite_l"))
        )
    )
    elsewhen = con.execute(
        "SELECT run_id, zone, shift_h, co2e_kg, location_co2e_kg FROM alternatives "
        "WHERE co2e_kg IS NOT NULL AND run_id IN (SELECT run_id FROM run_footprint "
        f"WHERE kind = 'run' ORDER BY co2e_ug DESC LIMIT {_COMPARED})"
    ).pl()
    moved = con.execute(
        "SELECT s.* FROM sensitivity AS s JOIN run_footprint AS f ON f.run_id = s.run_id "
        "AND f.kind = 'run' QUALIFY dense_rank() OVER (ORDER BY f.co2e_ug DESC, s.run_id) "
        f"<= {_COMPARED} ORDER BY f.co2e_ug DESC, s.run_id"
    ).pl()

    def swings(total: str, low: str, high: str) -> pl.DataFrame:
        return moved.select("run_id", "input", value=total, at_low=low, at_high=high).filter(
            (pl.col("value") > 0)
            & ((pl.col("at_low") != pl.col("value")) | (pl.col("at_high") != pl.col("value")))
        )

    tornados = {
        "co2e": (swings("co2e_total_kg", "co2e_at_low_kg", "co2e_at_high_kg"), "CO2e", "#7a5c99"),
        "water": (swings("water_l", "water_at_low_l", "water_at_high_l"), "water", "#3b7ea1"),
    }
    return {
        **{
            f"tornado_{name}": charts.draw_tornado(frame, f"{title}, by each input alone", colour)
            for name, (frame, title, colour) in tornados.items()
            if frame.height
        },
        "alternatives": charts.draw_alternatives(elsewhen) if elsewhen.height else "",
        "power": charts.draw_power(power),
        "intensity": charts.draw_intensity(signals) if signals.height else "",
        "co2e": charts.draw_bounded_bars(
            bounded("co2e", "kg"), "kg CO2e, location-based", "#7a5c99"
        ),
        "energy": charts.draw_bounded_bars(
            bounded("facility", "kwh"), "facility energy, kWh", "#2f6f4f"
        ),
        "water": charts.draw_stacked_bars(water, "litres of water consumed", _WATER),
    }
