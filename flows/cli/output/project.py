"""Projects that were made."""

from __future__ import annotations

from pathlib import Path

from flows.samples.fleet import TRUTH, SimulatedFleet


def print_new_project(path: Path) -> None:
    """Print where the settings of a new project are, and what to do next."""
    print(f"Made {path}. Put readings, grid data and run tables beside it (or point the inputs at")
    print("where they are), check the site, then run: wattledger pipeline")


def print_simulated_fleet(fleet: SimulatedFleet) -> None:
    """Print what a simulated fleet has, and what it truly took."""
    print(
        f"{fleet.gpus:,} GPUs, {fleet.runs:,} runs, {fleet.readings:,} readings in {fleet.segments:,} "
        f"segments ({fleet.missed:,} were missed), {fleet.seconds:.1f} s"
    )
    print(f"They truly took {fleet.true_kwh:,.1f} kWh: {fleet.folder / TRUTH}, by run and GPU")
    print(f"Next: wattledger pipeline -p {fleet.folder}")
