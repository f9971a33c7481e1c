"""Other meters beside the ledger's own: codecarbon's of runs, PDU, IPMI and bills of hosts and sites."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb

from flows.errors import BadInput
from flows.files import expand_paths, hash_file, open_plain_text
from flows.ingest.codecarbon import record_second_meter
from flows.ingest.progress import Progress, no_progress
from flows.settings import Settings
from flows.sources import meters
from flows.sources.runs import codecarbon
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
        UsageError: times are local and no zone was given.
        WarehouseError: the disk or the warehouse failed.
    """
    outcomes = []
    with open_exclusively(store_of(settings), "meters") as con:
        for path in expand_paths(paths):
            progress(path)
            digest = f"{hash_file(path)} meter {tz}".strip()
            if registry.find_loaded(con, [digest]):
                outcomes.append(Outcome(str(path), digest, "known"))
                continue
            try:
                outcomes.append(_load(con, settings, path, digest, tz))
            except BadInput as error:
                outcomes.append(
                    registry.quarantine_file(con, settings, path, digest, "meter", str(error))
                )
    return outcomes


def _load(
    con: duckdb.DuckDBPyConnection, settings: Settings, path: Path, digest: str, tz: str
) -> Outcome:
    with open_plain_text(path, settings.work / "staging") as plain:
        text = plain.read_text("utf-8-sig")
    head = text.splitlines()[0]
    if codecarbon.is_emissions(head):
        return record_second_meter(con, path, digest, codecarbon.read(path, text, tz))
    if meters.is_meter_table(head):
        return _record(con, path, digest, meters.read(path, text, tz))
    raise BadInput(
        "neither an emissions.csv of codecarbon nor a meter's CSV",
        where=str(path),
        remedy=f"They need the columns {', '.join(codecarbon.NEEDED)}, or {', '.join(meters.COLUMNS)}",
    )


def _record(
    con: duckdb.DuckDBPyConnection, path: Path, digest: str, intervals: list[meters.MeterInterval]
) -> Outcome:
    """Write energies of hosts and sites, in place of those of the same meter and time."""
    file = registry.File(
        segment_id=digest,
        source_name=str(path),
        source_format="meter",
        verdict="loaded",
        rows_read=len(intervals),
        rows_loaded=len(intervals),
        first_ts=min((interval.valid_from for interval in intervals), default=None),
        last_ts=max((interval.valid_to for interval in intervals), default=None),
    )
    with transaction(con):
        key = registry.record_file(con, file)
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
    return file.as_outcome()
