"""What the command line prints for people: tables, three significant digits, where things are."""

from __future__ import annotations

import csv
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from expectations.checks import Verdict
from flows.accounting.compute import Computed
from flows.cli.output.console import console as console_for_people
from flows.errors import UsageError
from flows.factors import Factor
from flows.publication.history import Difference
from flows.publication.publish import Published
from flows.publication.revisions import Recomputed
from flows.reporting import explain, frames
from flows.reporting.frames import Asked, Frame
from flows.reporting.numbers import format_change, format_number, format_percent, format_range
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.frames import query_rows
from flows.warehouse.registry import Outcome
from flows.warehouse.store import FileStore, Store, store_of
from wattledger.spool.spool import Spool

_VERDICTS = {
    "loaded": "green",
    "known": "dim",
    "quarantined": "bold red",
    "unreachable": "bold red",
}


def outcomes(found: list[Outcome]) -> None:
    """One line per file, then what was refused and why."""
    console = console_for_people()
    table = Table(box=None, pad_edge=False)
    for name in ("file", "verdict"):
        table.add_column(name)
    for name in ("rows", "loaded", "known already", "skipped"):
        table.add_column(name, justify="right")
    for one in found[:40]:
        table.add_row(
            escape(_short(one.path)),
            f"[{_VERDICTS[one.verdict]}]{one.verdict}[/]",
            *(
                f"{n:,}" if one.verdict == "loaded" else ""
                for n in (one.rows_read, one.rows_loaded, one.rows_duplicate, one.rows_skipped)
            ),
        )
    console.print(table)
    if len(found) > 40:
        console.print(f"... and {len(found) - 40} more files")
    _notes(console, found)


def _notes(console: Console, found: list[Outcome]) -> None:
    for one in found:
        for said in one.warnings:
            console.print(
                f"[yellow]note:[/] {escape(_short(one.path))}: {escape(said)}", soft_wrap=True
            )
    _refusals(console, found)


def _refusals(console: Console, found: list[Outcome]) -> None:
    for one in found:
        if one.verdict in ("quarantined", "unreachable"):
            what = "refused" if one.verdict == "quarantined" else "unreachable"
            console.print(f"[bold red]{what}:[/] {escape(one.reason)}", soft_wrap=True)


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path


def run_rows(database: Store) -> list[dict[str, Any]]:
    """The view run_summary as dictionaries."""
    con = database.connect(read_only=True)
    try:
        return query_rows(con, "FROM run_summary")
    finally:
        con.close()


def runs_table(found: list[dict[str, Any]]) -> Table:
    """Runs with energy, carbon and water, each with low - high, and measured share."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    for head in (
        "GPU energy\nkWh",
        "facility\nkWh",
        "CO2e (location)\nkg",
        "water on site\nL",
        "water off site\nL",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("measured\nenergy/CO2e", justify="right", no_wrap=True)
    for run in found:
        cells = []
        for name, unit in (
            ("energy", "kwh"),
            ("facility", "kwh"),
            ("co2e", "kg"),
            ("water_onsite", "l"),
            ("water_offsite", "l"),
        ):
            low, high = run[f"{name}_low_{unit}"], run[f"{name}_high_{unit}"]
            cells.append(
                f"{format_number(run[f'{name}_{unit}'])}\n[dim]{format_range(low, high)}[/]"
            )
        shares = f"{format_percent(run['energy_measured_share'])}\n[dim]{format_percent(run['co2e_measured_share'])}[/]"
        table.add_row(escape(run["run_id"]), *cells, shares)
    return table


def pipeline(settings: Settings, report: Any) -> None:
    """The end of the pipeline: files, runs, where the results are."""
    console = console_for_people()
    fresh = [o for o in report.outcomes if o.verdict == "loaded"]
    known = sum(o.verdict == "known" for o in report.outcomes)
    console.print(
        f"{len(report.outcomes)} files: {len(fresh)} loaded ({sum(o.rows_loaded for o in fresh):,} "
        f"rows), {known} known already, {len(report.refused)} refused"
    )
    _refusals(console, report.outcomes)
    if report.rolled_up is not None and report.rolled_up.segments:
        from flows.cli.output.publications import rolled_up

        rolled_up(report.rolled_up)
    published(settings, report.published)


def computed(settings: Settings, done: Computed) -> None:
    console = console_for_people()
    console.print(runs_table(run_rows(store_of(settings))))
    console.print(
        f"\n{done.readings:,} readings, {done.runs} runs; {done.recomputed:,} of {done.slots:,} slots of "
        "GPUs computed anew. Not published yet: `wattledger publish`"
    )


def published(settings: Settings, done: Published) -> None:
    """The publication in force: its runs, warnings and files."""
    console = console_for_people()
    con = connect(done.database, read_only=True)
    try:
        found = query_rows(con, "FROM run_summary")
        entry = query_rows(con, "FROM publication ORDER BY sequence DESC LIMIT 1")[0]
        fleet = {row["kind"]: row for row in query_rows(con, "FROM fleet_summary")}
        restated = query_rows(
            con,
            "FROM restatement WHERE publication_id = $id ORDER BY run_id LIMIT 20",
            {"id": done.publication_id if done.changed else ""},
        )
    finally:
        con.close()
    console.print()
    if entry["sample"]:
        console.print(
            "[bold yellow]SAMPLE DATA: these GPU readings were generated, not measured[/]"
        )
    if found:
        console.print(runs_table(found))
    else:
        console.print("No runs are recorded yet: load a run table with `wattledger ingest runs`")
    for kind, said in (("idle", "GPUs that no run held"), ("unallocated", "unheld shares of GPUs")):
        if kind in fleet:
            console.print(
                f"[dim]{kind} ({said}): {format_number(fleet[kind]['facility_kwh'])} kWh facility, "
                f"{format_number(fleet[kind]['co2e_kg'])} kg CO2e[/]"
            )
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
    for said in done.warnings:
        console.print(f"[yellow]warning:[/] {escape(said)}", soft_wrap=True)
    state = "published" if done.changed else "unchanged since"
    console.print(f"\n{state} [bold]{done.publication_id}[/]")
    for name, path in (
        ("figures", done.database),
        ("report", done.report),
        ("summary", done.summary),
        ("Data Docs", done.data_docs),
    ):
        console.print(f"  {name:<10} {escape(str(path))}", soft_wrap=True)


def verdict_rows(found: list[Verdict]) -> list[dict[str, Any]]:
    return [
        {
            "suite": v.suite.name,
            "check": r.check.name,
            "severity": r.check.severity,
            "statement": r.check.statement,
            "success": r.success,
            "unexpected_rows": r.unexpected,
            "examples": r.rows[:10],
        }
        for v in found
        for r in v.results
    ]


def verdicts(found: list[Verdict], docs: Path) -> None:
    """Every suite in a line, every check that did not pass below it."""
    from expectations.gate import describe

    console = console_for_people()
    for verdict in found:
        passed = sum(r.success for r in verdict.results)
        colour = "green" if verdict.success else "bold red"
        console.print(
            f"[{colour}]{'passed' if verdict.success else 'failed'}[/] {verdict.suite.name}: "
            f"{passed} of {len(verdict.results)} checks on {verdict.checked_rows:,} rows"
        )
        for result in verdict.results:
            if not result.success:
                mark = "red" if result.check.severity == "fail" else "yellow"
                console.print(
                    f"  [{mark}]{result.check.severity}[/] {result.check.name}: {escape(describe(result))}",
                    soft_wrap=True,
                )
    console.print(f"Data Docs  {escape(str(docs / 'index.html'))}", soft_wrap=True)


def _database(settings: Settings, *, warehouse: bool) -> Store:
    store: Store = (
        store_of(settings) if warehouse else FileStore(settings.published / "published.duckdb")
    )
    if not store.exists():
        raise UsageError(
            "nothing has been loaded yet" if warehouse else "nothing has been published yet",
            where=str(store),
            remedy="Run `wattledger pipeline`",
        )
    return store


def query(settings: Settings, sql: str, *, warehouse: bool, as_json: bool, as_csv: bool) -> None:
    """Run one statement, read-only and without access to files or network, and print the result.

    Raises:
        UsageError: nothing published yet, or the statement is wrong.
    """
    store = _database(settings, warehouse=warehouse)
    con = store.connect(read_only=True)
    try:
        store.restrict(con)
        con.execute("SET lock_configuration = true")
        result = con.execute(sql)
        names = [column[0] for column in result.description or []]
        if as_json:
            print(
                json.dumps(
                    [dict(zip(names, r, strict=True)) for r in result.fetchall()],
                    default=str,
                    indent=2,
                )
            )
            return
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(names)
            while chunk := result.fetchmany(10_000):
                writer.writerows(chunk)
            return
        _print_rows(names, result.fetchmany(1001))
    except duckdb.Error as error:
        raise UsageError(str(error).splitlines()[0], remedy="See docs/data-dictionary.md") from None
    finally:
        con.close()


def frame(settings: Settings, wanted: Frame, asked: Asked, *, as_json: bool, as_csv: bool) -> None:
    """Print a reporting frame: YAML and emissions.csv as they are, the others as tables.

    Raises:
        UsageError: nothing is published of what was asked for.
    """
    con = _database(settings, warehouse=False).connect(read_only=True)
    try:
        reports = frames.report(con, wanted, asked)
        publication = frames.published(con)
    finally:
        con.close()
    if as_json:
        whole = {
            "frame": wanted.name,
            "publication_id": publication["publication_id"],
            "sample": publication["sample"],
            "reports": reports,
        }
        print(json.dumps(whole, default=str, indent=2))
        return
    if publication["sample"]:
        print("SAMPLE DATA: these GPU readings were generated, not measured", file=sys.stderr)
    if as_csv or wanted is frames.CODECARBON:
        print(frames.as_csv(wanted, reports), end="")
        return
    if wanted is frames.HUGGING_FACE:
        print(frames.as_yaml(reports), end="")
        return
    console = console_for_people()
    console.print(f"[bold]{escape(wanted.title)}[/]\n{escape(wanted.about)}")
    for one in reports:
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        table.add_column(escape(one["subject"]), overflow="fold")
        for name in ("value", "low", "high"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("", style="dim", overflow="fold", max_width=60)
        for entry in one["entries"]:
            numbers = (
                "" if entry[bound] is None else format_number(entry[bound])
                for bound in ("value", "low", "high")
            )
            table.add_row(escape(entry["field"]), *numbers, entry["unit"], escape(entry["remark"]))
        console.print()
        console.print(table)
    console.print(f"\npublication {publication['publication_id']}")


def _print_rows(names: list[str], found: list[tuple[Any, ...]]) -> None:
    console = console_for_people()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(names):
        numeric = bool(found) and all(isinstance(r[i], int | float | None) for r in found)
        table.add_column(escape(name), justify="right" if numeric else "left")
    for row in found[:1000]:
        table.add_row(*(escape("" if v is None else str(v)) for v in row))
    console.print(table)
    if len(found) > 1000:
        console.print("... more than 1,000 rows: use --csv or --json, or add a LIMIT")


def report(settings: Settings) -> Path:
    """Print the runs of the publication in force and where its report is."""
    database = _database(settings, warehouse=False)
    console = console_for_people()
    console.print(runs_table(run_rows(database)))
    path = settings.published / "report.html"
    console.print(f"\nreport  {escape(str(path))}", soft_wrap=True)
    return path


def status_of(settings: Settings) -> dict[str, Any]:
    """What is loaded, computed, published and refused, as plain values."""
    con = _database(settings, warehouse=True).connect(read_only=True)
    try:
        from flows.publication.revisions import revised
        from flows.warehouse.digests import digest_inputs

        computed = query_rows(con, "FROM computation")
        fresh = bool(computed) and computed[0]["input_digest"] == digest_inputs(con)
        return {
            "readings": query_rows(
                con,
                "SELECT count(*) AS rows, min(ts) AS first_ts, max(ts) AS last_ts, "
                "count(DISTINCT gpu_key) AS gpus FROM gpu_reading",
            )[0],
            "grid": query_rows(
                con,
                "SELECT zone, signal, count(*) AS intervals, min(valid_from) AS first, "
                "max(valid_to) AS last FROM grid_intensity WHERE superseded_at IS NULL GROUP BY ALL "
                "UNION ALL SELECT zone, 'generation mix', count(DISTINCT valid_from), min(valid_from), "
                "max(valid_to) FROM grid_mix WHERE superseded_at IS NULL GROUP BY ALL ORDER BY ALL",
            ),
            "runs": con.execute(
                "SELECT count(*) FROM training_run WHERE superseded_at IS NULL"
            ).fetchall()[0][0],
            "computed_at": computed[0]["computed_at"] if computed else None,
            "computed_is_current": fresh,
            "published": query_rows(
                con,
                "SELECT publication_id, published_at FROM publication ORDER BY sequence DESC LIMIT 1",
            ),
            "quarantine": query_rows(con, "FROM quarantine ORDER BY recorded_at"),
            "providers": query_rows(
                con,
                "SELECT feed, zone, outcome, reason, last_attempt_at, attempts FROM grid_fetch "
                "QUALIFY row_number() OVER (PARTITION BY feed, zone ORDER BY last_attempt_at DESC) = 1 "
                "ORDER BY zone, feed",
            ),
            "revised": revised(con, settings),
        }
    finally:
        con.close()


def status(found: dict[str, Any]) -> None:
    console = console_for_people()
    readings = found["readings"]
    span = f", {readings['first_ts']} to {readings['last_ts']}" if readings["rows"] else ""
    console.print(f"readings   {readings['rows']:,} of {readings['gpus']} GPUs{span}")
    for series in found["grid"]:
        console.print(
            f"grid       {escape(series['zone'])} {series['signal']}: {series['intervals']:,} intervals, "
            f"{series['first']} to {series['last']}"
        )
    console.print(f"runs       {found['runs']}")
    current = "current" if found["computed_is_current"] else "older than the data"
    console.print(
        f"computed   {found['computed_at'] or 'never'}{f' ({current})' if found['computed_at'] else ''}"
    )
    last = found["published"]
    console.print(
        f"published  {last[0]['publication_id'] + ' at ' + str(last[0]['published_at']) if last else 'never'}"
    )
    for asked in found["providers"]:
        colour = {"failed": "red", "partial": "yellow"}.get(asked["outcome"], "green")
        times = f", {asked['attempts']} times" if asked["attempts"] > 1 else ""
        why = f": {asked['reason']}" if asked["reason"] else ""
        console.print(
            f"[{colour}]{asked['outcome']:<10}[/] {escape(asked['feed'])} for {escape(asked['zone'])} "
            f"at {asked['last_attempt_at']:%Y-%m-%d %H:%MZ}{times}{escape(why)}",
            soft_wrap=True,
        )
    for run in found["revised"]:
        console.print(
            f"[yellow]revised[/]    {escape(run['run_id'])}: grid data of {run['slots']:,} slots changed since "
            f"it was published; CO2e {format_number(run['co2e_kg'])} kg would change by "
            f"{format_change(run['co2e_change_kg'])} kg, water off site {format_number(run['water_offsite_l'])} L by "
            f"{format_change(run['water_offsite_change_l'])} L",
            soft_wrap=True,
        )
    if found["revised"]:
        console.print(
            "           `wattledger pipeline` publishes it; what is published stays as it is"
        )
    for refused in found["quarantine"]:
        console.print(f"[red]refused[/]    {escape(refused['reason'])}", soft_wrap=True)


def factors(found: list[Factor], *, as_json: bool) -> None:
    """A table of factors; overrides stand out."""
    if as_json:
        print(json.dumps([vars(f) for f in found], default=str, indent=2))
        return
    console = console_for_people()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("factor", "scope"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "low", "high"):
        table.add_column(name, justify="right")
    for name in ("unit", "year"):
        table.add_column(name, no_wrap=True)
    table.add_column("source", overflow="ellipsis", no_wrap=True, max_width=_SOURCE_WIDTH)
    for f in found:
        numbers = (f"{bound:.4g}" for bound in (f.value, f.low, f.high))
        table.add_row(
            f.factor,
            escape(f.scope),
            *numbers,
            f.unit,
            str(f.year or ""),
            escape(f.source),
            style="bold yellow" if f.origin == "override" else "",
        )
    console.print(table)
    console.print(f"{len(found)} factors; the whole source: wattledger factors show FACTOR SCOPE")


def factor(found: Factor, own: Factor | None, *, as_json: bool) -> None:
    """One factor in full, and the shipped one that it stands in for."""
    if as_json:
        print(json.dumps({**vars(found), "shipped": own and vars(own)}, default=str, indent=2))
        return
    console = console_for_people()
    console.print(f"[bold]{found.factor}[/] {escape(found.scope)}")
    for one in (found, *([own] if own else [])):
        console.print(
            f"  {one.value:g} ({one.low:g} to {one.high:g}){_unit(one)}, {one.origin}",
            soft_wrap=True,
        )
        console.print(f"    source   {escape(one.source)}", soft_wrap=True)
        year = f", {one.year}" if one.year else ""
        console.print(f"    terms    {escape(one.licence)}{year}", soft_wrap=True)


def _unit(one: Factor) -> str:
    return "" if one.unit == "1" else f" {one.unit}"


_SOURCE_WIDTH = 60
"""So that the numbers beside it stay whole."""


def recomputed(done: Recomputed) -> None:
    """A publication and its recomputation, run by run."""
    console = console_for_people()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "published kg CO2e", "computed again", ""):
        table.add_column(name, justify="left" if name in ("run", "") else "right")
    for run in done.runs:
        again = run["co2e_again_kg"]
        table.add_row(
            escape(run["run_id"] or run["kind"]),
            f"{run['co2e_kg']:.9f}",
            "-" if again is None else f"{again:.9f}",
            "[green]same[/]" if run["identical"] else "[red]differs[/]",
        )
    console.print(table)
    console.print(
        f"\n{done.publication_id}, as known at {done.as_of:%Y-%m-%d %H:%M:%SZ}: "
        + ("the same to the last digit" if done.identical else "not the same")
    )


_COMPARED = {
    "facility_kwh": "facility kWh",
    "co2e_kg": "kg CO2e (location)",
    "water_onsite_l": "L water on site",
    "water_offsite_l": "L water off site",
}


def difference(done: Difference) -> None:
    """Two publications, run by run: figures after, and how far they moved; then why."""
    console = console_for_people()
    console.print(f"[bold]{done.before}[/] and [bold]{done.after}[/]")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run")
    for title in _COMPARED.values():
        table.add_column(title, justify="right")
    same = 0
    for run in done.runs:
        pairs = [(run[f"{name}_before"], run[f"{name}_after"]) for name in _COMPARED]
        if all(before == after for before, after in pairs):
            same += 1
            continue
        table.add_row(escape(run["run_id"]), *(_moved(before, after) for before, after in pairs))
    if same < len(done.runs):
        console.print(table)
    if same:
        console.print(f"{same} run{'s' if same > 1 else ''}: the same")
    _causes(console, [vars(cause) for cause in done.causes])


def history(run_id: str, found: list[dict[str, Any]]) -> None:
    """A run through all publications."""
    console = console_for_people()
    console.print(f"[bold]{escape(run_id)}[/]")
    before: dict[str, Any] = {}
    for row in found:
        figures = ", ".join(
            f"{_moved(before.get(name), row[name]) if before else format_number(row[name])} {title}"
            for name, title in _COMPARED.items()
        )
        console.print(
            f"\n{row['publication_id']}  {row['published_at']:%Y-%m-%d %H:%MZ}  {figures}",
            soft_wrap=True,
        )
        if before:
            _causes(console, row["causes"])
        before = row


def _moved(before: float | None, after: float | None) -> str:
    """A figure after, and how far from before."""
    if after is None:
        return "[red]gone[/]"
    if before is None:
        return f"{format_number(after)} [green]new[/]"
    if before == after:
        return format_number(after)
    return f"{format_number(after)} ({format_change(after - before)})"


def explained(settings: Settings, run_id: str, at: datetime | None, *, as_json: bool) -> None:
    """A run as arithmetic that a person can redo by hand.

    Raises:
        UsageError: nothing published, no such run, or no slot at that time.
    """
    con = _database(settings, warehouse=False).connect(read_only=True)
    try:
        found = explain.explain_run(con, run_id)
    finally:
        con.close()
    if as_json:
        print(json.dumps(found, default=str, indent=2))
        return
    console = console_for_people()
    console.print(f"[bold]{escape(run_id)}[/]\n\n[bold]1. Energy by GPU[/], mJ")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("GPU", "host"):
        table.add_column(name, no_wrap=True)
    for name in ("GPU-hours", "counter", "power integrated", "gaps", "filled", "energy"):
        table.add_column(name, justify="right")
    for gpu in found["gpus"]:
        numbers = ("counter_mj", "power_integral_mj", "gap_mj", "filled_mj", "energy_mj")
        table.add_row(
            escape(gpu["gpu_uuid"]),
            escape(gpu["host"]),
            f"{gpu['held_us'] / 3.6e9:.6g}",
            *(f"{gpu[name]:,}" for name in numbers),
        )
    console.print(table)
    slot = explain.find_slot(found, at)
    console.print(
        f"\n[bold]2. One of its {len(found['slots'])} slots of five minutes[/]: "
        f"{slot['slot_start']:%Y-%m-%d %H:%MZ} at {escape(slot['site'])}, zone {escape(slot['zone'])}; "
        "each result is rounded to whole units, and mJ x g/kWh / 3600 is ug"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for what, how, much in explain.describe_arithmetic(slot):
        table.add_row(what, f"= {escape(how)}", f"= {much}")
    console.print(table)
    console.print("\n[bold]3. The sum of its slots[/]")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    for _ in range(2):
        table.add_column(justify="right", no_wrap=True)
    units = {"mj": ("mJ", 3.6e9, "kWh"), "ug": ("ug", 1e9, "kg"), "ul": ("uL", 1e6, "L")}
    for name, total in found["totals"].items():
        unit, scale, large = units[name.rpartition("_")[2]]
        table.add_row(name, f"{total:,} {unit}", f"{total / scale:,.9g} {large}")
    console.print(table)
    console.print("\n[bold]4. Where the intensities are from[/]")
    for source in found["sources"]:
        feed = f" of {source['feed']}" if source["feed"] else ""
        console.print(
            f"{source['quantity']}: {format_percent(source['energy_share'])} {source['rung']}{escape(feed)}: "
            f"{escape(source['source'])}",
            soft_wrap=True,
        )
    console.print("\n[bold]5. Factors[/]")
    for one in found["factors"]:
        own = " [yellow](own)[/]" if one["origin"] == "override" else ""
        console.print(
            f"{one['factor']} {escape(one['scope'])} = {one['value']:.9g} ({one['low']:.9g} to "
            f"{one['high']:.9g}) {one['unit']}{own}: {escape(one['source'])}",
            soft_wrap=True,
        )
    console.print("\nAll slots: --json. The formulas: docs/method.md")


def _causes(console: Console, causes: list[dict[str, Any]]) -> None:
    if not causes:
        console.print("No input differs.")
    for cause in causes:
        console.print(
            f"[yellow]{cause['holds']}[/]: {cause['gone']:,} rows gone, {cause['new']:,} new; "
            f"{escape(cause['example'])}",
            soft_wrap=True,
        )


def collector(spool: Spool, *, as_json: bool) -> bool:
    """Print how this host's collector is doing; gives whether one runs."""
    running = spool.running()
    status = running or spool.status()
    if as_json:
        print(json.dumps({"running": running is not None, "spool": str(spool.folder), **status}))
        return running is not None
    if running is None:
        print(f"No collector runs on {spool.host} ({spool.folder}).")
        return False
    last = datetime.fromtimestamp(status.get("stored_until_us", 0) / 1e6, UTC)
    gpus = status.get("gpus", [])
    print(f"Collecting on {spool.host}, pid {status.get('pid')}: {len(gpus)} GPUs,")
    print(f"  every {status.get('period_s', 0):g} s, stored until {last:%Y-%m-%d %H:%M:%S}Z")
    print(
        f"  {status.get('readings_stored', 0):,} readings, {status.get('readings_missed', 0)} missed"
    )
    print(f"  spool {spool.folder}: {status.get('spool_bytes', 0) / 2**20:,.1f} MiB")
    for name in ("spool_problem", "driver_problem"):
        if status.get(name):
            print(f"  {name.replace('_', ' ')}: {status[name]}")
    for run in status.get("runs_active", []):
        print(f"  active run: {run}")
    return True
