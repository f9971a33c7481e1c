"""Commands that make a project: init, demo, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json, Project
from flows.cli.output.console import print_json, progress
from flows.cli.service import run_and_print_pipeline

commands = typer.Typer()


@commands.command()
def init(folder: Annotated[Path, typer.Argument(help="The new project folder.")] = Path()) -> None:
    """Make a project folder with a commented wattledger.toml."""
    from flows.cli.output import project as output
    from flows.project import create_project

    output.print_new_project(create_project(folder))


@commands.command()
def demo(
    project: Project = Path("demo-project"),
    gpu_log: Annotated[
        Path | None, typer.Option("--gpu-log", help="Use your own log of GPU readings.")
    ] = None,
    host: Annotated[str, typer.Option(help="Host that the log is from.")] = "",
    tz: Annotated[str, typer.Option(help="Time zone of the log's times.")] = "",
    model: Annotated[str, typer.Option(help="GPU model, where the log names none.")] = "",
    gpus_per_sweep: Annotated[int, typer.Option(help="GPUs, for logs that name none.")] = 0,
    sample: Annotated[
        bool, typer.Option("--sample", help="Use sample readings even where there is a GPU.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run everything once, in a demo project: real grid data, your GPU, your log, or a sample."""
    from flows.samples.demo import LIVE_SECONDS, prepare_demo
    from flows.sources.gpu.nvidia_smi import Options
    from wattledger.meters.nvml import has_gpu

    if gpu_log is not None and not gpu_log.is_file():
        raise typer.BadParameter(f"no such file: {gpu_log}", param_hint="--gpu-log")
    live = gpu_log is None and not sample and has_gpu()
    with progress("measuring GPUs", total=LIVE_SECONDS, hidden=not live) as advance:
        origin = prepare_demo(
            project,
            gpu_log=gpu_log,
            options=Options(host, tz, model, gpus_per_sweep),
            live=live,
            progress=lambda seconds: advance(seconds, None),
        )
    if not json_:
        print(origin)
    run_and_print_pipeline(project, as_json=json_)


@commands.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="The new project folder.")],
    gpus: Annotated[int, typer.Option(help="How many GPUs, in hosts of eight.")] = 1024,
    hours: Annotated[int, typer.Option(help="For how long.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed: another number gives another fleet.")] = 1,
    period: Annotated[int, typer.Option(help="Seconds between readings.")] = 1,
    counters: Annotated[
        bool, typer.Option(help="GPUs with energy counters, or older ones that give power alone.")
    ] = True,
    json_: Json = False,
) -> None:
    """Make a project with the readings of an imagined fleet, and the energy that it truly took."""
    from dataclasses import asdict
    from threading import Lock

    from flows.samples.fleet import simulate_fleet
    from flows.samples.fleet_plan import Fleet

    fleet = Fleet(gpus, hours, seed, period, counters)
    written, lock = 0, Lock()
    with progress("simulating", gpus * hours * 3600 // max(period, 1), hidden=json_) as advance:

        def count_readings(readings: int) -> None:
            nonlocal written
            with lock:
                written += readings
                advance(written, None)

        made = simulate_fleet(fleet, folder, count_readings)
    if json_:
        print_json(asdict(made))
    else:
        from flows.cli.output import project as output

        output.print_simulated_fleet(made)
