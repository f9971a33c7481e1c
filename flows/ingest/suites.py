"""The suites of what is loaded, with the thresholds of wattledger.toml; publication checks some of them again."""

from __future__ import annotations

from expectations import grid, host, readings, runs
from expectations.checks import Suite
from flows.settings import Settings


def configure_readings_suite(settings: Settings) -> Suite:
    """Checks of the profiles of GPU readings in staging.segment_profile."""
    return readings.build_readings_suite(
        schema="staging",
        future_tolerance_s=settings.readings.future_tolerance_s,
        max_gap_s=settings.readings.max_gap_s,
        counter_power_tolerance=settings.gate.counter_power_tolerance,
    )


def configure_host_suite(settings: Settings) -> Suite:
    """Checks of the energy of CPU and memory in staging.host_reading."""
    return host.build_host_suite(future_tolerance_s=settings.readings.future_tolerance_s)


def configure_runs_suite(settings: Settings) -> Suite:
    """Checks of runs and allocations in staging.run_allocation."""
    return runs.build_runs_suite(schema="staging", max_days=settings.gate.max_run_days)


def configure_grid_suite(settings: Settings, table: str) -> Suite:
    """Checks of grid data in the staging table `grid_intensity` or `grid_mix`."""
    if table == "grid_mix":
        return grid.build_mix_suite()
    return grid.build_intensity_suite(max_g_per_kwh=settings.gate.max_intensity_g_per_kwh)
