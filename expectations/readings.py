"""Checks of GPU readings, on the profile of each segment."""

from __future__ import annotations

from datetime import UTC, datetime

from expectations.checks import Check, Suite, at_least, between, no_rows

EARLIEST = datetime(2007, 1, 1, tzinfo=UTC)
"""Before NVML existed; an earlier time is a clock that was never set."""

ROWS_WHERE = {
    "power_not_negative": ("power_mw", "power_mw < 0"),
    "power_below_limit": ("power_mw", "power_mw > {limit_mw}"),
    "counter_below_limit": (
        "energy_mj",
        "same_gpu AND step_us >= 1000000 AND rise_mj * 1e6 / step_us > {limit_mw}",
    ),
    "utilisation_in_range": ("util_pct", "util_pct NOT BETWEEN 0 AND 100"),
    "utilisation_not_negative": ("util_pct", "util_pct < 0"),
    "counter_not_negative": ("energy_mj", "energy_mj < 0"),
    "no_future": ("ts", "epoch(ts) - epoch(now()) > {future_s}"),
    "clock_was_set": ("ts", f"ts < TIMESTAMPTZ '{EARLIEST.isoformat()}'"),
    "time_in_order": ("ts", "same_gpu AND step_us < 0"),
    "no_conflict": (
        "power_mw",
        "(same_gpu AND step_us = 0) OR (next_same_gpu AND next_step_us = 0)",
    ),
}
"""How to find the offending rows in the file itself: column, and predicate on the staged rows."""

OF_WHOLE_FILES = frozenset({"time_in_order"})
"""Checks whose rows are not at fault by themselves: where time goes back, everything after it is in doubt."""


_VALUE_CHECKS = (
    no_rows(
        "some_value",
        "Some reading of the file has power or energy",
        "SELECT segment_id, any_value(source_name) AS source_name, any_value(gpu_uuid) AS gpu_uuid "
        "FROM {batch} GROUP BY segment_id HAVING sum(no_value) = sum(rows_read)",
        remedy="Record power.draw on a GPU that reports it",
    ),
    at_least(
        "some_value_of_each_gpu",
        "rows_read",
        "no_value",
        "Every GPU has at least one reading with power or energy",
        equal=False,
        severity="warn",
        remedy="The energy of the others is unknown: record power.draw on a GPU that reports it",
    ),
    between(
        "power_not_negative",
        "min_power_mw",
        "No power is below zero",
        low=0,
        remedy="Fix or remove the row",
    ),
    at_least(
        "power_below_limit",
        "limit_mw",
        "max_power_mw",
        "No power exceeds what this GPU can draw",
        remedy="Check the unit of the column; a larger board needs readings.max_power_w "
        "or a gpu_limit_w factor",
    ),
    at_least(
        "counter_below_limit",
        "limit_mw",
        "max_counter_mw",
        "The energy counter never rises faster than this GPU can draw",
        remedy="Check the unit of the counter (NVML gives millijoules)",
    ),
    between(
        "counter_not_negative",
        "negative_energy",
        "No energy counter is below zero",
        low=0,
        high=0,
        remedy="Fix or remove the row",
    ),
    between(
        "utilisation_in_range",
        "max_util_pct",
        "Utilisation lies between 0 and 100 %",
        low=0,
        high=100,
        remedy="Check the unit of the column",
    ),
    between(
        "utilisation_not_negative",
        "min_util_pct",
        "Utilisation is not negative",
        low=0,
        remedy="Check the column",
    ),
)


def _list_time_checks(future_tolerance_s: float) -> tuple[Check, ...]:
    return (
        between(
            "time_in_order",
            "steps_back",
            "Time never goes back within one GPU",
            low=0,
            high=0,
            remedy="The clock was set back, or files were joined: split the file there, or "
            "set unsorted = true for this source",
        ),
        between(
            "no_conflict",
            "conflicts",
            "No GPU has two different readings at one time",
            low=0,
            high=0,
            remedy="Two recorders wrote about one GPU, or two GPUs share a name: "
            "tell them apart with --host",
        ),
        between(
            "no_future",
            "future_s",
            "No reading lies in the future",
            high=future_tolerance_s,
            remedy="Check --tz and the clock of the host that recorded",
        ),
        between(
            "clock_was_set",
            "first_ts",
            "No reading is from before NVML existed (2007)",
            low=EARLIEST,
            remedy="Check the unit of the time column and the clock of the host",
        ),
    )


def _list_warnings(max_gap_s: float, counter_power_tolerance: float) -> tuple[Check, ...]:
    """What is no reason to refuse a file, but to look at it."""
    return (
        at_least(
            "power_above_floor",
            "min_power_mw",
            "floor_mw",
            "No power is below half of what this GPU draws idle",
            severity="warn",
            remedy="A sensor that fails, or another model than the log says",
        ),
        no_rows(
            "counter_agrees_with_power",
            "The energy counter and the integral of power over the same steps agree within "
            f"{counter_power_tolerance:.0%}",
            "SELECT segment_id, source_name, gpu_uuid, compared_counter_mj, compared_power_mj "
            "FROM {batch} WHERE abs(compared_power_mj - compared_counter_mj) > "
            # Counters move a few times a second: nothing can be said of a few seconds.
            f"{counter_power_tolerance} * compared_counter_mj + 2 * limit_mw",
            severity="warn",
            remedy="Check the units of both; the counter is what counts",
        ),
        no_rows(
            "board_is_known",
            "The power limit of the GPU is told by its readings or known of exactly its board",
            "SELECT segment_id, source_name, gpu_uuid, limit_from FROM {batch} "
            "WHERE limit_from IN ('class', 'default')",
            severity="warn",
            remedy="Record power.limit, or set factors.gpu_limit_w for this name: until then gaps "
            "are bounded by the largest board that it can be",
        ),
        between(
            "no_blank_value",
            "blank_values",
            "No value stands for a missing one (blanks, a counter that stands still, 0 W of a busy GPU)",
            low=0,
            high=0,
            severity="warn",
            remedy="They are taken for unknown: check the recorder and the driver",
        ),
        between(
            "no_counter_reset",
            "counter_resets",
            "The energy counter never went back (driver reload)",
            low=0,
            high=0,
            severity="warn",
        ),
        between(
            "no_long_gap",
            "longest_gap_ms",
            f"No step between two readings is longer than {max_gap_s:g} s",
            high=max_gap_s * 1000,
            severity="warn",
        ),
    )


def build_readings_suite(
    *,
    future_tolerance_s: float,
    max_gap_s: float,
    counter_power_tolerance: float,
    schema: str = "staging",
) -> Suite:
    """The suite `readings`; thresholds come from [readings] and [gate] in wattledger.toml."""
    return Suite(
        name="readings",
        schema=schema,
        table="segment_profile",
        keys=("segment_id", "source_name", "gpu_uuid"),
        checks=(
            *_VALUE_CHECKS,
            *_list_time_checks(future_tolerance_s),
            *_list_warnings(max_gap_s, counter_power_tolerance),
        ),
    )
