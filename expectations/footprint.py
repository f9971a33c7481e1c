"""Checks of the candidate figures: what must hold before they are published."""

from __future__ import annotations

from typing import Protocol

from expectations.checks import Check, Suite, at_least, between, no_rows, not_null
from transforms.figures import BOUNDED
from transforms.schema import TABLES

_DANGLING = """
    SELECT * FROM (
        SELECT 'allocation of run ' || run_id || ' names an unknown GPU' AS what, gpu_uuid AS name
        FROM run_allocation WHERE superseded_at IS NULL AND gpu_uuid NOT IN (SELECT gpu_uuid FROM gpu)
        UNION ALL
        SELECT 'energy of an unknown run', run_id FROM (SELECT DISTINCT run_id FROM energy_slot)
        WHERE run_id IS NOT NULL
            AND run_id NOT IN (SELECT run_id FROM training_run WHERE superseded_at IS NULL)
        UNION ALL
        SELECT 'energy of an unknown GPU', gpu_key::VARCHAR
        FROM (SELECT DISTINCT gpu_key FROM energy_slot) WHERE gpu_key NOT IN (SELECT gpu_key FROM gpu)
        UNION ALL
        SELECT 'host without a site', host FROM gpu WHERE host NOT IN (SELECT host FROM host)
        UNION ALL
        SELECT 'host at an unknown site', host FROM host WHERE site NOT IN (SELECT site FROM site)
        UNION ALL
        SELECT DISTINCT 'slot without a signal of its zone', zone
        FROM footprint_slot ANTI JOIN slot_signal USING (zone, slot_start)
    ) WHERE EXISTS (FROM {batch})
"""
_RUN_JUMPS = """
    SELECT run_id, family, kwh_per_gpu_h, before_run_id, before_kwh_per_gpu_h FROM (
        SELECT run_id, family, energy_kwh / gpu_hours AS kwh_per_gpu_h,
            lag(run_id) OVER w AS before_run_id,
            lag(energy_kwh / gpu_hours) OVER w AS before_kwh_per_gpu_h
        FROM run_summary WHERE gpu_hours >= 1 AND family IS NOT NULL AND EXISTS (FROM {{batch}})
        WINDOW w AS (PARTITION BY family, phase ORDER BY started_at, run_id)
    ) WHERE kwh_per_gpu_h > {factor} * before_kwh_per_gpu_h
        OR kwh_per_gpu_h * {factor} < before_kwh_per_gpu_h
"""
_YEAR_JUMPS = """
    WITH monthly AS (
        SELECT site, date_trunc('month', slot_start) AS month,
            sum(facility_mj) / 3.6e9 / nullif(sum(held_us) / 3.6e9, 0) AS kwh_per_gpu_h,
            sum(co2e_ug) / nullif(sum(grid_mj), 0) * 3.6e3 AS g_per_kwh
        FROM footprint_slot WHERE kind = 'run' AND EXISTS (FROM {{batch}}) GROUP BY ALL
        HAVING sum(held_us) >= 3.6e9
    )
    SELECT n.site, n.month, n.kwh_per_gpu_h, b.kwh_per_gpu_h AS year_before_kwh_per_gpu_h,
        n.g_per_kwh, b.g_per_kwh AS year_before_g_per_kwh
    FROM monthly AS n JOIN monthly AS b ON b.site = n.site AND b.month = n.month - INTERVAL 1 YEAR
    WHERE n.kwh_per_gpu_h > {factor} * b.kwh_per_gpu_h OR n.kwh_per_gpu_h * {factor} < b.kwh_per_gpu_h
        OR n.g_per_kwh > {factor} * b.g_per_kwh OR n.g_per_kwh * {factor} < b.g_per_kwh
"""


class Thresholds(Protocol):
    """What the suite lets pass: [gate] in wattledger.toml, where each is explained (docs/settings.md)."""

    min_carbon_coverage: float
    max_filled_share: float
    max_fallback_share: float
    second_meter_tolerance: float
    min_completeness: float
    meter_tolerance: float
    max_run_jump: float
    max_year_jump: float


def build_footprint_suite(thresholds: Thresholds, *, schema: str = "main") -> Suite:
    """The suite `footprint`, on run_footprint."""
    return Suite(
        name="footprint",
        schema=schema,
        table="run_footprint",
        keys=TABLES["run_footprint"].key,
        checks=(
            *_check_bounds(),
            *_check_arithmetic(),
            *_check_conservation(),
            *_check_coverage(thresholds),
            *_check_records(thresholds),
            *_check_plausibility(thresholds),
        ),
    )


def _check_bounds() -> tuple[Check, ...]:
    """Every figure is there, and lies within its bounds."""
    absent, crossed = [], []
    for figure in BOUNDED:
        value, low, high = figure.columns
        row = (
            f"SELECT kind, run_id, '{figure.label}' AS figure, {value} AS value, {low} AS low, "
            f"{high} AS high FROM {{batch}}"
        )
        absent.append(f"{row} WHERE {value} IS NULL OR {low} IS NULL OR {high} IS NULL")
        crossed.append(f"{row} WHERE {value} < {low} OR {value} > {high}")
    return (
        no_rows(
            "figures_there",
            "Every run has every figure, with its low and its high",
            " UNION ALL ".join(absent),
            remedy="Load grid data for the whole time of the runs (wattledger ingest grid), or set "
            "a fallback for the zone",
        ),
        no_rows(
            "bounds_hold",
            "No figure lies below its low or above its high",
            " UNION ALL ".join(crossed),
            remedy="Run `wattledger footprint` again",
            overridable=False,
        ),
    )


def _check_arithmetic() -> tuple[Check, ...]:
    """Parts are no larger than what they are parts of."""
    return (
        between("energy_not_negative", "energy_low_mj", "No energy is below zero", low=0),
        at_least(
            "measured_within_energy",
            "energy_mj",
            "measured_mj",
            "No more was measured than was used",
            overridable=False,
        ),
        at_least(
            "facility_above_it",
            "facility_mj",
            "it_mj",
            "The facility uses no less than its IT (PUE is at least 1)",
            overridable=False,
        ),
        no_rows(
            "grid_and_onsite_add_up",
            "Facility energy = energy from the grid + energy generated on site, to the millijoule",
            "SELECT kind, run_id, facility_mj, grid_mj, onsite_mj FROM {batch} "
            "WHERE facility_mj <> grid_mj + onsite_mj",
            remedy="Run `wattledger footprint` again",
            overridable=False,
        ),
        no_rows(
            "withdrawn_before_consumed",
            "No more water is consumed on and off site than is withdrawn",
            "SELECT kind, run_id, water_withdrawal_ul, water_onsite_ul, water_offsite_ul "
            "FROM {batch} WHERE water_withdrawal_ul < water_onsite_ul + water_offsite_ul",
            remedy="Check withdrawal_l_per_kwh of the zone, and run `wattledger footprint` again",
        ),
        no_rows(
            "contracts_within_grid",
            "Contracts and residual mix cover no more than the energy from the grid",
            "SELECT kind, run_id, grid_mj, contracted_mj, residual_mj FROM {batch} "
            "WHERE contracted_mj + residual_mj > grid_mj",
            remedy="This is a defect of Wattledger: please report it with this message",
            overridable=False,
        ),
    )


def _check_conservation() -> tuple[Check, ...]:
    """Energy is conserved, from the meters to the runs."""
    return (
        no_rows(
            "energy_conserved",
            "Metered energy = attributed + idle + unallocated, to the millijoule, on every GPU",
            "SELECT c.* FROM conservation AS c WHERE difference_mj <> 0 AND EXISTS (FROM {batch})",
            remedy="This is a defect of Wattledger: please report it with this message",
            overridable=False,
        ),
        no_rows(
            "host_energy_conserved",
            "Metered energy of CPU and memory is held by a run, idle or unallocated, to the millijoule",
            "SELECT shared_mj, metered_mj FROM (SELECT coalesce(sum(host_mj), 0) AS shared_mj "
            "FROM {batch}), (SELECT coalesce(sum(host_mj), 0) AS metered_mj FROM host_slot "
            "WHERE host IN (SELECT host FROM gpu)) WHERE shared_mj <> metered_mj",
            remedy="This is a defect of Wattledger: please report it with this message",
            overridable=False,
        ),
        no_rows(
            "slots_add_up",
            "The slots of a run add up to its total",
            "SELECT t.kind, t.run_id, t.energy_mj AS total_mj, s.energy_mj AS slots_mj "
            "FROM {batch} AS t JOIN (SELECT kind, run_id, sum(energy_mj) AS energy_mj "
            "FROM energy_slot GROUP BY ALL) AS s "
            "ON t.kind = s.kind AND t.run_id IS NOT DISTINCT FROM s.run_id "
            "WHERE t.energy_mj <> s.energy_mj",
            remedy="Run `wattledger footprint` again",
            overridable=False,
        ),
        no_rows(
            "every_run_counted",
            "Every run of the ledger that has begun and holds anything has a figure",
            "SELECT r.run_id, r.started_at FROM training_run AS r "
            "WHERE r.superseded_at IS NULL AND EXISTS (FROM run_allocation AS a "
            "WHERE a.superseded_at IS NULL AND a.run_id = r.run_id) AND r.run_id NOT IN "
            "(SELECT run_id FROM {batch} WHERE run_id IS NOT NULL) "
            "AND r.started_at < coalesce(r.ended_at, (SELECT max(last_ts) FROM segment_profile))",
            remedy="Run `wattledger footprint` again",
        ),
    )


def _check_coverage(thresholds: Thresholds) -> tuple[Check, ...]:
    """Figures rest on data rather than on what stands in for it."""
    return (
        no_rows(
            "carbon_covered",
            f"At least {thresholds.min_carbon_coverage:.0%} of each run's energy has a carbon intensity",
            "SELECT kind, run_id, 1 - facility_uncovered_mj / nullif(facility_mj, 0) AS covered "
            f"FROM {{batch}} WHERE facility_uncovered_mj > {1 - thresholds.min_carbon_coverage} * facility_mj",
            remedy="Load grid data for the whole time of the runs (wattledger ingest grid), or "
            "set zones.ZONE.fallback_intensity_g_per_kwh",
        ),
        no_rows(
            "not_too_much_fallback",
            f"At most {thresholds.max_fallback_share:.0%} of a run's energy has an intensity from a lower tier",
            "SELECT run_id, intensity_fallback_share FROM data_quality "
            # Shares of several tiers are added up in floating point.
            f"WHERE intensity_fallback_share > {thresholds.max_fallback_share} + 1e-9 "
            "AND EXISTS (FROM {batch})",
            remedy="Load grid data for that time, or see `wattledger status` for why none came",
        ),
        no_rows(
            "not_too_much_filled",
            f"At most {thresholds.max_filled_share:.0%} of a run's energy is filled for want of readings",
            "SELECT kind, run_id, filled_mj / energy_mj AS filled_share FROM {batch} "
            f"WHERE filled_mj > {thresholds.max_filled_share} * energy_mj",
            remedy="Load the missing readings, or correct the run's times and GPUs",
        ),
    )


def _check_records(thresholds: Thresholds) -> tuple[Check, ...]:
    """What runs, recorders and references say fits together."""
    return (
        no_rows(
            "functional_units_count",
            "A run that declares a functional unit says how many, as a number above zero",
            "SELECT run_id, functional_unit FROM run_label "
            "WHERE functional_unit IS NOT NULL AND functional_units IS NULL "
            "AND EXISTS (FROM {batch})",
            severity="warn",
            remedy="Give the label functional_units a number, for example 4e12",
        ),
        no_rows(
            "second_meter_agrees",
            f"GPU energy is within {thresholds.second_meter_tolerance:.0%} of a second meter's, where there is one",
            "SELECT run_id, meter, meter_gpu_kwh, energy_kwh, gpu_difference "
            "FROM meter_agreement WHERE run_id IS NOT NULL AND EXISTS (FROM {batch}) "
            f"AND abs(gpu_difference) > {thresholds.second_meter_tolerance}",
            severity="warn",
            remedy="Compare their times: the second meter should cover the whole run",
        ),
        no_rows(
            "readings_complete",
            f"Every GPU has at least {thresholds.min_completeness:.0%} of the readings of each hour that "
            "its recorder should have made",
            "SELECT host, gpu_uuid, hour_start, readings_expected, readings_received "
            "FROM reading_completeness WHERE EXISTS (FROM {batch}) "
            # The border of an hour may cost one.
            f"AND readings_received < {thresholds.min_completeness} * readings_expected - 1",
            severity="warn",
            remedy="Load the missing files, or see why the recorder missed them",
        ),
        no_rows(
            "references_hold",
            "Whatever a row names is there: GPUs, hosts, runs, sites, intensities",
            _DANGLING,
            remedy="This is a defect of Wattledger: please report it with this message",
            overridable=False,
        ),
    )


def _check_plausibility(thresholds: Thresholds) -> tuple[Check, ...]:
    """Energy is like that of other meters, other runs and other years."""
    return (
        no_rows(
            "other_meters_agree",
            f"Energy is within {thresholds.meter_tolerance:.0%} of other meters of hosts and sites, where "
            "they cover the same time",
            "SELECT meter, scope, metered, valid_from, meter_kwh, ledger_kwh, meter_difference "
            "FROM meter_reconciliation WHERE covered_share > 0.95 AND EXISTS (FROM {batch}) "
            f"AND abs(meter_difference) > {thresholds.meter_tolerance}",
            severity="warn",
            remedy="See view meter_reconciliation; overhead and PUE are assumptions until a meter "
            "says otherwise",
        ),
        no_rows(
            "runs_alike",
            f"No run draws more than {thresholds.max_run_jump:g} times as much per GPU-hour, or as much less, "
            "as the run of its family before it",
            _RUN_JUMPS.format(factor=thresholds.max_run_jump),
            severity="warn",
            remedy="Another kind of work, or GPUs that are not the run's: check its allocations",
        ),
        no_rows(
            "years_alike",
            f"No site's facility energy per GPU-hour or CO2e per kWh is more than {thresholds.max_year_jump:g} "
            "times that of the same month a year before, or as much less",
            _YEAR_JUMPS.format(factor=thresholds.max_year_jump),
            severity="warn",
            remedy="Check PUE, overhead and grid data of both times",
        ),
        no_rows(
            "mostly_measured",
            "At least half of each run's energy was measured",
            "SELECT kind, run_id, measured_mj / nullif(energy_mj, 0) AS measured_share "
            "FROM {batch} WHERE kind = 'run' AND 2 * measured_mj < energy_mj",
            severity="warn",
            remedy="Load the missing readings",
        ),
    )


def build_signal_suite(*, max_g_per_kwh: float, schema: str = "main") -> Suite:
    """The suite `slot_signal`: the intensities that the figures used."""
    return Suite(
        name="slot_signal",
        schema=schema,
        table="slot_signal",
        keys=TABLES["slot_signal"].key,
        checks=(
            between(
                "intensity_believable",
                "intensity_g_per_kwh",
                f"Intensities lie between 0 and {max_g_per_kwh:g} g/kWh",
                low=0,
                high=max_g_per_kwh,
            ),
            at_least(
                "intensity_above_low",
                "intensity_g_per_kwh",
                "intensity_low_g_per_kwh",
                "Intensities are not below their lower bound",
            ),
            at_least(
                "intensity_below_high",
                "intensity_high_g_per_kwh",
                "intensity_g_per_kwh",
                "Intensities are not above their upper bound",
            ),
            not_null("ewif_known", "ewif_l_per_kwh", "Every slot has a water intensity"),
            no_rows(
                "no_fallback",
                "No slot uses an intensity from a lower tier than its zone's series",
                "SELECT zone, slot_start, fallback_ppm FROM {batch} WHERE fallback_ppm > 0",
                severity="warn",
                remedy="Load grid data for that time",
            ),
        ),
    )
