"""Checks of what hosts draw beside their GPUs: CPU and memory, measured or modelled."""

from __future__ import annotations

from expectations.checks import Suite, between, no_rows, not_null

COMPONENTS = ("cpu", "dram")

_FIRST = (
    "SELECT segment_id, arg_min(host, ts) AS host, arg_min(component, ts) AS component, "
    "min(ts) AS ts"
)
"""One offender per segment: Great Expectations cuts long lists, and no segment may be missed."""


def suite(
    *, schema: str = "staging", future_tolerance_s: float = 300, max_power_w: float = 10_000
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
                "Intervals of one component of one host do not overlap",
                f"{_FIRST} FROM (SELECT *, "
                "lag(ts) OVER (PARTITION BY host, component ORDER BY ts) AS before FROM {batch}) "
                "WHERE epoch_us(ts) - span_us < epoch_us(before) - 1000 GROUP BY segment_id",
                remedy="Two collectors measured this host: load the segments of one of them",
            ),
        ),
    )
