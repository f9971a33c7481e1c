"""A run's figures as arithmetic: from its GPUs and slots to its totals, with every factor and source."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from flows.errors import UsageError
from flows.warehouse.frames import query_rows

_SLOTS = """
    SELECT
        f.slot_start, f.site, f.zone, f.gpus, f.held_us, f.energy_mj, f.overhead_mj, f.it_mj,
        s.pue, f.facility_mj, s.onsite_share, f.onsite_mj, f.grid_mj,
        g.intensity_g_per_kwh, f.co2e_ug, s.onsite_g_per_kwh, f.co2e_scope1_ug,
        s.wue_l_per_kwh, s.onsite_l_per_kwh, f.water_onsite_ul, g.ewif_l_per_kwh, f.water_offsite_ul,
        f.co2e_embodied_ug
    FROM footprint_slot AS f
    JOIN slot_signal AS g USING (zone, slot_start)
    JOIN site AS s ON s.site = f.site
        AND (s.valid_from IS NULL OR s.valid_from <= f.slot_start)
        AND (s.valid_to IS NULL OR s.valid_to > f.slot_start)
    WHERE f.kind = 'run' AND f.run_id = $run
    ORDER BY f.slot_start, f.site
"""
_GPUS = """
    SELECT u.gpu_uuid, u.host, sum(held_us) AS held_us, sum(counter_mj) AS counter_mj,
        sum(power_integral_mj) AS power_integral_mj, sum(gap_mj) AS gap_mj,
        sum(filled_mj) AS filled_mj, sum(energy_mj) AS energy_mj
    FROM energy_slot AS e JOIN gpu AS u USING (gpu_key)
    WHERE kind = 'run' AND run_id = $run
    GROUP BY ALL ORDER BY u.host, u.gpu_uuid
"""
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
"""What slots add up to, as whole numbers."""


def explain_run(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Everything behind the figures of one run of a published file.

    Gives run (its row of run_summary), gpus (energy by GPU and by how it was found), slots (what is
    multiplied with what, in integers), totals, sources of intensities, and factors.

    Raises:
        UsageError: the file has no such run.
    """
    asked = {"run": run_id}
    found = query_rows(con, "FROM run_summary WHERE run_id = $run", asked)
    if not found:
        known = query_rows(con, "SELECT run_id FROM run_summary ORDER BY 1 LIMIT 20")
        raise UsageError(
            f"no run {run_id!r} is published",
            remedy=f"Known: {', '.join(row['run_id'] for row in known) or 'none'}",
        )
    [total] = query_rows(
        con,
        f"SELECT {', '.join(TOTALS)} FROM run_footprint WHERE kind = 'run' AND run_id = $run",
        asked,
    )
    return {
        "run": found[0],
        "gpus": query_rows(con, _GPUS, asked),
        "slots": query_rows(con, _SLOTS, asked),
        "totals": total,
        "sources": query_rows(con, "FROM intensity_sources WHERE run_id = $run", asked),
        "factors": query_rows(con, _FACTORS, asked),
    }


def describe_arithmetic(slot: dict[str, Any]) -> list[tuple[str, str, str]]:
    """One slot as lines of what, how, and how much."""
    hours = slot["held_us"] / 3.6e9
    lines = [
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
        (
            "CO2e, location-based",
            f"from the grid x {_shown(slot['intensity_g_per_kwh'])} g/kWh / 3600",
            f"{_shown(slot['co2e_ug'])} ug",
        ),
        (
            "water on site",
            f"IT energy x WUE {slot['wue_l_per_kwh']:.9g} L/kWh / 3600"
            + (
                f" + on site x {slot['onsite_l_per_kwh']:.9g} L/kWh / 3600"
                if slot["onsite_mj"]
                else ""
            ),
            f"{slot['water_onsite_ul']:,} uL",
        ),
        (
            "water off site",
            f"from the grid x EWIF {_shown(slot['ewif_l_per_kwh'])} L/kWh / 3600",
            f"{_shown(slot['water_offsite_ul'])} uL",
        ),
        (
            "CO2e, embodied",
            "time held x rate of each GPU (table gpu_embodied)",
            f"{slot['co2e_embodied_ug']:,} ug",
        ),
    ]
    if slot["onsite_mj"]:
        lines.insert(
            5,
            (
                "CO2e, scope 1",
                f"on site {slot['onsite_mj']:,} mJ x {slot['onsite_g_per_kwh']:.9g} g/kWh / 3600",
                f"{slot['co2e_scope1_ug']:,} ug",
            ),
        )
    return lines


def _shown(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:.12g}"


def find_slot(found: dict[str, Any], at: datetime | None) -> dict[str, Any]:
    """The slot to work through: the one that holds a time, else the one with most energy.

    Raises:
        UsageError: the run has no slot then.
    """
    slots: list[dict[str, Any]] = found["slots"]
    if at is None:
        return max(slots, key=lambda slot: (slot["energy_mj"], slot["slot_start"]))
    fitting = [slot for slot in slots if 0 <= (at - slot["slot_start"]).total_seconds() < 300]
    if not fitting:
        raise UsageError(
            f"the run has no slot at {at:%Y-%m-%d %H:%MZ}",
            remedy=f"It has {slots[0]['slot_start']:%Y-%m-%d %H:%MZ} to "
            f"{slots[-1]['slot_start']:%Y-%m-%d %H:%MZ}",
        )
    return fitting[0]
