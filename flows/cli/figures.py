"""Commands that compute, estimate and read figures: footprint, factors, estimate, query, export, status ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import (
    Json,
    LastDay,
    Project,
    load_settings,
    load_settings_or_defaults,
    parse_days,
)
from flows.cli.output.console import print_json, progress

if TYPE_CHECKING:
    from flows.settings import Settings, Site

commands = typer.Typer()
factors = typer.Typer(
    help="The factors behind the figures: list them, show one, replace one with your own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
commands.add_typer(factors, name="factors")

Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
FactorName = Annotated[str, typer.Argument(help="Name of the factor.")]
FactorScope = Annotated[str, typer.Argument(help="Fuel, GPU model, country, operator ...")]


@commands.command()
def footprint(project: Project = Path(), json_: Json = False) -> None:
    """Compute energy, carbon and water of every run (not yet published)."""
    settings = load_settings(project)
    from flows.accounting.compute import compute
    from flows.publication.reader import read_runs

    with progress("computing", hidden=json_) as advance:
        readings = 0

        def count_readings(rows: int) -> None:
            nonlocal readings
            readings += rows
            advance(None, f"{readings:,} readings")

        computed = compute(settings, count_readings)
    runs = read_runs(settings, warehouse=True)
    if json_:
        print_json({"computed": vars(computed), "runs": runs})
    else:
        from flows.cli.output import figures as output

        output.print_computed(computed, runs)


@commands.command()
def rebuild(project: Project = Path(), json_: Json = False) -> None:
    """Throw away everything that was computed, and compute it again from the readings (not yet published)."""
    settings = load_settings(project)
    from flows.accounting.compute import compute
    from flows.publication.reader import read_runs

    with progress("computing again", hidden=json_):
        computed = compute(settings, everything=True)
    runs = read_runs(settings, warehouse=True)
    if json_:
        print_json({"computed": vars(computed), "runs": runs})
    else:
        from flows.cli.output import figures as output

        output.print_computed(computed, runs)


@factors.command("list")
def list_factors(
    pattern: Annotated[
        str, typer.Argument(help="Name or scope, with * and ?: ewif*, *H100*, US.")
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """List the factors in force: the shipped ones, and those of wattledger.toml that replace them."""
    from flows.cli.output import figures as output
    from flows.factors import find_matching_factors

    rows = find_matching_factors(load_settings_or_defaults(project), pattern)
    if json_:
        print_json([vars(factor) for factor in rows])
    else:
        output.print_factors(rows)


@factors.command("show")
def show_factor(
    name: FactorName,
    scope: FactorScope,
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Show one factor with bounds, unit, source, licence, and the shipped one that it replaces."""
    from flows.cli.output import figures as output
    from flows.factors import find_factor, list_shipped_factors, read_factors

    factor = find_factor(
        read_factors(load_settings_or_defaults(project)), name, scope, "factors show"
    )
    replaced = next(
        (
            shipped_factor
            for shipped_factor in list_shipped_factors()
            if factor.origin == "override"
            and (shipped_factor.factor, shipped_factor.scope) == (name, scope)
        ),
        None,
    )
    if json_:
        print_json({**vars(factor), "shipped": replaced and vars(replaced)})
    else:
        output.print_factor(factor, replaced)


@factors.command("override")
def set_factor(
    name: FactorName,
    scope: FactorScope,
    value: Annotated[float, typer.Argument(help="Central value, in the factor's unit.")],
    source: Annotated[str, typer.Option(help="Where the value is from; it is printed beside it.")],
    low: Annotated[float | None, typer.Option(help="Lower bound; the value if left out.")] = None,
    high: Annotated[float | None, typer.Option(help="Upper bound; the value if left out.")] = None,
    project: Project = Path(),
) -> None:
    """Write a factor of your own into wattledger.toml; every figure that rests on it says so."""
    load_settings(project)
    from flows.project import override_factor

    path = override_factor(
        project,
        name,
        scope,
        value,
        low=value if low is None else low,
        high=value if high is None else high,
        source=source,
    )
    print(f"{path}: {name} {scope} = {value:g}. Run `wattledger footprint` to use it")


@commands.command()
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
        str, typer.Option(help="Operator or climate whose PUE and WUE to take.")
    ] = "default",
    server: Annotated[
        str, typer.Option(help="Server model, for example HGX-H100.", show_default="the usual")
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Estimate a run that nobody metered, from its GPU-hours; every assumption is named."""
    from flows.estimates.estimate import Load, estimate_run
    from flows.factors import WORLD
    from flows.settings import Quantity, Site

    settings = load_settings_or_defaults(project)
    estimated = estimate_run(
        settings,
        _find_site(settings, site)
        if site
        else Site(name="estimate", zone=zone or WORLD, like=like, server=server),
        gpu,
        gpu_hours,
        Load(
            power_w=None if power_w is None else Quantity.exact(power_w, "as given"),
            utilisation=None if utilisation is None else Quantity.exact(utilisation),
        ),
        price_per_kwh,
    )
    if json_:
        print_json(estimated)
    else:
        from flows.cli.output import estimates as output

        output.print_estimate(estimated)


def _find_site(settings: Settings, name: str) -> Site:
    from flows.errors import UsageError

    for site in settings.site:
        if site.name == name:
            return site
    names = ", ".join(sorted({site.name for site in settings.site})) or "none"
    raise UsageError(f"no [[site]] is called {name!r}", remedy=f"Known: {names}")


@commands.command()
def scenario(
    name: Annotated[str, typer.Argument(help="A shipped scenario (colossus), or a file.")],
    json_: Json = False,
) -> None:
    """Estimate a cluster from the bottom up: fleet, site, training runs; compare with public statements."""
    from flows.estimates.scenario import estimate_scenario, load_scenario

    estimated = estimate_scenario(*load_scenario(name))
    if json_:
        print_json(estimated)
    else:
        from flows.cli.output import estimates as output

        output.print_scenario(estimated)


@commands.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT statement.")],
    project: Project = Path(),
    warehouse: Annotated[
        bool, typer.Option("--warehouse", help="Query the warehouse, not the published figures.")
    ] = False,
    json_: Json = False,
    csv: Csv = False,
) -> None:
    """Query the published figures in SQL (read-only)."""
    settings = load_settings(project)
    from flows.cli.output import query as output
    from flows.publication.reader import run_query

    with run_query(settings, sql, warehouse=warehouse) as result:
        if json_:
            print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
        elif csv:
            output.print_csv(result)
        else:
            output.print_rows(result)


@commands.command()
def export(
    frame: Annotated[
        str,
        typer.Argument(help="ghg-protocol, esrs, eu-ai-act, hugging-face or codecarbon."),
    ],
    first: Annotated[str, typer.Option("--from", help="First day (UTC) of the period.")] = "",
    last: LastDay = "",
    family: Annotated[str, typer.Option(help="One family of runs.")] = "",
    run: Annotated[str, typer.Option(help="One run.")] = "",
    project: Project = Path(),
    json_: Json = False,
    csv: Csv = False,
) -> None:
    """Print the published figures in the form of a reporting frame (docs/frames.md)."""
    settings = load_settings(project)
    from datetime import UTC, datetime

    from flows.cli.output import figures as output
    from flows.publication.reader import fill_frame
    from flows.reporting.frames.query import Selection

    begin, end = (
        datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None
        for day in parse_days(first, last)
    )
    filled = fill_frame(settings, frame, Selection(begin, end, family, run))
    if json_:
        print_json(filled.as_json())
    else:
        output.print_frame(filled, as_csv=csv)


@commands.command()
def report(
    project: Project = Path(),
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Print the runs of the publication in force, and where its report is."""
    settings = load_settings(project)
    from flows.cli.output import figures as output
    from flows.publication.in_force import REPORT, find_in_force
    from flows.publication.reader import read_runs

    # What opens in the browser is checked, too.
    folder = find_in_force(settings, file=REPORT)
    path = settings.published / REPORT
    output.print_report(read_runs(settings), path)
    if open_:
        import webbrowser

        webbrowser.open((folder / REPORT).as_uri())


@commands.command()
def status(project: Project = Path(), json_: Json = False) -> None:
    """Show what is loaded, computed, published and refused."""
    settings = load_settings(project)
    from flows.cli.output import figures as output
    from flows.publication.status import read_status

    state = read_status(settings)
    if json_:
        print_json(state)
    else:
        output.print_status(state)
