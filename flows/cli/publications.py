"""Commands of the gate and the ledger: check, publish, explain, compare, verify, bundle, roll up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Project, load_settings
from flows.cli.output.console import print_json, progress

if TYPE_CHECKING:
    from flows.settings import Override

commands = typer.Typer()

Run = Annotated[str, typer.Argument(help="The run.")]


@commands.command()
def check(project: Project = Path(), json_: Json = False) -> None:
    """Run every check on the computed figures; publish nothing."""
    settings = load_settings(project)
    from flows.cli.output import publications as output
    from flows.publication.gate import check_candidate

    with progress("checking", hidden=json_):
        verdicts, docs = check_candidate(settings)
    if json_:
        print_json(output.flatten_verdicts(verdicts))
    else:
        output.print_verdicts(verdicts, docs)
    if not all(verdict.success for verdict in verdicts):
        raise typer.Exit(3)


@commands.command()
def publish(
    override: Annotated[
        list[str] | None,
        typer.Option(help="A check (SUITE.CHECK) that may fail; needs --by and --because."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who answers for the override.")] = "",
    because: Annotated[
        str,
        typer.Option(
            help="The reason for the override, or for this publication. The report prints it."
        ),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Check the computed figures and, if every check passes, put them in force."""
    settings = load_settings(project)
    from flows.cli.output import publications as output
    from flows.publication.publish import publish_candidate
    from flows.publication.reader import read_published

    overrides = _make_overrides(override or [], by.strip(), because.strip())
    with progress("checking and publishing", hidden=json_):
        published = publish_candidate(settings, overrides, because.strip())
    if json_:
        print_json(vars(published))
    else:
        output.print_published(published, read_published(published))


def _make_overrides(checks: list[str], by: str, reason: str) -> list[Override]:
    """Overrides of checks, for today."""
    from datetime import UTC, datetime

    from flows.settings import Override

    if checks and not (by and reason):
        raise typer.BadParameter("an override needs --by and --because", param_hint="--override")
    today = datetime.now(UTC).date()
    return [Override(check=name, by=by, reason=reason, until=today) for name in checks]


@commands.command()
def explain(
    run: Run,
    at: Annotated[
        str,
        typer.Option(
            help="A time (UTC); its slot is shown step by step.",
            show_default="the slot with most energy",
        ),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Show a published run as arithmetic: GPUs, one slot step by step, totals, sources, factors."""
    settings = load_settings(project)
    from flows.cli.output import explanation as output
    from flows.publication.reader import explain_published_run
    from flows.reporting.explain import find_slot
    from flows.times import parse_time

    moment = parse_time(at, "at", "--at", "UTC")
    explanation = explain_published_run(settings, run)
    if json_:
        print_json(explanation)
    else:
        output.print_explanation(run, explanation, find_slot(explanation, moment))


@commands.command()
def diff(
    before: Annotated[str, typer.Argument(help="A publication: its id, or its number: 0001.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Compare two publications: the figures of every run, and the inputs that differ."""
    settings = load_settings(project)
    from flows.cli.output import comparison as output
    from flows.publication.history import compare_publications

    difference = compare_publications(settings, before, after)
    if json_:
        print_json(asdict(difference))
    else:
        output.print_difference(difference)


@commands.command()
def history(run: Run, project: Project = Path(), json_: Json = False) -> None:
    """Show a run in every publication that has it, and what changed between them."""
    settings = load_settings(project)
    from flows.cli.output import comparison as output
    from flows.publication.history import trace_run

    entries = trace_run(settings, run)
    if json_:
        print_json(entries)
    else:
        output.print_history(run, entries)


@commands.command()
def recompute(
    publication: Annotated[str, typer.Argument(help="Its id, or its number: 0001.")],
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Compute a publication again from what was known then; exits with 3 if a figure differs."""
    settings = load_settings(project)
    from flows.cli.output import comparison as output
    from flows.publication.recompute import recompute_publication

    with progress("computing again", hidden=json_):
        recomputed = recompute_publication(settings, publication)
    if json_:
        print_json({**vars(recomputed), "identical": recomputed.identical})
    else:
        output.print_recomputed(recomputed)
    if not recomputed.identical:
        raise typer.Exit(3)


@commands.command()
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
        str,
        typer.Option(
            help="Digest that its manifest must have: of the last publication, or the one named."
        ),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Verify the ledger or a bundle: chain, digests, every figure computed again; exits with 3 if a check fails."""
    from flows.cli.output import publications as output
    from flows.publication.bundle import verify_bundle
    from flows.publication.findings import Trust, find_unverified
    from flows.publication.verify import verify_ledger

    trust = Trust(key, expect)
    is_bundle = bool(what) and (Path(what).is_file() or what.endswith(".zip"))
    with progress("verifying", hidden=json_):
        findings = list(
            verify_bundle(Path(what), trust)
            if is_bundle
            else verify_ledger(load_settings(project), what, trust, every=every)
        )
    if json_:
        print_json([asdict(finding) for finding in findings])
    else:
        output.print_findings(findings)
    if any(finding.ok is False for finding in findings) or find_unverified(findings):
        raise typer.Exit(3)


@commands.command()
def sign(
    expect: Annotated[
        str,
        typer.Option(help="Digest of the last publication's manifest, as `publish` printed it."),
    ] = "",
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Sign publications from before there was a key, once everything about them is verified."""
    settings = load_settings(project)
    from flows.cli.output import publications as output
    from flows.publication.signing import sign_ledger

    with progress("verifying and signing", hidden=json_):
        signed = sign_ledger(settings, expect)
    if json_:
        print_json({"signed": signed})
    else:
        output.print_signed(signed)


@commands.command()
def bundle(
    run: Run,
    publication: Annotated[
        str, typer.Option(help="Its id or number; the last one if left out.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="RUN.bundle.zip")
    ] = None,
    project: Project = Path(),
    json_: Json = False,
) -> None:
    """Pack a run's evidence into one archive that anyone can verify without the ledger."""
    settings = load_settings(project)
    from flows.cli.output.publications import print_bundle
    from flows.publication.bundle import write_bundle

    with progress("packing", hidden=json_):
        bundled = write_bundle(settings, run, publication, output)
    if json_:
        print_json(vars(bundled))
    else:
        print_bundle(bundled)


@commands.command("roll-up")
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
    """Replace old, published readings with their sums over five minutes; figures stay as they are."""
    settings = load_settings(project)
    from flows.cli.output import publications as output
    from flows.publication.retention import roll_up_old_readings

    with progress("rolling up", hidden=json_):
        rolled_up = roll_up_old_readings(settings, older_than)
    if json_:
        print_json(vars(rolled_up))
    else:
        output.print_rolled_up(rolled_up)
