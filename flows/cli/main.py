"""The command `wattledger`. Each command is one function; heavy imports wait until it runs.

Exit codes: 0 fine, 1 usage or settings, 2 bad input or no answer (the good part was done), 3 the gate refused or verification failed,
4 the warehouse (or this host's collector) is busy, 5 the warehouse or disk failed, 6 a flow failed,
7 no GPU driver. `wattledger run` ends as its command does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import __version__
from flows.cli.app import Json, Project, app, load, print_json, progress
from flows.errors import PipelineFailed, WattledgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.settings import Settings
    from flows.warehouse.registry import Outcome
    from wattledger.runs.records import Record

ingest = typer.Typer(
    help="Load data: each file once, bad ones to quarantine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(ingest, name="ingest")
job = typer.Typer(
    help="Record a scheduler's jobs from its prolog and epilog (docs/deploy).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(job, name="job")

factors = typer.Typer(
    help="The factors behind the figures: list them, look one up, put your own in its place.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(factors, name="factors")

Spool = Annotated[
    str, typer.Option(help="Folder for readings.", envvar="WATTLEDGER_SPOOL", show_default="auto")
]
Paths = Annotated[list[str], typer.Argument(help="Files, folders or patterns.")]


# Typer brings a Click of its own; what its usage errors have in common is not exported.
_USAGE: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


def main() -> None:
    """Entry point: run a command, and turn mistakes into sentences and exit codes."""
    try:
        status = app(standalone_mode=False)
    except WattledgerError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except typer.Abort:
        _complain("interrupted; what was reported loaded or published is stored")
        sys.exit(130)
    except _USAGE as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(
        f"[bold red]error:[/] {_escape(text)}", soft_wrap=True, highlight=False
    )


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"wattledger {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="The new project folder.")] = Path()) -> None:
    """Make a project folder with a commented wattledger.toml."""
    from flows.project import create_project

    path = create_project(folder)
    print(f"Made {path}. Put readings, grid data and run tables beside it (or point the inputs at")
    print("where they are), check the site, then run: wattledger pipeline")


@app.command()
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
    from flows.samples import demo as demo_module
    from flows.sources.gpu.nvidia_smi import Options
    from wattledger.meters.nvml import has_gpu

    if gpu_log is not None and not gpu_log.is_file():
        raise typer.BadParameter(f"no such file: {gpu_log}", param_hint="--gpu-log")
    live = gpu_log is None and not sample and has_gpu()
    with progress("measuring GPUs", total=demo_module.LIVE_SECONDS, hidden=not live) as advance:
        said = demo_module.prepare_demo(
            project,
            gpu_log=gpu_log,
            options=Options(host, tz, model, gpus_per_sweep),
            live=live,
            progress=lambda done: advance(done, None),
        )
    if not json_:
        print(said)
    _pipeline(project, json_)


@app.command()
def collect(
    spool: Spool = "",
    rate: Annotated[float, typer.Option(help="Readings per GPU and second (0.01 to 20).")] = 1.0,
    flush: Annotated[
        float, typer.Option(help="Seconds between writes: what a power cut can lose.")
    ] = 10.0,
    segment: Annotated[float, typer.Option(help="Seconds of readings in one file.")] = 600.0,
    max_spool: Annotated[
        int, typer.Option(help="MiB that the spool may hold before readings are thinned.")
    ] = 8192,
    host_meter: Annotated[
        bool, typer.Option(help="Measure (RAPL) or model CPU and memory too.")
    ] = True,
    dcgm: Annotated[
        str, typer.Option(help="URL of a DCGM exporter's /metrics, to read instead of the driver.")
    ] = "",
    run_label: Annotated[
        str, typer.Option(help="The exporter's label that names the run of a GPU.")
    ] = "pod",
    status: Annotated[
        bool,
        typer.Option("--status", help="Say how this host's collector is doing; 1 if none runs."),
    ] = False,
    json_: Json = False,
) -> None:
    """Read this host's GPUs until told to stop; readings go to the spool as Parquet segments."""
    if status:
        from flows.cli.output import figures
        from wattledger.spool import spool as node

        found = node.Spool(Path(spool) if spool else node.default_root(), node.hostname())
        if not figures.collector(found, as_json=json_):
            raise typer.Exit(1)
        return
    for value, low, high, option in (
        (rate, 0.01, 20.0, "--rate"),
        (flush, 0.1, 3600.0, "--flush"),
        (segment, 1.0, 86_400.0, "--segment"),
    ):
        if not low <= value <= high:
            raise typer.BadParameter(f"{value:g} is not in {low:g} to {high:g}", param_hint=option)
    from wattledger.config import Config
    from wattledger.process import child_environment, module_command

    config = Config(
        spool=spool,
        period_s=1 / rate,
        flush_s=flush,
        segment_s=segment,
        max_spool_mib=max_spool,
        host_meter=host_meter,
        dcgm_url=dcgm,
        run_label=run_label,
    )
    words = module_command("wattledger.collect.collector", config.as_json())
    # In place of this process: what samples has loaded nothing that it does not need.
    os.execve(words[0], words, child_environment())


@app.command(
    context_settings={"allow_interspersed_args": False},
)
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    name: Annotated[str, typer.Option(help="Name of the run.", show_default="the script's")] = "",
    label: Annotated[list[str] | None, typer.Option(help="A label, KEY=VALUE; repeatable.")] = None,
    run_id: Annotated[
        str,
        typer.Option(help="The same on all ranks and nodes.", show_default="from the launcher"),
    ] = "",
    spool: Spool = "",
    project: Annotated[
        str,
        typer.Option(
            "--project",
            "-p",
            help="Project folder, whose site and grid give CO2e and water.",
            envvar="WATTLEDGER_PROJECT",
            show_default="this folder",
        ),
    ] = "",
    rate: Annotated[float, typer.Option(help="Readings per GPU and second (0.01 to 20).")] = 1.0,
    host_meter: Annotated[
        bool, typer.Option(help="Measure (RAPL) or model CPU and memory too.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing at all.")] = False,
) -> None:
    """Run a command and record what it drew: wattledger run -- python train.py"""
    from wattledger.runs.launch import launch_command
    from wattledger.runs.session import Options

    if not 0.01 <= rate <= 20:
        raise typer.BadParameter(f"{rate:g} is not in 0.01 to 20", param_hint="--rate")
    labels = {}
    for given in label or []:
        key, separator, value = given.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"{given!r} is not KEY=VALUE", param_hint="--label")
        labels[key] = value
    options = Options(name, run_id, labels, spool, project, quiet, 1 / rate, host_meter)
    raise typer.Exit(launch_command(command, options))


@job.command("begin")
def job_begin(spool: Spool = "") -> None:
    """In a prolog: a job begins on this node."""
    from wattledger.runs.job import begin_job

    _record_job(begin_job, spool)


@job.command("end")
def job_end(spool: Spool = "") -> None:
    """In an epilog: the job has ended."""
    from wattledger.runs.job import end_job

    _record_job(end_job, spool)


def _record_job(write_record: Callable[..., Record], spool: str) -> None:
    from flows.errors import BadInput, WarehouseError
    from wattledger.runs.job import NoJob
    from wattledger.spool import spool as node

    folder = node.Spool(Path(spool) if spool else node.default_root(), node.hostname())
    try:
        record = write_record(os.environ, folder)
    except NoJob as error:
        raise BadInput(str(error), remedy="See docs/deploy/slurm.md") from None
    except (OSError, ValueError) as error:
        raise WarehouseError(str(error), where=str(folder.runs)) from None
    print(f"{record.run_id}: {len(record.gpus)} GPUs of {record.host}")


@app.command()
def pipeline(project: Project = Path(), json_: Json = False) -> None:
    """Load what is new, compute, check and publish, as one Prefect flow."""
    _pipeline(project, json_)


def _pipeline(project: Path, as_json: bool) -> None:
    settings = load(project)
    from flows.orchestration.server import prefect_api

    with progress("running the pipeline", hidden=as_json), prefect_api(settings):
        from prefect.exceptions import PrefectException

        from flows.orchestration.pipeline import pipeline as run

        try:
            report = run(str(project.resolve()))
        except PrefectException as error:
            raise PipelineFailed(
                f"Prefect: {error}", remedy="Run it again; see .wattledger/prefect/server.log"
            ) from None
    if as_json:
        print_json(report.as_json())
    else:
        from flows.cli.output import figures

        figures.pipeline(settings, report)
    if report.refused:
        raise typer.Exit(2)


@ingest.command("gpu")
def ingest_gpu(
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
    settings = load(project)
    from flows.files import expand
    from flows.ingest.gpu import ingest_gpu as run
    from flows.sources.gpu.nvidia_smi import Options

    options = Options(host, tz, model, gpus_per_sweep)
    total = len(expand(paths))
    with progress("loading readings", total=total, hidden=json_) as advance:
        outcomes = run(settings, paths, options, source, lambda path: advance(None, path.name))
    outcomes_of(outcomes, json_)


@ingest.command("grid")
def ingest_grid(
    paths: Paths,
    project: Project = Path(),
    zone: Annotated[str, typer.Option(help="Grid zone, where the file names none.")] = "",
    layout: Annotated[str, typer.Option(help="Layout of the file (docs/formats.md).")] = "auto",
    source: Annotated[str, typer.Option(help="A [grid_sources.NAME] of wattledger.toml.")] = "",
    signal: Annotated[
        str, typer.Option(help="average_lifecycle, average_direct, marginal, residual_mix.")
    ] = "",
    unit: Annotated[str, typer.Option(help="g, kg or lb_per_mwh; MW or kW for a mix.")] = "",
    tz: Annotated[str, typer.Option(help="Zone of local times.")] = "",
    provider: Annotated[str, typer.Option(help="Who the data is from, for the record.")] = "",
    json_: Json = False,
) -> None:
    """Load carbon-intensity series and generation mixes; every revision is kept."""
    settings = load(project)
    from flows.files import expand
    from flows.ingest.grid import ingest_grid as run
    from flows.sources.grid.layouts import Options

    options = Options(zone, signal, unit, tz, provider)
    with progress("loading grid data", total=len(expand(paths)), hidden=json_) as advance:
        outcomes = run(
            settings, paths, options, layout, source, lambda path: advance(None, path.name)
        )
    outcomes_of(outcomes, json_)


@ingest.command("runs")
def ingest_runs(
    paths: Paths,
    project: Project = Path(),
    tz: Annotated[str, typer.Option(help="Zone of local times.")] = "",
    json_: Json = False,
) -> None:
    """Load runs: run tables (CSV, JSON, TOML), run records, sacct, codecarbon's emissions.csv."""
    settings = load(project)
    from flows.ingest.runs import ingest_runs as run

    with progress("loading runs", hidden=json_) as advance:
        outcomes = run(settings, paths, tz, lambda path: advance(None, path.name))
    outcomes_of(outcomes, json_)


@ingest.command("prometheus")
def ingest_prometheus(
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
    settings = load(project)
    from flows.errors import UsageError
    from flows.ingest.fetch_prometheus import fetch_prometheus
    from flows.times import parse_time

    chosen = [one for one in settings.input.prometheus if name in ("", one.name)]
    if not chosen:
        raise UsageError(
            f"no [[input.prometheus]]{f' named {name!r}' if name else ''} in wattledger.toml",
            remedy="See docs/formats.md",
        )
    span = [parse_time(first, "from", "--from", "UTC"), parse_time(last, "to", "--to", "UTC")]
    outcomes = []
    for source in chosen:
        with progress(f"fetching from {source.name}", hidden=json_):
            outcomes += fetch_prometheus(settings, source, *span)
    outcomes_of(outcomes, json_)


@ingest.command("meter")
def ingest_meter(
    paths: Paths,
    project: Project = Path(),
    tz: Annotated[str, typer.Option(help="Zone of local times.")] = "",
    json_: Json = False,
) -> None:
    """Load other meters beside the ledger's: codecarbon's of runs, PDU, IPMI and bills as CSV."""
    settings = load(project)
    from flows.ingest.meters import ingest_meter as run

    with progress("loading", hidden=json_) as advance:
        outcomes = run(settings, paths, tz, lambda path: advance(None, path.name))
    outcomes_of(outcomes, json_)


def outcomes_of(outcomes: list[Outcome], as_json: bool) -> None:
    if as_json:
        print_json([o.as_json() for o in outcomes])
    else:
        from flows.cli.output import figures

        figures.outcomes(outcomes)
    if any(o.verdict in ("quarantined", "unreachable") for o in outcomes):
        raise typer.Exit(2)


@app.command()
def fetch(
    zones: Annotated[
        list[str] | None, typer.Argument(help="Grid zones; all of them if left out.")
    ] = None,
    first: Annotated[
        str, typer.Option("--from", help="First day (UTC) to ask for, again if need be.")
    ] = "",
    last: Annotated[str, typer.Option("--to", help="Last day (UTC), included.")] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Ask the grid providers of wattledger.toml for the days that are needed and not final."""
    settings = load(project)
    from flows.errors import UsageError

    known = [one.zone for one in settings.input.grid_api]
    for zone in zones or known[:1] or [""]:
        if zone not in known:
            raise UsageError(
                f"no [[input.grid_api]]{f' for zone {zone!r}' if zone else ''} in wattledger.toml",
                remedy="See docs/providers.md",
            )
    begin, end = _span(first, last)
    from flows.orchestration.server import prefect_api

    with progress("asking providers", hidden=json_), prefect_api(settings):
        from flows.orchestration.pipeline import fetch_grid_flow

        outcomes = fetch_grid_flow(str(project.resolve()), zones or None, begin, end)
    outcomes_of(outcomes, json_)


def _span(first: str, last: str) -> tuple[str, str]:
    """Days as given, as ISO dates with the last excluded; both or none."""
    from datetime import date, timedelta

    if not first and not last:
        return "", ""
    days = []
    for option, text in (("--from", first), ("--to", last or first)):
        try:
            days.append(date.fromisoformat(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a day", param_hint=option) from None
    if days[0] > days[1]:
        raise typer.BadParameter("--to lies before --from", param_hint="--to")
    return days[0].isoformat(), (days[1] + timedelta(days=1)).isoformat()


@app.command()
def footprint(project: Project = Path(), json_: Json = False) -> None:
    """Compute energy, carbon and water of every run (not yet published)."""
    settings = load(project)
    from flows.accounting.compute import compute
    from flows.cli.output import figures

    with progress("computing", hidden=json_) as advance:
        done = [0]

        def count(rows: int) -> None:
            done[0] += rows
            advance(None, f"{done[0]:,} readings")

        computed = compute(settings, count)
    if json_:
        from flows.warehouse.store import store_of

        print_json({"computed": vars(computed), "runs": figures.run_rows(store_of(settings))})
    else:
        figures.computed(settings, computed)


@factors.command("list")
def factors_list(
    pattern: Annotated[
        str, typer.Argument(help="Name or scope, with * and ?: ewif*, *H100*, US.")
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """List factors as in force here: the shipped ones, and those of wattledger.toml in their place."""
    from flows.cli.output import figures
    from flows.factors import matching

    figures.factors(matching(_settings_or_none(project), pattern), as_json=json_)


@factors.command("show")
def factors_show(
    name: Annotated[str, typer.Argument(help="Name of the factor.")],
    scope: Annotated[str, typer.Argument(help="Fuel, GPU model, country, operator ...")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Show one factor with bounds, unit, source, licence, and what of it was overridden."""
    from flows.cli.output import figures
    from flows.factors import effective, find, shipped

    settings = _settings_or_none(project)
    found = find(effective(settings), name, scope, "factors show")
    own = next((f for f in shipped() if (f.factor, f.scope) == (name, scope)), None)
    figures.factor(found, own if found.origin == "override" else None, as_json=json_)


@factors.command("override")
def factors_override(
    name: Annotated[str, typer.Argument(help="Name of the factor.")],
    scope: Annotated[str, typer.Argument(help="Fuel, GPU model, country, operator ...")],
    value: Annotated[float, typer.Argument(help="Central value, in the factor's unit.")],
    source: Annotated[str, typer.Option(help="Where the value is from; it is printed beside it.")],
    low: Annotated[float | None, typer.Option(help="Lower bound; the value if left out.")] = None,
    high: Annotated[float | None, typer.Option(help="Upper bound; the value if left out.")] = None,
    project: Project = Path(),
) -> None:
    """Write a factor of your own into wattledger.toml; every figure that rests on it says so."""
    load(project)
    from flows.project import override_factor

    written = override_factor(
        project,
        name,
        scope,
        value,
        low=value if low is None else low,
        high=value if high is None else high,
        source=source,
    )
    print(f"{written}: {name} {scope} = {value:g}. Run `wattledger footprint` to use it")


def _settings_or_none(project: Path) -> Settings:
    """The project's settings, or the defaults where there is no project."""
    from flows import settings

    if (project / settings.FILE_NAME).exists():
        return settings.load(project)
    return settings.Settings()


@app.command()
def estimate(
    gpu: Annotated[str, typer.Option(help="GPU model, for example H100.")],
    gpu_hours: Annotated[float, typer.Option(min=0, help="GPUs x hours.")],
    utilisation: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 idle, 1 at the board limit.")
    ] = None,
    power_w: Annotated[
        float | None, typer.Option(min=0, help="Mean power of a GPU, if you know it.")
    ] = None,
    price_per_kwh: Annotated[
        float | None, typer.Option("--price", min=0, help="Price of a kWh, in your currency.")
    ] = None,
    site: Annotated[str, typer.Option(help="A [[site]] of wattledger.toml.")] = "",
    zone: Annotated[str, typer.Option(help="Grid zone or country; the world if left out.")] = "",
    like: Annotated[
        str, typer.Option(help="Operator or climate whose PUE and WUE it has.")
    ] = "default",
    server: Annotated[
        str, typer.Option(help="Server model, for example HGX-H100.", show_default="the usual")
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Estimate a run that nobody metered, from its GPU-hours; every assumption is named."""
    from flows.errors import UsageError
    from flows.estimates.estimate import Load, estimate_run
    from flows.factors import WORLD
    from flows.settings import Quantity, Site

    settings = _settings_or_none(project)
    place = next((one for one in settings.site if one.name == site), None)
    if site and place is None:
        known = ", ".join(sorted({one.name for one in settings.site})) or "none"
        raise UsageError(f"no [[site]] is called {site!r}", remedy=f"Known: {known}")
    done = estimate_run(
        settings,
        place or Site(name="estimate", zone=zone or WORLD, like=like, server=server),
        gpu,
        gpu_hours,
        Load(
            power_w=None if power_w is None else Quantity.exact(power_w, "as given"),
            utilisation=None if utilisation is None else Quantity.exact(utilisation),
        ),
        price_per_kwh,
    )
    if json_:
        print_json(done)
    else:
        from flows.cli.output import estimates

        estimates.estimated(done)


@app.command()
def scenario(
    name: Annotated[str, typer.Argument(help="A shipped scenario (colossus), or a file.")],
    json_: Json = False,
) -> None:
    """Estimate a cluster from the bottom up: fleet, site, trainings, and what is publicly said of it."""
    from flows.estimates import scenario as scenarios

    done = scenarios.estimate_scenario(*scenarios.load_scenario(name))
    if json_:
        print_json(done)
    else:
        from flows.cli.output import estimates

        estimates.scenario(done)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT statement.")],
    project: Project = Path(),
    warehouse: Annotated[
        bool, typer.Option("--warehouse", help="Ask the working file, not the published one.")
    ] = False,
    json_: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask the published figures (read-only) a question in SQL."""
    settings = load(project)
    from flows.cli.output import figures

    figures.query(settings, sql, warehouse=warehouse, as_json=json_, as_csv=csv)


@app.command()
def export(
    frame: Annotated[
        str,
        typer.Argument(help="ghg-protocol, esrs, eu-ai-act, hugging-face or codecarbon."),
    ],
    first: Annotated[str, typer.Option("--from", help="First day (UTC) of the period.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day (UTC), included.")] = "",
    family: Annotated[str, typer.Option(help="One family of runs.")] = "",
    run: Annotated[str, typer.Option(help="One run.")] = "",
    project: Project = Path(),
    json_: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the published figures in the form of a reporting frame (docs/frames.md)."""
    settings = load(project)
    from datetime import UTC, datetime

    from flows.cli.output import figures
    from flows.errors import UsageError
    from flows.reporting.frames import FRAMES, Asked

    if frame not in FRAMES:
        raise UsageError(f"no frame is called {frame!r}", remedy=f"One of: {', '.join(FRAMES)}")
    begin, end = (
        datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None
        for day in _span(first, last)
    )
    figures.frame(
        settings, FRAMES[frame], Asked(begin, end, family, run), as_json=json_, as_csv=csv
    )


@app.command()
def report(
    project: Project = Path(),
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Say where the report of the publication in force is, and print its table of runs."""
    settings = load(project)
    from flows.cli.output import figures

    path = figures.report(settings)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command()
def status(project: Project = Path(), json_: Json = False) -> None:
    """What is loaded, computed, published and refused."""
    settings = load(project)
    from flows.cli.output import figures

    found = figures.status_of(settings)
    if json_:
        print_json(found)
    else:
        figures.status(found)


from flows.cli import publications, service  # noqa: E402, F401 (they add their commands)
