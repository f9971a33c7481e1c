"""Fetch grid data from providers: which days of which zone, from whom next, and what became of it.

Answers are kept as files under `fetched/` and loaded like all others; every attempt is a row of
grid_fetch, also one that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from flows.catalogue import Outcome, quarantine
from flows.errors import BadInput, SettingsError, SourceError
from flows.ingest_grid import load_fetched
from flows.settings import GridApiInput, Settings, Zone
from flows.sources.files import sha256
from flows.sources.providers import provider
from flows.sources.providers.base import Ask, Kept, Page, Request, secret_of
from flows.sources.providers.http import send
from flows.warehouse import disk_errors, transaction, writing
from transforms.schemas import FILE_FEED

_DAY = timedelta(days=1)
_LATENCY = timedelta(hours=3)
"""Providers are a few hours behind; what they can't know yet is no reason to ask another."""
_SKEW_S = 300
"""Clocks further apart than this are worth a word."""


@dataclass(frozen=True)
class Span:
    """Whole days of UTC, the last one excluded."""

    first: datetime
    last: datetime


def signal_of(settings: Settings, source: GridApiInput) -> str:
    """What a provider is asked for.

    Raises:
        SettingsError: its intensities are of another kind than the zone's.
    """
    gives = provider(source.provider).signal
    wanted = settings.zones.get(source.zone, Zone()).signal
    if source.provider == "electricity-maps":
        return source.signal or wanted
    if gives.startswith("average_") and gives != wanted:
        raise SettingsError(
            f"{source.provider} gives {gives}, but zone {source.zone!r} uses {wanted}",
            where=f"input.grid_api {source.name!r}",
            remedy=f'Set signal = "{gives}" under [zones.{source.zone}], or use another provider',
        )
    return gives


def ask_once(source: GridApiInput, request: Request) -> Page:
    """Ask for one page, with the secret from where it is kept.

    Raises:
        SourceError: no answer, a refusal or nonsense.
        UsageError: the secret is not there.
    """
    system = provider(source.provider)
    secret = secret_of(source, system)
    return send(
        request,
        system.auth(secret, source.url or system.url) if secret else None,
        secret,
        timeout_s=source.timeout_s,
        expect="xml" if source.provider == "entsoe" else "json",
    )


def fetch_zone(
    settings: Settings,
    zone: str,
    ask_of: Callable[[GridApiInput], Ask],
    span: Span | None = None,
    now: datetime | None = None,
) -> list[Outcome]:
    """Ask the providers of a zone in order, each for the days that those before it left open.

    Without a span: the days that the readings need and that are not final. A provider that fails
    is recorded, and the next one is asked.
    """
    moment = now or datetime.now(UTC)
    outcomes: list[Outcome] = []
    before = [FILE_FEED]
    for source in settings.input.grid_api:
        if source.zone != zone:
            continue
        with writing(settings.warehouse) as con:
            days = _days(span) if span else _needed(con, settings, source, moment)
            # What happens at the margin is another question: no other feed can answer it.
            alone = provider(source.provider).signal == "marginal"
            if not alone and not span:
                days = [day for day in days if not _covered(con, zone, before, day, moment)]
            if not span:
                days = [day for day in days if not _final(con, settings, source, day)]
        outcomes += [_fetch(settings, source, part, ask_of(source)) for part in _joined(days)]
        if not alone:
            before.append(source.name)
    return outcomes


def _fetch(settings: Settings, source: GridApiInput, span: Span, ask: Ask) -> Outcome:
    """Fetch, keep and load one span, and record the attempt."""
    name = f"{source.name} {source.zone} {span.first:%Y-%m-%d} to {span.last - _DAY:%Y-%m-%d}"
    try:
        signal = signal_of(settings, source)
        asked = provider(source.provider).pages(source, signal, span.first, span.last, ask)
        found = Kept(source, signal, span.first, span.last, tuple(asked))
    except (SourceError, BadInput, SettingsError) as error:
        _record(settings, source, span, "failed", str(error), 0, 0)
        return Outcome(name, "", "unreachable", reason=str(error))
    path = _keep(settings, found)
    try:
        outcome, told_new = load_fetched(settings, path)
    except BadInput as error:
        # The name of the file has the time in it: the same fault again is the same reason.
        reason = str(error).replace(str(path), f"answer of {source.name}")
        with writing(settings.warehouse) as con, disk_errors(settings.warehouse):
            quarantine(con, settings, path, sha256(path), "grid", reason)
        path.unlink()
        _record(settings, source, span, "failed", reason, 0, 0)
        return Outcome(name, "", "unreachable", reason=reason)
    if not told_new:
        path.unlink()
    skew = max((abs(page.clock_skew_s) for page in found.pages), default=0)
    if skew > _SKEW_S:
        outcome.warnings.append(
            f"the provider's clock and this host's differ by {skew:.0f} s: check the time here"
        )
    hours = _hours_known(settings, source, span)
    wanted = _hours_wanted(span)
    partial = hours + 1e-6 < wanted
    reason = f"{hours:g} of {wanted:g} hours" if partial else ""
    if partial:
        outcome.warnings.append(f"{source.name} gave {reason}")
    _record(
        settings,
        source,
        span,
        "partial" if partial else "fetched",
        reason,
        outcome.rows_read,
        outcome.rows_loaded,
    )
    return outcome


def _keep(settings: Settings, found: Kept) -> Path:
    """Write the answers to a file that is whole or not there."""
    folder = settings.root / "fetched" / found.source.name / found.source.zone.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    stamp = found.pages[-1].obtained_at if found.pages else datetime.now(UTC).isoformat()
    when = datetime.fromisoformat(stamp)
    path = folder / f"{found.first:%Y%m%d}-{found.last:%Y%m%d}-{when:%Y%m%dT%H%M%S%f}Z.json"
    half = path.with_suffix(".part")
    with half.open("w", encoding="utf-8") as file:
        file.write(found.as_json())
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    return path


def _record(
    settings: Settings,
    source: GridApiInput,
    span: Span,
    outcome: str,
    reason: str,
    intervals: int,
    changed: int,
) -> None:
    """Write the attempt; one that repeats the last one of this zone is counted there."""
    with (
        writing(settings.warehouse) as con,
        disk_errors(settings.warehouse),
        transaction(con),
    ):
        key = [source.name, source.zone]
        last = con.execute(
            "SELECT first_ts, last_ts, outcome, reason, first_attempt_at FROM grid_fetch "
            "WHERE feed = ? AND zone = ? ORDER BY last_attempt_at DESC LIMIT 1",
            key,
        ).fetchall()
        if last and last[0][:4] == (span.first, span.last, outcome, reason):
            con.execute(
                "UPDATE grid_fetch SET last_attempt_at = now(), attempts = attempts + 1, "
                "intervals = ?, changed = changed + ? "
                "WHERE feed = ? AND zone = ? AND first_attempt_at = ?",
                [intervals, changed, *key, last[0][4]],
            )
            return
        con.execute(
            "INSERT INTO grid_fetch VALUES (?, ?, ?, ?, ?, ?, ?, now(), now(), 1, ?, ?)",
            [
                source.name,
                source.provider,
                source.zone,
                span.first,
                span.last,
                outcome,
                reason,
                intervals,
                changed,
            ],
        )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _days(span: Span) -> list[date]:
    count = (span.last - span.first) // _DAY
    return [(span.first + n * _DAY).date() for n in range(count)]


def _joined(days: Sequence[date]) -> list[Span]:
    """Neighbouring days as spans."""
    found: list[Span] = []
    for day in sorted(days):
        start = _midnight(day)
        if found and found[-1].last == start:
            found[-1] = Span(found[-1].first, start + _DAY)
        else:
            found.append(Span(start, start + _DAY))
    return found


def _needed(
    con: duckdb.DuckDBPyConnection, settings: Settings, source: GridApiInput, now: datetime
) -> list[date]:
    """Days with readings, and as many hours around them as alternatives look at."""
    around = timedelta(hours=settings.grid.shift_h)
    read = con.execute(
        "SELECT DISTINCT min(first_ts), max(last_ts) FROM segment_profile GROUP BY segment_id"
    ).fetchall()
    spans = [(first - around, last + around) for first, last in read if first and last]
    if not spans:
        spans = [(now - timedelta(hours=source.lookback_h), now)]
    days: set[date] = set()
    for first, last in spans:
        day, end = first.astimezone(UTC).date(), min(last, now).astimezone(UTC).date()
        while day <= end:
            days.add(day)
            day += _DAY
    return sorted(days)


def _final(
    con: duckdb.DuckDBPyConnection, settings: Settings, source: GridApiInput, day: date
) -> bool:
    """Whether the feed was asked for the day long enough after it to count as final."""
    start = _midnight(day)
    settled = start + _DAY + timedelta(hours=settings.grid.settle_h)
    [(count,)] = con.execute(
        "SELECT count(*) FROM grid_fetch WHERE feed = ? AND zone = ? AND outcome <> 'failed' "
        "AND first_ts <= ? AND last_ts >= ? AND last_attempt_at >= ?",
        [source.name, source.zone, start, start + _DAY, settled],
    ).fetchall()
    return bool(count)


_KNOWN_HOURS = """
    SELECT coalesce(sum(epoch_us(least(valid_to, $last)) - epoch_us(greatest(valid_from, $first))), 0)
        / 3.6e9
    FROM (
        SELECT DISTINCT valid_from, valid_to FROM {table}
        WHERE zone = $zone AND feed = $feed AND superseded_at IS NULL
            AND valid_to > $first AND valid_from < $last {more}
    )
"""


def _known_hours(
    con: duckdb.DuckDBPyConnection, zone: str, feed: str, first: datetime, last: datetime
) -> float:
    """Hours of a span that a feed knows, as series or as mix."""
    values: dict[str, Any] = {"zone": zone, "feed": feed, "first": first, "last": last}
    found = [0.0]
    for table, more in (
        ("grid_intensity", "AND signal <> 'marginal'"),
        ("grid_intensity", "AND signal = 'marginal'"),
        ("grid_mix", ""),
    ):
        [(hours,)] = con.execute(_KNOWN_HOURS.format(table=table, more=more), values).fetchall()
        found.append(float(hours))
    return max(found)


def _covered(
    con: duckdb.DuckDBPyConnection, zone: str, before: Sequence[str], day: date, now: datetime
) -> bool:
    """Whether a feed that counts more knows the whole day, as far as anybody can know it yet."""
    first = _midnight(day)
    last = min(first + _DAY, now - _LATENCY)
    if last <= first:
        return False
    wanted = (last - first) / timedelta(hours=1)
    return any(_known_hours(con, zone, feed, first, last) + 1e-6 >= wanted for feed in before)


def _hours_known(settings: Settings, source: GridApiInput, span: Span) -> float:
    with writing(settings.warehouse) as con:
        last = min(span.last, datetime.now(UTC) - _LATENCY)
        return round(_known_hours(con, source.zone, source.name, span.first, last), 3)


def _hours_wanted(span: Span) -> float:
    last = min(span.last, datetime.now(UTC) - _LATENCY)
    return round(max(0.0, (last - span.first) / timedelta(hours=1)), 3)
