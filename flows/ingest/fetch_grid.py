"""Fetch grid data from providers: which days of which zone, from whom next, and what became of it.

Answers are kept as files under `fetched/` and loaded like all others; every attempt is a row of
grid_fetch, also one that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from flows.errors import BadInput, SettingsError, SourceError, UsageError
from flows.files import hash_file
from flows.ingest.grid import load_fetched
from flows.settings import GridApiInput, Settings, Zone
from flows.sources.grid.kept_answers import KeptAnswers
from flows.sources.grid.providers.base import (
    Ask,
    Page,
    Question,
    ReadSecretBlock,
    Request,
    read_secret,
    resolve_url,
)
from flows.sources.grid.providers.http import send_request
from flows.sources.grid.providers.registry import load_provider
from flows.warehouse.locks import transaction
from flows.warehouse.registry import Outcome, quarantine_file
from flows.warehouse.store import explain_disk_errors, open_for_writing, store_of
from transforms.constants import FILE_FEED

_DAY = timedelta(days=1)
_LATENCY = timedelta(hours=3)
"""Providers are a few hours behind; what they can't know yet is no reason to ask another."""
_SKEW_S = 300
"""Clocks further apart than this are worth a word."""
_ROUNDING_H = 1e-6


@dataclass(frozen=True)
class Span:
    """Whole days of UTC, the last one excluded."""

    first: datetime
    last: datetime

    def known_by(self, now: datetime) -> Span:
        """The part that a provider can know by now."""
        return Span(self.first, max(self.first, min(self.last, now - _LATENCY)))

    @property
    def hours(self) -> float:
        return (self.last - self.first) / timedelta(hours=1)


def signal_of(settings: Settings, source: GridApiInput) -> str:
    """What a provider is asked for.

    Raises:
        SettingsError: its intensities are of another kind than the zone's.
    """
    gives = load_provider(source.provider).signals
    wanted = source.signal or settings.zones.get(source.zone, Zone()).signal
    if wanted in gives:
        return wanted
    if gives[0].startswith("average_"):
        raise SettingsError(
            f"{source.provider} gives {gives[0]}, but zone {source.zone!r} uses {wanted}",
            where=f"input.grid_api {source.name!r}",
            remedy=f'Set signal = "{gives[0]}" under [zones.{source.zone}], or use another provider',
        )
    return gives[0]


def ask_once(source: GridApiInput, request: Request, read_block: ReadSecretBlock) -> Page:
    """Ask for one page, with the secret from where it is kept.

    Raises:
        SourceError: no answer, a refusal or nonsense.
        UsageError: the secret is not there.
    """
    system = load_provider(source.provider)
    secret = read_secret(source, system, read_block)
    return send_request(
        request,
        system.auth(secret, resolve_url(source, system)) if secret else None,
        secret,
        timeout_s=source.timeout_s,
        expect=system.form,
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
        with open_for_writing(store_of(settings)) as con:
            # What happens at the margin is another question: no other feed can answer it.
            alone = load_provider(source.provider).signals == ("marginal",)
            if span:
                parts = [span]
            else:
                days = _needed(con, settings, source, moment) - _final(con, settings, source)
                parts = _joined(days if alone else days - _covered(con, zone, before, days, moment))
        outcomes += [_fetch(settings, source, part, ask_of(source)) for part in parts]
        if not alone:
            before.append(source.name)
    return outcomes


def _fetch(settings: Settings, source: GridApiInput, span: Span, ask: Ask) -> Outcome:
    """Fetch, keep and load one span, and record the attempt."""
    name = f"{source.name} {source.zone} {span.first:%Y-%m-%d} to {span.last - _DAY:%Y-%m-%d}"
    try:
        signal = signal_of(settings, source)
        question = Question(source, signal, span.first, span.last)
        pages = load_provider(source.provider).pages(question, ask)
        answers = KeptAnswers(question, tuple(pages))
    except (SourceError, BadInput, UsageError) as error:
        # A token that is missing here is no reason to leave the next provider unasked.
        with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
            _record(con, source, span, "failed", str(error))
        return Outcome(name, "", "unreachable", reason=str(error))
    path = _keep(settings, answers)
    with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
        try:
            outcome, told_new = load_fetched(settings, path)
        except BadInput as error:
            # The name of the file has the time in it: the same fault again is the same reason.
            reason = str(error).replace(str(path), f"answer of {source.name}")
            quarantine_file(con, settings, path, hash_file(path), "grid", reason)
            path.unlink()
            _record(con, source, span, "failed", reason)
            return Outcome(name, "", "unreachable", reason=reason)
        if not told_new:
            path.unlink()
        due = span.known_by(datetime.now(UTC))
        [hours] = _known_hours(con, source.zone, source.name, [due])
        partial = hours + _ROUNDING_H < due.hours
        reason = f"{hours:.6g} of {due.hours:.6g} hours" if partial else ""
        kind = "partial" if partial else "fetched"
        _record(con, source, span, kind, reason, outcome.rows_read, outcome.rows_loaded)
    if partial:
        outcome.warnings.append(f"{source.name} gave {reason}")
    skew = max((abs(page.clock_skew_s) for page in answers.pages), default=0)
    if skew > _SKEW_S:
        outcome.warnings.append(
            f"the provider's clock and this host's differ by {skew:.0f} s: check the time here"
        )
    return outcome


def _keep(settings: Settings, answers: KeptAnswers) -> Path:
    """Write the answers to a file that is whole or not there."""
    question, pages = answers.question, answers.pages
    source = question.source
    folder = settings.root / "fetched" / source.name / source.zone.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    stamp = pages[-1].obtained_at if pages else datetime.now(UTC).isoformat()
    when = datetime.fromisoformat(stamp)
    days = f"{question.first:%Y%m%d}-{question.last:%Y%m%d}"
    path = folder / f"{days}-{when:%Y%m%dT%H%M%S%f}Z.json"
    half = path.with_suffix(".part")
    with half.open("w", encoding="utf-8") as file:
        file.write(answers.as_json())
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    return path


def _record(
    con: duckdb.DuckDBPyConnection,
    source: GridApiInput,
    span: Span,
    outcome: str,
    reason: str,
    intervals: int = 0,
    changed: int = 0,
) -> None:
    """Write the attempt; one that repeats the last one of this zone is counted there."""
    with transaction(con):
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


def _days(first: datetime, last: datetime) -> set[date]:
    """Days that lie between two times or touch them."""
    begin, end = first.astimezone(UTC).date(), last.astimezone(UTC).date()
    return {begin + n * _DAY for n in range((end - begin).days + 1)}


def _joined(days: Iterable[date]) -> list[Span]:
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
) -> set[date]:
    """Days with readings, and as many hours around them as alternatives look at."""
    around = timedelta(hours=settings.grid.shift_h)
    read = con.execute(
        "SELECT min(first_ts), max(last_ts) FROM segment_profile GROUP BY segment_id"
    ).fetchall()
    spans = [(first - around, last + around) for first, last in read if first and last]
    if not spans:
        spans = [(now - timedelta(hours=source.lookback_h), now)]
    return set().union(*(_days(first, min(last, now)) for first, last in spans))


def _final(con: duckdb.DuckDBPyConnection, settings: Settings, source: GridApiInput) -> set[date]:
    """Days that the feed was asked for so long after them that the answer counts as final."""
    asked = con.execute(
        "SELECT first_ts, least(last_ts, last_attempt_at - ?) FROM grid_fetch "
        "WHERE feed = ? AND zone = ? AND outcome <> 'failed'",
        [timedelta(hours=settings.grid.settle_h), source.name, source.zone],
    ).fetchall()
    return set().union(*(_days(first, last - _DAY) for first, last in asked))


_KNOWN_HOURS = """
    WITH known AS (
        SELECT
            if(signal = 'marginal', 'marginal', 'average') AS what,
            valid_from, valid_to, zone, feed, superseded_at
        FROM grid_intensity
        UNION ALL
        SELECT 'mix', valid_from, valid_to, zone, feed, superseded_at FROM grid_mix
    ),
    span AS (
        SELECT unnest($first::TIMESTAMPTZ[]) AS first, unnest($last::TIMESTAMPTZ[]) AS last
    ),
    part AS (
        -- One interval may have several fuels, or several kinds of intensity.
        SELECT DISTINCT first, what, greatest(valid_from, first) AS a, least(valid_to, last) AS b
        FROM span JOIN known ON valid_to > first AND valid_from < last
        WHERE zone = $zone AND feed = $feed AND superseded_at IS NULL
    ),
    total AS (
        SELECT first, what, sum(epoch_us(b) - epoch_us(a)) / 3.6e9 AS hours FROM part GROUP BY ALL
    )
    SELECT first, max(hours) FROM total GROUP BY first
"""


def _known_hours(
    con: duckdb.DuckDBPyConnection, zone: str, feed: str, spans: Sequence[Span]
) -> list[float]:
    """Hours of each span that a feed knows, as one kind of series or as mix."""
    values = {
        "zone": zone,
        "feed": feed,
        "first": [span.first for span in spans],
        "last": [span.last for span in spans],
    }
    found = dict(con.execute(_KNOWN_HOURS, values).fetchall())
    return [found.get(span.first, 0.0) for span in spans]


def _covered(
    con: duckdb.DuckDBPyConnection,
    zone: str,
    before: Sequence[str],
    days: Iterable[date],
    now: datetime,
) -> set[date]:
    """Days that a feed which counts more knows, as far as anybody can know them yet."""
    due = {
        day: span
        for day in days
        if (span := Span(_midnight(day), _midnight(day) + _DAY).known_by(now)).hours
    }
    found: set[date] = set()
    for feed in before:
        hours = _known_hours(con, zone, feed, list(due.values()))
        found |= {
            day
            for (day, span), known in zip(due.items(), hours, strict=True)
            if known + _ROUNDING_H >= span.hours
        }
    return found
