"""Commands for fleets and for running unattended: simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_base import Json, app, print_json, progress


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="The new project folder.")],
    gpus: Annotated[int, typer.Option(help="How many GPUs, in hosts of eight.")] = 1024,
    hours: Annotated[int, typer.Option(help="For how long.")] = 6,
    seed: Annotated[int, typer.Option(help="Another number, another fleet.")] = 1,
    period: Annotated[int, typer.Option(help="Seconds between readings.")] = 1,
    counters: Annotated[
        bool, typer.Option(help="GPUs with energy counters, or older ones that give power alone.")
    ] = True,
    json_: Json = False,
) -> None:
    """Make a project with readings of a fleet that never was, and the energy that it truly took."""
    from dataclasses import asdict
    from threading import Lock

    from flows.simulate import TRUTH, Fleet
    from flows.simulate import simulate as run

    fleet = Fleet(gpus, hours, seed, period, counters)
    written, lock = 0, Lock()
    with progress("simulating", gpus * hours * 3600 // max(period, 1), hidden=json_) as advance:

        def wrote(readings: int) -> None:
            nonlocal written
            with lock:
                written += readings
                advance(written, None)

        made = run(fleet, folder, wrote)
    if json_:
        print_json(asdict(made))
        return
    print(
        f"{made.gpus:,} GPUs, {made.runs:,} runs, {made.readings:,} readings in {made.segments:,} "
        f"segments ({made.missed:,} were missed), {made.seconds:.1f} s"
    )
    print(f"They truly took {made.true_kwh:,.1f} kWh: {made.folder / TRUTH}, by run and GPU")
    print(f"Next: wattledger pipeline -p {made.folder}")
