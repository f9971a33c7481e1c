"""Other meters beside the ledger's own: codecarbon's of runs, PDU, IPMI and bills of hosts and sites."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import expand_paths, name_for_people, open_plain_text
from flows.ingest.codecarbon import record_second_meter
from flows.ingest.progress import Progress, no_progress
from flows.rows import count_of
from flows.settings import Settings
from flows.sources import meters
from flows.sources.runs import codecarbon
from flows.sources.verdict import identify_file, judge_file
from flows.times import describe_span, parse_zone
from flows.warehouse import registry
from flows.warehouse.frames import insert
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome
from flows.warehouse.store import open_exclusively, store_of


def ingest_meter(
    settings: Settings, paths: Iterable[str | Path], tz: str = "", progress: Progress = no_progress
) -> list[Outcome]:
    """Load what other meters say.

    A row of codecarbon's emissions.csv belongs to the run whose id or name is its project_name and
    whose time it overlaps (view `meter_agreement`); energies of hosts and sites are compared with
    the ledger's over the same time (view `meter_reconciliation`).

    Raises:
        UsageError: an unknown time zone.
        WarehouseError: the disk or the warehouse failed.
    """
    if tz:
        parse_zone(tz)
    outcomes = []
    with open_exclusively(store_of(settings), "meters") as con:
        for path in expand_paths(paths):
            progress(path)
            outcomes.append(_load_file(con, settings, path, tz))
    return outcomes


def _load_file(con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, tz: str) -> Outcome:
    """Load a file of another meter; one that cannot be used goes to quarantine."""
    try:
        digest = f"{identify_file(path)} meter {tz}".strip()
    except BadInput as error:
        return registry.refuse_unread(path, error)
    if registry.find_loaded(con, [digest]):
        return Outcome(name_for_people(path), digest, "known")
    try:
        with judge_file(path):
            read = _read(settings, path, tz)
    except BadInput as error:
        return registry.quarantine_file(con, settings, path, digest, "meter", str(error))
    if isinstance(read, codecarbon.HistoryRead):
        return record_second_meter(con, path, digest, read)
    return _record(con, path, digest, read)


def _read(settings: Settings, path: Path, tz: str) -> codecarbon.HistoryRead | meters.MetersRead:
    """Read a file of another meter, of either kind.

    Raises:
        BadInput: it is of neither kind, or cannot be used.
    """
    share = settings.ingest.max_bad_rows_share
    with open_plain_text(path, settings.work / "staging") as plain:
        with plain.open(encoding="utf-8-sig", errors="replace") as file:
            head = next((line for line in file if line.strip()), "")
        if codecarbon.is_emissions(head):
            return codecarbon.read(path, plain, tz, share)
        if meters.is_meter_table(head):
            return meters.read(path, plain, tz, share)
    raise BadInput(
        "neither an emissions.csv of codecarbon nor a meter's CSV",
        where=str(path),
        remedy=f"They need the columns {', '.join(codecarbon.NEEDED)}, or {', '.join(meters.COLUMNS)}",
    )


def _record(
    con: duckdb.DuckDBPyConnection, path: Path, digest: str, read: meters.MetersRead
) -> Outcome:
    """Write energies of hosts and sites, in place of those of the same meter and time."""
    intervals = read.intervals
    file = registry.File(
        segment_id=digest,
        source_name=name_for_people(path),
        source_format="meter",
        verdict="loaded",
        rows_read=read.rows,
        rows_loaded=len(intervals),
        rows_skipped=sum(read.faults.skipped.values()),
        first_ts=min((interval.valid_from for interval in intervals), default=None),
        last_ts=max((interval.valid_to for interval in intervals), default=None),
    )
    with transaction(con):
        key = registry.record_file(con, file)
        registry.quarantine_rows(con, digest, read.faults.rows)
        for interval in intervals:
            row = {
                "meter": interval.meter,
                "scope": interval.scope,
                "metered": interval.metered,
                "valid_from": interval.valid_from,
                "valid_to": interval.valid_to,
            }
            # A corrected bill, or a file that grew.
            con.execute(
                "DELETE FROM meter_reading WHERE meter = $meter AND scope = $scope "
                "AND metered = $metered AND valid_from < $valid_to AND valid_to > $valid_from",
                row,
            )
            values = {"energy_mj": interval.energy_mj, "source_name": str(path), "segment_key": key}
            insert(con, "meter_reading", [{**row, **values}])
    outcome = registry.add_row_faults(file.as_outcome(), read.faults)
    if intervals:
        names = sorted({interval.metered for interval in intervals})
        span = describe_span(intervals[0].valid_from, max(i.valid_to for i in intervals))
        total = sum(interval.energy_mj for interval in intervals) / 3.6e9
        outcome.understood = [
            f"{count_of(len(intervals), 'interval')} of {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}, "
            f"{span}, {total:,.4g} kWh"
        ]
    return outcome
