"""Commands that load data: ingest, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, LastDay, LocalZone, Paths, Project, load_settings, parse_days
from flows.cli.output.console import print_json, progress

if TYPE_CHECKING:
    from flows.settings import PrometheusInput, Settings
    from flows.warehouse.registry import Outcome

commands = typer.Typer()
ingest = typer.Typer(
    help="Load data: each file once; bad files go to quarantine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
commands.add_typer(ingest, name="ingest")


@ingest.command("gpu")
def load_gpu_readings(
    paths: Paths,
    project: Project = Path(),
    source: Annotated[str, typer.Option(help="A [sources.NAME] of wattledger.toml.")] = "",
    host: Annotated[str, typer.Option(help="Host, where the log names no GPU UUID.")] = "",
    tz: Annotated[str, typer.Option(help="Zone of local times: Europe/Berlin, +02:00.")] = "",
    model: Annotated[str, typer.Option(help="GPU model, where the log names none.")] = "",
    gpus_per_sweep: Annotated[int, typer.Option(help="GPUs, for logs that name none.")] = 0,
    json_: Json = False,
) -> None:
    """Load GPU readings: segments, nvidia-smi logs, or any CSV or Parquet by mapping."""
    settings = load_settings(project)
    from flows.files import expand_paths
    from flows.ingest.gpu import ingest_gpu
    from flows.sources.gpu.nvidia_smi import Options

    options = Options(host, tz, model, gpus_per_sweep)
    with progress("loading readings", total=len(expand_paths(paths)), hidden=json_) as advance:
        outcomes = ingest_gpu(
            settings, paths, options, source, lambda path: advance(None, path.name)
        )
    print_outcomes_and_exit(outcomes, as_json=json_)


@ingest.command("grid")
def load_grid_data(
    paths: Paths,
    project: Project = Path(),
    zone: Annotated[str, typer.Option(help="Grid zone, where the file names none.")] = "",
    layout: Annotated[str, typer.Option(help="Layout of the file (docs/formats.md).")] = "auto",
    source: Annotated[str, typer.Option(help="A [grid_sources.NAME] of wattledger.toml.")] = "",
    signal: Annotated[
        str, typer.Option(help="average_lifecycle, average_direct, marginal, residual_mix.")
    ] = "",
    unit: Annotated[str, typer.Option(help="g, kg or lb_per_mwh; MW or kW for a mix.")] = "",
    tz: LocalZone = "",
    provider: Annotated[str, typer.Option(help="Who the data is from, for the record.")] = "",
    json_: Json = False,
) -> None:
    """Load carbon-intensity series and generation mixes; every revision is kept."""
    settings = load_settings(project)
    from flows.files import expand_paths
    from flows.ingest.grid import ingest_grid
    from flows.sources.grid.layouts import Options

    options = Options(zone, signal, unit, tz, provider)
    with progress("loading grid data", total=len(expand_paths(paths)), hidden=json_) as advance:
        outcomes = ingest_grid(
            settings, paths, options, layout, source, lambda path: advance(None, path.name)
        )
    print_outcomes_and_exit(outcomes, as_json=json_)


@ingest.command("runs")
def load_runs(
    paths: Paths,
    project: Project = Path(),
    tz: LocalZone = "",
    json_: Json = False,
) -> None:
    """Load runs: run tables (CSV, JSON, TOML), run records, sacct, codecarbon's emissions.csv."""
    settings = load_settings(project)
    from flows.ingest.runs import ingest_runs

    with progress("loading runs", hidden=json_) as advance:
        outcomes = ingest_runs(settings, paths, tz, lambda path: advance(None, path.name))
    print_outcomes_and_exit(outcomes, as_json=json_)


@ingest.command("prometheus")
def load_from_prometheus(
    name: Annotated[
        str, typer.Argument(help="Which [[input.prometheus]]; all of them if left out.")
    ] = "",
    first: Annotated[
        str, typer.Option("--from", help="UTC; from the last fetch if left out.")
    ] = "",
    last: Annotated[str, typer.Option("--to", help="UTC; until now if left out.")] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Fetch GPU readings and pods from a Prometheus that scrapes DCGM exporters, and load them."""
    settings = load_settings(project)
    from flows.ingest.fetch_prometheus import fetch_prometheus
    from flows.times import parse_time

    begin = parse_time(first, "from", "--from", "UTC")
    end = parse_time(last, "to", "--to", "UTC")
    outcomes = []
    for source in _find_prometheus(settings, name):
        with progress(f"fetching from {source.name}", hidden=json_):
            outcomes += fetch_prometheus(settings, source, begin, end)
    print_outcomes_and_exit(outcomes, as_json=json_)


def _find_prometheus(settings: Settings, name: str) -> list[PrometheusInput]:
    from flows.errors import UsageError

    sources = [source for source in settings.input.prometheus if name in ("", source.name)]
    if not sources:
        raise UsageError(
            f"no [[input.prometheus]]{f' named {name!r}' if name else ''} in wattledger.toml",
            remedy="See docs/formats.md",
        )
    return sources


@ingest.command("meter")
def load_meters(
    paths: Paths,
    project: Project = Path(),
    tz: LocalZone = "",
    json_: Json = False,
) -> None:
    """Load other meters to compare with: codecarbon's of runs, PDU, IPMI and bills as CSV."""
    settings = load_settings(project)
    from flows.ingest.meters import ingest_meter

    with progress("loading", hidden=json_) as advance:
        outcomes = ingest_meter(settings, paths, tz, lambda path: advance(None, path.name))
    print_outcomes_and_exit(outcomes, as_json=json_)


@commands.command()
def fetch(
    zones: Annotated[
        list[str] | None, typer.Argument(help="Grid zones; all of them if left out.")
    ] = None,
    first: Annotated[
        str, typer.Option("--from", help="First day (UTC) to ask for, even if it is known.")
    ] = "",
    last: LastDay = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Ask the grid providers of wattledger.toml for the days that are needed and not final."""
    settings = load_settings(project)
    _check_zones(settings, zones or [])
    begin, end = parse_days(first, last)
    from flows.orchestration.run import fetch_grid

    with progress("asking providers", hidden=json_):
        outcomes = fetch_grid(settings, zones or None, begin, end)
    print_outcomes_and_exit(outcomes, as_json=json_)


def _check_zones(settings: Settings, zones: list[str]) -> None:
    from flows.errors import UsageError

    configured = [provider.zone for provider in settings.input.grid_api]
    if not configured or not set(zones) <= set(configured):
        zone = next((zone for zone in zones if zone not in configured), "")
        raise UsageError(
            f"no [[input.grid_api]]{f' for zone {zone!r}' if zone else ''} in wattledger.toml",
            remedy="See docs/providers.md",
        )


def print_outcomes_and_exit(outcomes: list[Outcome], *, as_json: bool) -> None:
    """Print what became of each file; exit with 2 if one was refused or a source did not answer."""
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
    else:
        from flows.cli.output import loading as output

        output.print_outcomes(outcomes)
    if any(outcome.verdict in ("quarantined", "unreachable") for outcome in outcomes):
        raise typer.Exit(2)


@commands.command("accept-key")
def accept_host_key(
    host: Annotated[str, typer.Argument(help="The host whose collector has another key.")],
    key: Annotated[str, typer.Argument(help="Its public key: 64 hexadecimal digits.")],
    because: Annotated[str, typer.Option(help="Why, for the record.")],
    by: Annotated[str, typer.Option(help="Who answers for it.", show_default="you")] = "",
    project: Project = Path(),
) -> None:
    """Accept another key for a host, whose node was set up anew; the one before counts no more."""
    settings = load_settings(project)
    import getpass

    from flows.ingest.attestations import accept_key
    from flows.warehouse.store import open_for_writing, store_of

    with open_for_writing(store_of(settings)) as con:
        before = accept_key(con, host, key, by or getpass.getuser(), because)
    print(
        f"{host}: {key.lower()} counts from now on" + (f", in place of {before}" if before else "")
    )
