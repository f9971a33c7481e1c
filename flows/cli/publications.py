"""Commands of the gate and the ledger: check, publish, compare, explain, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import Json, Project, app, load, print_json, progress


@app.command()
def recompute(
    publication: Annotated[str, typer.Argument(help="Its id, or its number: 0001.")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Compute a publication again from what was known then; exits 3 if a figure differs."""
    settings = load(project)
    from flows.cli.output import figures
    from flows.publication.revisions import recompute as run

    with progress("computing again", hidden=json_):
        done = run(settings, publication)
    if json_:
        print_json({**vars(done), "identical": done.identical})
    else:
        figures.recomputed(done)
    if not done.identical:
        raise typer.Exit(3)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A publication: its id, or its number: 0001.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Compare two publications: every run's figures, and what of their inputs differs."""
    settings = load(project)
    from dataclasses import asdict

    from flows.cli.output import figures
    from flows.publication.history import diff as run

    done = run(settings, before, after)
    if json_:
        print_json(asdict(done))
    else:
        figures.difference(done)


@app.command()
def history(
    run: Annotated[str, typer.Argument(help="The run.")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Show a run in every publication that has it, and what changed in between."""
    settings = load(project)
    from flows.cli.output import figures
    from flows.publication.history import history as run_history

    found = run_history(settings, run)
    if json_:
        print_json(found)
    else:
        figures.history(run, found)


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help="The run.")],
    at: Annotated[
        str,
        typer.Option(
            help="A time (UTC) whose slot to work through.",
            show_default="the slot with most energy",
        ),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Show a published run as arithmetic: GPUs, a slot worked through, the sum, factors, sources."""
    settings = load(project)
    from flows.cli.output import figures
    from flows.times import parse_time

    figures.explained(settings, run, parse_time(at, "at", "--at", "UTC"), as_json=json_)


@app.command()
def check(project: Project = Path(), json_: Json = False) -> None:
    """Run every check on the computed figures; publish nothing."""
    settings = load(project)
    from flows.cli.output import figures
    from flows.publication.publish import check_only

    with progress("checking", hidden=json_):
        verdicts, docs = check_only(settings)
    if json_:
        print_json(figures.verdict_rows(verdicts))
    else:
        figures.verdicts(verdicts, docs)
    if not all(v.success for v in verdicts):
        raise typer.Exit(3)


@app.command()
def publish(
    override: Annotated[
        list[str] | None,
        typer.Option(help="A check (SUITE.CHECK) that may fail; needs --by and --because."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who answers for what is overridden.")] = "",
    because: Annotated[
        str,
        typer.Option(
            help="Why: of the override, or of this publication. It is printed on the report."
        ),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Check the computed figures and, if every check passes, put them in force."""
    settings = load(project)
    from datetime import UTC, datetime

    from flows.cli.output import figures
    from flows.publication.publish import publish as run
    from flows.settings import Override

    if override and not (by.strip() and because.strip()):
        raise typer.BadParameter("an override needs --by and --because", param_hint="--override")
    today = datetime.now(UTC).date()
    overrides = [
        Override(check=check, by=by.strip(), reason=because.strip(), until=today)
        for check in override or []
    ]
    with progress("checking and publishing", hidden=json_):
        done = run(settings, overrides, because.strip())
    if json_:
        print_json(vars(done))
    else:
        figures.published(settings, done)


@app.command()
def verify(
    what: Annotated[
        str, typer.Argument(help="A publication (0001), or a bundle; the last one if left out.")
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Compute every publication again, not only one.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Public key (PEM) that must have signed.", show_default="[ledger]"),
    ] = None,
    expect: Annotated[
        str, typer.Option(help="Digest of a manifest that you were told elsewhere.")
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Verify the ledger, or a bundle: chain, digests, and every figure computed again; exits 3 if not."""
    from dataclasses import asdict

    from flows.cli.output import publications
    from flows.publication import bundle as bundles
    from flows.publication import verify as ledgers

    trust = ledgers.Trust(key, expect)
    is_bundle = bool(what) and (Path(what).is_file() or what.endswith(".zip"))
    with progress("verifying", hidden=json_):
        found = list(
            bundles.verify(Path(what), trust)
            if is_bundle
            else ledgers.verify(load(project), what, trust, every=every)
        )
    if json_:
        print_json([asdict(one) for one in found])
    else:
        publications.verified(found)
    if any(one.ok is False for one in found):
        raise typer.Exit(3)


@app.command()
def bundle(
    run: Annotated[str, typer.Argument(help="The run.")],
    publication: Annotated[
        str, typer.Option(help="Its id or number; the last one if left out.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="RUN.bundle.zip")
    ] = None,
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Pack a run's evidence into one archive that anyone can verify, with nothing else."""
    settings = load(project)
    from flows.cli.output import publications
    from flows.publication.bundle import bundle as make

    with progress("packing", hidden=json_):
        done = make(settings, run, publication, output)
    if json_:
        print_json(vars(done))
    else:
        publications.bundled(done)


@app.command("roll-up")
def roll_up(
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0, help="Days since a file of readings ended.", show_default="[retention]"
        ),
    ] = None,
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Replace old, published readings by their sums over five minutes; figures stay as they are."""
    settings = load(project)
    from flows.cli.output import publications
    from flows.publication.retention import roll_up as run

    with progress("rolling up", hidden=json_):
        done = run(settings, older_than)
    if json_:
        print_json(vars(done))
    else:
        publications.rolled_up(done)
