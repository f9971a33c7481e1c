"""Commands that run the flows: pipeline once, serve on a schedule, backfill for past days."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.loading import print_outcomes_and_exit
from flows.cli.options import Json, Project, load_settings, parse_days
from flows.cli.output.console import print_json, progress

commands = typer.Typer()


@commands.command()
def pipeline(project: Project = Path(), json_: Json = False) -> None:
    """Load what is new, compute, check and publish, as one Prefect flow."""
    run_and_print_pipeline(project, as_json=json_)


def run_and_print_pipeline(project: Path, *, as_json: bool) -> None:
    """Run the pipeline of a project and print what it did; exit with 2 if a file was refused."""
    settings = load_settings(project)
    from flows.orchestration.run import run_pipeline

    with progress("running the pipeline", hidden=as_json):
        report = run_pipeline(settings)
    if as_json:
        print_json(report.as_json())
    else:
        from flows.cli.output import publications as output
        from flows.publication.reader import read_published

        assert report.published is not None
        output.print_pipeline(report, report.published, read_published(report.published))
    if report.refused:
        raise typer.Exit(2)


@commands.command()
def serve(project: Project = Path()) -> None:
    """Run on a schedule until told to stop: load, compute, publish, as [schedule] says."""
    settings = load_settings(project)
    from flows.cli.output import service as output
    from flows.orchestration.project import describe_writers
    from flows.orchestration.run import serve_on_schedule
    from flows.orchestration.server import find_password

    password, warning = find_password(settings), describe_writers(settings)
    with progress("starting Prefect") as advance:

        def started(interface: str) -> None:
            advance(1, None)
            output.print_schedule(settings, interface, password, warning)

        serve_on_schedule(settings, started)


@commands.command()
def backfill(
    first: Annotated[str, typer.Argument(help="First day (UTC), for example 2026-03-01.")],
    last: Annotated[str, typer.Argument(help="Last day, included.")],
    reason: Annotated[str, typer.Option(help="Kept with the publication.")] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Ask grid providers and Prometheus again for past days, compute what changes, and publish."""
    settings = load_settings(project)
    parse_days(first, last, names=("FIRST", "LAST"))
    from flows.orchestration.run import backfill_days

    with progress("filling back", hidden=json_):
        outcomes = backfill_days(settings, first, last, reason)
    print_outcomes_and_exit(outcomes, as_json=json_)
