"""Commands for fleets and for running unattended: simulate, serve, backfill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import Json, Project, app, load, print_json, progress


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

    from flows.samples.fleet import TRUTH, Fleet
    from flows.samples.fleet import simulate as run

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


@app.command()
def serve(project: Project = Path()) -> None:
    """Run on a schedule until told to stop: load, compute, publish, as [schedule] says."""
    settings = load(project)
    import os

    from flows.orchestration.server import prefect_api

    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    with progress("starting Prefect") as advance, prefect_api(settings, lasting=True) as api:
        from flows.orchestration.deployments import serve as run

        when = settings.schedule

        def started() -> None:
            advance(1, None)
            print(f"serving {settings.root.resolve()}, interface at {api.removesuffix('/api')}")
            print(
                f"  loads every {when.ingest_min:g} min, computes every {when.footprint_min:g} min, "
                f"publishes at {when.publish} (cron, UTC); Ctrl-C stops it",
                flush=True,
            )

        run(settings, started)


@app.command()
def backfill(
    first: Annotated[str, typer.Argument(help="First day (UTC), for example 2026-03-01.")],
    last: Annotated[str, typer.Argument(help="Last day, included.")],
    reason: Annotated[str, typer.Option(help="Kept with the publication.")] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Ask grid providers and Prometheus again for some days, compute what that changes, and publish."""
    settings = load(project)
    from flows.cli.main import outcomes_of
    from flows.orchestration.server import prefect_api

    with progress("filling back", hidden=json_), prefect_api(settings):
        from flows.orchestration.deployments import backfill as run
        from flows.orchestration.deployments import days

        try:
            days(first, last)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="FIRST, LAST") from None
        outcomes = run(str(project.resolve()), first, last, reason)
    outcomes_of(outcomes, json_)
