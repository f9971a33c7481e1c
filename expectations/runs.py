"""Checks of training runs and their allocations, before they enter the warehouse."""

from __future__ import annotations

from expectations.checks import Suite, at_least, no_rows, not_null

_TOO_MUCH_SHARED = """
    SELECT gpu_uuid, at_time, total_ppm / 1e6 AS total, run_id, place FROM (
        SELECT gpu_uuid, at_time, run_id, place,
            sum(step_ppm) OVER (
                PARTITION BY gpu_uuid ORDER BY at_time, step_ppm
            ) AS total_ppm
        FROM (
            SELECT gpu_uuid, run_id, place, from_ts AS at_time, share_ppm AS step_ppm
            FROM {batch}
            UNION ALL
            SELECT gpu_uuid, run_id, place, coalesce(to_ts, 'infinity'::TIMESTAMPTZ),
                -share_ppm
            FROM {batch}
        )
    ) WHERE total_ppm > 1000000
"""
"""When a GPU is shared out more than once over."""


def build_runs_suite(*, max_days: float, schema: str = "staging") -> Suite:
    """The suite `runs`, on the allocations as they would stand after loading."""
    return Suite(
        name="runs",
        schema=schema,
        table="run_allocation",
        keys=("run_id", "gpu_uuid", "from_ts", "place"),
        checks=(
            not_null("run_has_id", "run_id", "Every run has an id"),
            not_null("run_has_start", "from_ts", "Every run and allocation has a start"),
            at_least(
                "ends_after_start",
                "to_ts",
                "from_ts",
                "No run or allocation ends before it starts",
                remedy="Check started_at and ended_at, and their time zones",
            ),
            no_rows(
                "gpu_once_per_start",
                "A run holds a GPU from one time on once",
                "SELECT run_id, gpu_uuid, from_ts, any_value(place) AS place FROM {batch} "
                "GROUP BY run_id, gpu_uuid, from_ts HAVING count(*) > 1",
                remedy="Two rows tell the same of one run: give each GPU once",
            ),
            no_rows(
                "share_in_range",
                "Every share is above 0 and at most 100 %",
                "SELECT run_id, gpu_uuid, place, share_ppm / 1e6 AS share FROM {batch} "
                "WHERE share_ppm NOT BETWEEN 1 AND 1000000",
                remedy="Shares are fractions: 0.25 for a quarter of a GPU",
            ),
            no_rows(
                "shares_add_up",
                "The shares of one GPU never add up to more than 100 %",
                _TOO_MUCH_SHARED,
                remedy="Two runs claim the same GPU at the same time: correct the times, or give "
                "each its share",
            ),
            no_rows(
                "run_not_endless",
                f"No run lasts longer than {max_days:g} days",
                "SELECT run_id, from_ts, to_ts, place FROM {batch} "
                f"WHERE date_diff('hour', from_ts, to_ts) > {max_days * 24:g}",
                remedy="Check the dates; a longer run needs gate.max_run_days",
            ),
        ),
    )
