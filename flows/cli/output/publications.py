"""What verification and bundles look like to people."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from flows.cli.output.console import console as console_for_people
from flows.publication.bundle import Bundled
from flows.publication.retention import RolledUp
from flows.publication.verify import Finding

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
    "figures": "every figure follows again from what is kept, to the last digit",
}


def verified(found: list[Finding]) -> None:
    """What was looked at, by publication; then everything that failed or can't be checked."""
    console = console_for_people()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("publication", "checked", "", "as it should be", "of"):
        table.add_column(name, justify="right" if name in ("as it should be", "of") else "left")
    counted: Counter[tuple[str, str]] = Counter((one.publication_id, one.what) for one in found)
    for (publication, what), count in counted.items():
        group = [one for one in found if (one.publication_id, one.what) == (publication, what)]
        good = sum(one.ok is True for one in group)
        bad = any(one.ok is False for one in group)
        mark = (
            "[bold red]FAILED[/]" if bad else "[green]ok[/]" if good else "[yellow]not checked[/]"
        )
        meaning = f"{what}: {_MEANING[what]}"
        table.add_row(escape(publication), meaning, mark, f"{good:,}", f"{count:,}")
    console.print(table)
    for one in found:
        place = f"{one.publication_id}: {one.what}, {one.place}: {one.detail}"
        if one.ok is False:
            console.print(f"[bold red]failed:[/] {escape(place)}", soft_wrap=True)
        elif one.ok is None:
            console.print(f"[yellow]not checked:[/] {escape(place)}", soft_wrap=True)
    failed = sum(one.ok is False for one in found)
    if failed:
        console.print(f"\n[bold red]{failed} of {len(found):,} checks failed[/]")
    else:
        console.print(f"\n[bold green]verified[/]: {len(found):,} checks, none failed")


def bundled(done: Bundled) -> None:
    """Where a bundle is, and what is in it."""
    console_for_people().print(
        f"{escape(str(done.path))}: run {escape(done.run_id)}, publication {done.publication_id}, "
        f"{done.readings:,} readings, {done.size_bytes / 1e6:.1f} MB\n"
        f"anyone verifies it with: wattledger verify {escape(done.path.name)}\n"
        f"digest of its manifest: {done.manifest_sha256}",
        soft_wrap=True,
    )


def rolled_up(done: RolledUp) -> None:
    """What became of old readings."""
    console = console_for_people()
    console.print(
        f"{done.segments:,} files: {done.readings:,} readings became {done.pieces:,} sums; "
        f"{done.readings_left:,} are left where runs begin or end within five minutes"
    )
    if done.segments_waiting:
        console.print(
            f"{done.segments_waiting:,} old files stay as they are: not published yet, or overlapping others"
        )
