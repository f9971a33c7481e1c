"""Grid data from providers: each is asked for what those before it left open, and every attempt is recorded.

Answers are kept as files under `fetched/` and loaded like all others; every attempt is a row of
grid_fetch, also one that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from flows.errors import BadInput, SettingsError, SourceError, UsageError
from flows.files import hash_file
from flows.ingest.grid import load_fetched
from flows.ingest.grid_days import DAY, Span, count_missing_hours, plan_spans
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
from flows.warehouse.frames import insert, query_rows
from flows.warehouse.locks import MOMENT, transaction
from flows.warehouse.registry import Outcome, quarantine_file
from flows.warehouse.store import explain_disk_errors, open_for_writing, store_of
from transforms.constants import FILE_FEED

_SKEW_S = 300
"""Clocks further apart than this are worth a warning."""


def _choose_signal(settings: Settings, source: GridApiInput) -> str:
    """The kind of intensity that a provider is asked for.

    Raises:
        SettingsError: its intensities are of another kind than the zone's.
    """
    offered = load_provider(source.provider).signals
    wanted = source.signal or settings.zones.get(source.zone, Zone()).signal
    if wanted in offered:
        return wanted
    if offered[0].startswith("average_"):
        raise SettingsError(
            f"{source.provider} gives {offered[0]}, but zone {source.zone!r} uses {wanted}",
            where=f"input.grid_api {source.name!r}",
            remedy=f'Set signal = "{offered[0]}" under [zones.{source.zone}], or use another provider',
        )
    return offered[0]


def request_page(source: GridApiInput, request: Request, read_block: ReadSecretBlock) -> Page:
    """Ask a provider for one page, with the secret from where it is kept.

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

    A provider that fails is recorded, and the next one is asked.

    Args:
        settings: The project.
        zone: The zone.
        ask_of: What asks a provider for a page.
        span: Days to ask all providers for; without it, those that the readings need and that are not final.
        now: The present.

    Returns:
        What became of each span.
    """
    now = now or datetime.now(UTC)
    outcomes: list[Outcome] = []
    feeds_before = [FILE_FEED]
    for source in settings.input.grid_api:
        if source.zone != zone:
            continue
        # What happens at the margin is another question: no other feed can answer it.
        is_marginal = load_provider(source.provider).signals == ("marginal",)
        if span:
            spans = [span]
        else:
            feeds = [] if is_marginal else feeds_before
            with open_for_writing(store_of(settings)) as con:
                spans = plan_spans(con, settings, source, feeds, now)
        outcomes += [_fetch_span(settings, source, days, ask_of(source)) for days in spans]
        if not is_marginal:
            feeds_before.append(source.name)
    return outcomes


def _fetch_span(settings: Settings, source: GridApiInput, span: Span, ask: Ask) -> Outcome:
    """Fetch, keep and load one span, and record the attempt."""
    name = f"{source.name} {source.zone} {span.first:%Y-%m-%d} to {span.last - DAY:%Y-%m-%d}"
    try:
        question = Question(source, _choose_signal(settings, source), span.first, span.last)
        pages = load_provider(source.provider).pages(question, ask)
        answers = KeptAnswers(question, tuple(pages))
    except (SourceError, BadInput, UsageError) as error:
        # A token that is missing here is no reason to leave the next provider unasked.
        with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
            _record_attempt(con, source, span, "failed", str(error))
        return Outcome(name, "", "unreachable", reason=str(error))
    path = _keep_answers(settings, answers)
    with open_for_writing(store_of(settings)) as con, explain_disk_errors(store_of(settings)):
        try:
            outcome = _load_answers(con, settings, source, span, path)
        except BadInput as error:
            # The name of the file has the time in it: the same fault again is the same reason.
            reason = str(error).replace(str(path), f"answer of {source.name}")
            quarantine_file(con, settings, path, hash_file(path), "grid", reason)
            path.unlink()
            _record_attempt(con, source, span, "failed", reason)
            return Outcome(name, "", "unreachable", reason=reason)
    skew = max((abs(page.clock_skew_s) for page in answers.pages), default=0)
    if skew > _SKEW_S:
        outcome.warnings.append(
            f"the provider's clock and this host's differ by {skew:.0f} s: check the time here"
        )
    return outcome


def _load_answers(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: GridApiInput,
    span: Span,
    path: Path,
) -> Outcome:
    """Load the kept answers of a span, and record how much of it they cover.

    Raises:
        BadInput: they cannot be read, or the gate refuses them.
    """
    outcome, is_new = load_fetched(settings, path)
    if not is_new:
        path.unlink()
    hours = count_missing_hours(con, settings, source, span, datetime.now(UTC))
    kind, reason = "fetched", ""
    if hours is not None:
        kind, reason = "partial", f"{hours[0]:.6g} of {hours[1]:.6g} hours"
        outcome.warnings.append(f"{source.name} gave {reason}")
    _record_attempt(con, source, span, kind, reason, outcome.rows_read, outcome.rows_loaded)
    return outcome


def _keep_answers(settings: Settings, answers: KeptAnswers) -> Path:
    """Write the answers to a file that is whole or not there."""
    question, pages = answers.question, answers.pages
    source = question.source
    folder = settings.root / "fetched" / source.name / source.zone.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    when = datetime.fromisoformat(pages[-1].obtained_at) if pages else datetime.now(UTC)
    days = f"{question.first:%Y%m%d}-{question.last:%Y%m%d}"
    path = folder / f"{days}-{when:%Y%m%dT%H%M%S%f}Z.json"
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(answers.as_json())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def _record_attempt(
    con: duckdb.DuckDBPyConnection,
    source: GridApiInput,
    span: Span,
    outcome: str,
    reason: str,
    intervals: int = 0,
    changed: int = 0,
) -> None:
    """Write an attempt as a row; one that repeats the last one of this feed and zone is counted there."""
    feed = {"feed": source.name, "zone": source.zone}
    counts = {"intervals": intervals, "changed": changed}
    result = {"first_ts": span.first, "last_ts": span.last, "outcome": outcome, "reason": reason}
    with transaction(con):
        last = query_rows(
            con,
            "SELECT first_ts, last_ts, outcome, reason, first_attempt_at FROM grid_fetch "
            "WHERE feed = $feed AND zone = $zone ORDER BY last_attempt_at DESC LIMIT 1",
            feed,
        )
        first_attempt_at = last[0].pop("first_attempt_at") if last else None
        if last == [result]:
            con.execute(
                f"UPDATE grid_fetch SET last_attempt_at = {MOMENT}, attempts = attempts + 1, "
                "intervals = $intervals, changed = changed + $changed "
                "WHERE feed = $feed AND zone = $zone AND first_attempt_at = $first_attempt_at",
                {**feed, **counts, "first_attempt_at": first_attempt_at},
            )
            return
        insert(
            con,
            "grid_fetch",
            [{**feed, "provider": source.provider, **result, **counts, "attempts": 1}],
            first_attempt_at=MOMENT,
            last_attempt_at=MOMENT,
        )
