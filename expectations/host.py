"""Checks of what hosts draw beside their GPUs: CPU and memory, measured or modelled."""

from __future__ import annotations

from expectations.checks import Suite, between, no_rows, not_null

COMPONENTS = ("cpu", "dram")
MAX_POWER_W = 10_000
"""No CPU and no memory of one host draws more."""

_FIRST = (
    "SELECT segment_id, arg_min(host, ts) AS host, arg_min(component, ts) AS component, "
    "min(ts) AS ts"
)
"""One offender per segment: Great Expectations cuts long lists, and no segment may be missed."""

_OVERLAP = f"""
    {_FIRST} FROM (
        SELECT host, component, ts, coalesce(segment_id, before_id) AS segment_id, span_us, before
        FROM (
            SELECT *, lag(ts) OVER w AS before, lag(segment_id) OVER w AS before_id
            FROM (
                SELECT host, component, ts, max(span_us) AS span_us, min(segment_id) AS segment_id
                FROM (
                    SELECT host, component, ts, span_us, segment_id FROM {{batch}}
                    UNION ALL
                    SELECT host, component, ts, span_us, NULL FROM host_reading
                    WHERE host IN (SELECT host FROM {{batch}})
                        AND ts >= (SELECT min(ts) FROM {{batch}})
                        AND ts <= (SELECT max(ts) FROM {{batch}}) + INTERVAL 1 DAY
                ) GROUP BY host, component, ts
            ) WINDOW w AS (PARTITION BY host, component ORDER BY ts)
        )
    ) WHERE segment_id IS NOT NULL AND epoch_us(ts) - span_us < epoch_us(before) - 1000
    GROUP BY segment_id
"""


def build_host_suite(
    *, future_tolerance_s: float, max_power_w: float = MAX_POWER_W, schema: str = "staging"
) -> Suite:
    """The suite `host_readings`, on the intervals of the segments that wait."""
    listed = ", ".join(f"'{name}'" for name in COMPONENTS)
    return Suite(
        name="host_readings",
        schema=schema,
        table="host_reading",
        keys=("segment_id", "host", "component", "ts"),
        checks=(
            *(
                not_null(f"{name}_given", name, f"Every interval has a value for {name}")
                for name in ("host", "component", "ts", "span_us", "energy_mj", "is_modelled")
            ),
            between("energy_not_negative", "energy_mj", "No energy is below zero", low=0),
            between("span_positive", "span_us", "Every interval has a length", low=1),
            no_rows(
                "known_component",
                f"Components are {' and '.join(COMPONENTS)}",
                f"{_FIRST} FROM {{batch}} WHERE component NOT IN ({listed}) GROUP BY segment_id",
            ),
            no_rows(
                "power_believable",
                f"No part of a host draws more than {max_power_w:g} W",
                f"{_FIRST} FROM {{batch}} WHERE energy_mj * 1000 > {max_power_w:g} * span_us "
                "GROUP BY segment_id",
                remedy="Check the meter; energies are millijoules",
            ),
            no_rows(
                "no_future",
                f"No interval ends more than {future_tolerance_s:g} s in the future",
                f"{_FIRST} FROM {{batch}} "
                f"WHERE epoch(ts) > epoch(now()) + {future_tolerance_s:g} GROUP BY segment_id",
                remedy="Set the clock of the node",
            ),
            no_rows(
                "no_overlap",
                "Intervals of one component of one host do not overlap, also with those stored",
                _OVERLAP,
                remedy="Two collectors measured this host: load the segments of one of them",
            ),
        ),
    )
