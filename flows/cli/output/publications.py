"""What the gate, publishing, verification, bundles and roll-ups print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from expectations.checks import Verdict
from flows.cli.output.console import make_console, make_table
from flows.cli.output.figures import make_runs_table
from flows.cli.output.loading import print_refusals
from flows.publication.bundle import Bundled
from flows.publication.findings import Finding, find_unverified
from flows.publication.publish import Published
from flows.publication.reader import PublishedFigures
from flows.publication.retention import RolledUp
from flows.reporting.numbers import format_number

if TYPE_CHECKING:
    from flows.orchestration.pipeline import Report

_FLEET = {"idle": "GPUs that no run held", "unallocated": "unheld shares of GPUs"}
_MEANING = {
    "manifest": "the manifest is the one that the ledger names",
    "signature": "it is signed with the key",
    "entry": "the entry's digest follows from what it says",
    "chain": "each publication names the one before",
    "file": "every file has the bytes that were published",
    "table": "every table has the rows that were published",
    "view": "every view asks what it asked",
    "kept": "readings, runs and grid data are those of then",
    "warehouse": "the warehouse still holds what was published",
    "cache": "what computations keep follows from the readings",
    "figures": "every figure follows again from what is kept, to the last digit",
}


def print_pipeline(report: Report, published: Published, figures: PublishedFigures) -> None:
    """Print what a pipeline did: files, old readings that were rolled up, the publication."""
    console = make_console()
    loaded = [outcome for outcome in report.outcomes if outcome.verdict == "loaded"]
    known = sum(outcome.verdict == "known" for outcome in report.outcomes)
    console.print(
        f"{len(report.outcomes)} files: {len(loaded)} loaded "
        f"({sum(outcome.rows_loaded for outcome in loaded):,} rows), {known} known already, "
        f"{len(report.refused)} refused"
    )
    print_refusals(console, report.outcomes)
    if report.rolled_up is not None and report.rolled_up.segments:
        print_rolled_up(report.rolled_up)
    print_published(published, figures)


def print_published(published: Published, figures: PublishedFigures) -> None:
    """Print the publication in force: its runs, warnings and files."""
    console = make_console()
    console.print()
    if figures.sample:
        console.print(
            "[bold yellow]SAMPLE DATA: these GPU readings were generated, not measured[/]"
        )
    if figures.runs:
        console.print(make_runs_table(figures.runs))
    else:
        console.print("No runs are recorded yet: load a run table with `wattledger ingest runs`")
    for kind, meaning in _FLEET.items():
        if kind in figures.fleet:
            row = figures.fleet[kind]
            console.print(
                f"[dim]{kind} ({meaning}): {format_number(row['facility_kwh'])} kWh facility, "
                f"{format_number(row['co2e_kg'])} kg CO2e[/]"
            )
    _print_restatements(console, figures.restated)
    for warning in published.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    state = "published" if published.changed else "unchanged since"
    console.print(f"\n{state} [bold]{published.publication_id}[/]")
    for name, path in (
        ("figures", published.database),
        ("report", published.report),
        ("summary", published.summary),
        ("Data Docs", published.data_docs),
    ):
        console.print(f"  {name:<10} {escape(str(path))}", soft_wrap=True)
    if published.manifest_sha256:
        console.print(
            f"digest of its manifest, to be kept elsewhere (verify --expect): {published.manifest_sha256}",
            soft_wrap=True,
        )


def _print_restatements(console: Console, restated: Sequence[dict[str, Any]]) -> None:
    for row in restated:
        before, after = (row[f"co2e_{when}_ug"] for when in ("before", "after"))
        figures = " -> ".join(
            "none" if ug is None else format_number(ug / 1e9) for ug in (before, after)
        )
        console.print(
            f"restated: {escape(row['run_id'])}, {figures} kg CO2e, because of "
            f"{escape(row['causes'] or 'unknown')}",
            soft_wrap=True,
        )


def flatten_verdicts(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One mapping for each check of each suite, with at most ten rows that failed it."""
    return [
        {
            "suite": verdict.suite.name,
            "check": result.check.name,
            "severity": result.check.severity,
            "statement": result.check.statement,
            "success": result.success,
            "unexpected_rows": result.unexpected,
            "examples": result.rows[:10],
        }
        for verdict in verdicts
        for result in verdict.results
    ]


def print_verdicts(verdicts: Sequence[Verdict], docs: Path) -> None:
    """Print each suite in a line, with every check that did not pass below it."""
    from expectations.gate import describe_result

    console = make_console()
    for verdict in verdicts:
        passed = sum(result.success for result in verdict.results)
        colour = "green" if verdict.success else "bold red"
        console.print(
            f"[{colour}]{'passed' if verdict.success else 'failed'}[/] {verdict.suite.name}: "
            f"{passed} of {len(verdict.results)} checks on {verdict.checked_rows:,} rows"
        )
        for result in verdict.results:
            if not result.success:
                mark = "red" if result.check.severity == "fail" else "yellow"
                console.print(
                    f"  [{mark}]{result.check.severity}[/] {result.check.name}: {escape(describe_result(result))}",
                    soft_wrap=True,
                )
    console.print(f"Data Docs  {escape(str(docs / 'index.html'))}", soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what was verified, by publication; then everything that failed or cannot be checked."""
    console = make_console()
    table = make_table()
    for name in ("publication", "checked", "", "as it should be", "of"):
        table.add_column(name, justify="right" if name in ("as it should be", "of") else "left")
    counts = Counter((finding.publication_id, finding.what) for finding in findings)
    for (publication, what), count in counts.items():
        results = [
            finding.ok
            for finding in findings
            if (finding.publication_id, finding.what) == (publication, what)
        ]
        table.add_row(
            escape(publication),
            f"{what}: {_MEANING[what]}",
            _mark_results(results),
            f"{results.count(True):,}",
            f"{count:,}",
        )
    console.print(table)
    for finding in findings:
        place = f"{finding.publication_id}: {finding.what}, {finding.place}: {finding.detail}"
        if finding.ok is False:
            console.print(f"[bold red]failed:[/] {escape(place)}", soft_wrap=True)
        elif finding.ok is None:
            console.print(f"[yellow]not checked:[/] {escape(place)}", soft_wrap=True)
    failed = sum(finding.ok is False for finding in findings)
    unchecked = sum(finding.ok is None for finding in findings)
    if failed:
        console.print(f"\n[bold red]{failed} of {len(findings):,} checks failed[/]")
    elif (unverified := find_unverified(findings)) is not None:
        console.print(
            f"\n[bold red]not verified[/]: no check failed, but the figures of {unverified.publication_id} were "
            "not computed again",
            soft_wrap=True,
        )
    else:
        left = f"; {unchecked:,} could not be made, as said above" if unchecked else ""
        console.print(f"\n[bold green]verified[/]: {len(findings):,} checks, none failed{left}")


def _mark_results(results: Sequence[bool | None]) -> str:
    if False in results:
        return "[bold red]FAILED[/]"
    return "[green]ok[/]" if True in results else "[yellow]not checked[/]"


def print_bundle(bundled: Bundled) -> None:
    """Print where a bundle is, and what is in it."""
    make_console().print(
        f"{escape(str(bundled.path))}: run {escape(bundled.run_id)}, publication {bundled.publication_id}, "
        f"{bundled.readings:,} readings, {bundled.size_bytes / 1e6:.1f} MB\n"
        f"anyone verifies it with: wattledger verify {escape(bundled.path.name)}\n"
        f"digest of its manifest: {bundled.manifest_sha256}",
        soft_wrap=True,
    )


def print_signed(signed: Sequence[str]) -> None:
    """Print which publications were signed now."""
    what = f"signed {', '.join(signed)}" if signed else "every publication is signed already"
    make_console().print(what, soft_wrap=True)


def print_rolled_up(rolled_up: RolledUp) -> None:
    """Print what became of old readings."""
    console = make_console()
    console.print(
        f"{rolled_up.segments:,} files: {rolled_up.readings:,} readings became {rolled_up.pieces:,} sums; "
        f"{rolled_up.readings_left:,} are left where runs begin or end within five minutes"
    )
    if rolled_up.segments_waiting:
        console.print(
            f"{rolled_up.segments_waiting:,} old files stay as they are: not published yet, or overlapping others"
        )
