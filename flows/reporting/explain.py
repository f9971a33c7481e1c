"""A run's figures as arithmetic: from its GPUs and slots to its totals, with every factor and source."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from flows.errors import UsageError
from flows.warehouse.frames import load_query, query_rows
from transforms.constants import SLOT_US

_FACTORS = """
    SELECT f.factor, f.scope, f.value, f.low, f.high, f.unit, f.origin, f.source
    FROM factor_use AS u JOIN factor AS f USING (factor, scope)
    WHERE u.kind = 'run' AND u.run_id = $run
    ORDER BY ALL
"""

TOTALS = (
    "energy_mj",
    "overhead_mj",
    "it_mj",
    "facility_mj",
    "onsite_mj",
    "grid_mj",
    "co2e_ug",
    "co2e_scope1_ug",
    "water_onsite_ul",
    "water_offsite_ul",
    "co2e_embodied_ug",
)
"""Columns of slots that add up to the totals of a run, as whole numbers."""


def explain_run(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Everything behind the figures of one run.

    Args:
        con: A connection to a published file.
        run_id: The run.

    Returns:
        run (its row of run_summary), gpus (energy by GPU and by how it was found), slots (what is
        multiplied with what, in integers), totals (`TOTALS`), sources of intensities, and factors.

    Raises:
        UsageError: the file has no such run.
    """
    parameters = {"run": run_id}
    runs = query_rows(con, "FROM run_summary WHERE run_id = $run", parameters)
    if not runs:
        published = query_rows(con, "SELECT run_id FROM run_summary ORDER BY 1 LIMIT 20")
        raise UsageError(
            f"no run {run_id!r} is published",
            remedy=f"Known: {', '.join(row['run_id'] for row in published) or 'none'}",
        )
    if runs[0]["energy_kwh"] is None:
        raise UsageError(
            f"run {run_id!r} has no figures: {runs[0]['state']}",
            remedy="Load its readings, or correct its times and GPUs",
        )
    [totals] = query_rows(
        con,
        f"SELECT {', '.join(TOTALS)} FROM run_footprint WHERE kind = 'run' AND run_id = $run",
        parameters,
    )
    return {
        "run": runs[0],
        "gpus": query_rows(con, load_query("reporting/explained_gpus"), parameters),
        "slots": query_rows(con, load_query("reporting/explained_slots"), parameters),
        "totals": totals,
        "sources": query_rows(con, "FROM intensity_sources WHERE run_id = $run", parameters),
        "factors": query_rows(con, _FACTORS, parameters),
    }


def find_slot(explanation: dict[str, Any], at: datetime | None) -> dict[str, Any]:
    """Find the slot to work through: the one that holds a time, else the one with most energy.

    Raises:
        UsageError: the run has no slot at that time.
    """
    slots: list[dict[str, Any]] = explanation["slots"]
    if at is None:
        return max(slots, key=lambda slot: (slot["energy_mj"], slot["slot_start"]))
    for slot in slots:
        if 0 <= (at - slot["slot_start"]).total_seconds() < SLOT_US / 1e6:
            return slot
    raise UsageError(
        f"the run has no slot at {at:%Y-%m-%d %H:%MZ}",
        remedy=f"It has {slots[0]['slot_start']:%Y-%m-%d %H:%MZ} to "
        f"{slots[-1]['slot_start']:%Y-%m-%d %H:%MZ}",
    )


def describe_arithmetic(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    """One slot, worked through: lines of quantity, formula and result."""
    return [
        *_describe_energy(slot),
        *_describe_carbon(slot),
        *_describe_water(slot),
        *_describe_embodied(slot),
    ]


def _describe_energy(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    hours = slot["held_us"] / 3.6e9
    return [
        (
            "GPU energy",
            f"{slot['gpus']} GPUs, held for {hours:.6g} GPU-hours",
            f"{slot['energy_mj']:,} mJ",
        ),
        (
            "IT energy",
            f"GPU energy + host {slot['overhead_mj']:,} mJ",
            f"{slot['it_mj']:,} mJ",
        ),
        ("facility energy", f"IT energy x PUE {slot['pue']:.9g}", f"{slot['facility_mj']:,} mJ"),
        (
            "from the grid",
            f"facility energy less {slot['onsite_share']:.9g} of it, generated on site",
            f"{slot['grid_mj']:,} mJ",
        ),
    ]


def _describe_carbon(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    lines = [
        (
            "CO2e, location-based",
            f"from the grid x {_format_number(slot['intensity_g_per_kwh'])} g/kWh / 3600",
            f"{_format_number(slot['co2e_ug'])} ug",
        )
    ]
    if slot["onsite_mj"]:
        lines.append(
            (
                "CO2e, scope 1",
                f"on site {slot['onsite_mj']:,} mJ x {slot['onsite_g_per_kwh']:.9g} g/kWh / 3600",
                f"{slot['co2e_scope1_ug']:,} ug",
            )
        )
    return lines


def _describe_water(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    onsite = f"IT energy x WUE {slot['wue_l_per_kwh']:.9g} L/kWh / 3600"
    if slot["onsite_mj"]:
        onsite += f" + on site x {slot['onsite_l_per_kwh']:.9g} L/kWh / 3600"
    return [
        ("water on site", onsite, f"{slot['water_onsite_ul']:,} uL"),
        (
            "water off site",
            f"from the grid x EWIF {_format_number(slot['ewif_l_per_kwh'])} L/kWh / 3600",
            f"{_format_number(slot['water_offsite_ul'])} uL",
        ),
    ]


def _describe_embodied(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            "CO2e, embodied",
            "time held x rate of each GPU (table gpu_embodied)",
            f"{slot['co2e_embodied_ug']:,} ug",
        )
    ]


def _format_number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:.12g}"
