"""Which days of a zone a provider is asked for: those that readings need, that are not final, and that no feed before it knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import duckdb
import polars as pl

from flows.settings import GridApiInput, Settings
from flows.warehouse.frames import load_query, register
from transforms import completeness

DAY = timedelta(days=1)
_LATENCY = timedelta(hours=3)
"""Providers are a few hours behind; what they cannot know yet is no reason to ask another."""
_ROUNDING_H = 1e-6


@dataclass(frozen=True)
class Span:
    """Whole days of UTC, the last one excluded."""

    first: datetime
    last: datetime

    @property
    def hours(self) -> float:
        return (self.last - self.first) / timedelta(hours=1)

    def clip(self, now: datetime) -> Span:
        """The part that a provider can know by now."""
        return Span(self.first, max(self.first, min(self.last, now - _LATENCY)))


def plan_spans(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: GridApiInput,
    feeds_before: Sequence[str],
    now: datetime,
) -> list[Span]:
    """The spans that a provider is asked for.

    Args:
        con: An open connection.
        settings: The project.
        source: The provider.
        feeds_before: Feeds that count more; days that they know are left out.
        now: The present.
    """
    days = _find_needed_days(con, settings, source, now) - _find_final_days(con, settings, source)
    covered = _find_covered_days(con, settings, source.zone, feeds_before, days, now)
    return _join_days(days - covered)


def count_missing_hours(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: GridApiInput,
    span: Span,
    now: datetime,
) -> tuple[float, float] | None:
    """Hours that a feed knows of a span, and hours that it could know by now; None where it knows them all."""
    due = span.clip(now)
    [hours] = _count_known_hours(con, settings, source.zone, source.name, [due])
    return (hours, due.hours) if hours + _ROUNDING_H < due.hours else None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _list_days(first: datetime, last: datetime) -> set[date]:
    """Days that lie between two times or touch them."""
    begin, end = first.astimezone(UTC).date(), last.astimezone(UTC).date()
    return {begin + n * DAY for n in range((end - begin).days + 1)}


def _join_days(days: Iterable[date]) -> list[Span]:
    """Neighbouring days as spans."""
    spans: list[Span] = []
    for day in sorted(days):
        start = _midnight(day)
        if spans and spans[-1].last == start:
            spans[-1] = Span(spans[-1].first, start + DAY)
        else:
            spans.append(Span(start, start + DAY))
    return spans


def _find_needed_days(
    con: duckdb.DuckDBPyConnection, settings: Settings, source: GridApiInput, now: datetime
) -> set[date]:
    """Days with readings, and as many hours around them as alternatives look at."""
    around = timedelta(hours=settings.grid.shift_h)
    segments = con.execute(
        "SELECT min(first_ts), max(last_ts) FROM segment_profile GROUP BY segment_id"
    ).fetchall()
    spans = [(first - around, last + around) for first, last in segments if first and last]
    if not spans:
        spans = [(now - timedelta(hours=source.lookback_h), now)]
    return set().union(*(_list_days(first, min(last, now)) for first, last in spans))


def _find_final_days(
    con: duckdb.DuckDBPyConnection, settings: Settings, source: GridApiInput
) -> set[date]:
    """Days that the feed was asked for so long after them that the answer counts as final."""
    attempts = con.execute(
        "SELECT first_ts, least(last_ts, last_attempt_at - $settle) FROM grid_fetch "
        "WHERE feed = $feed AND zone = $zone AND outcome <> 'failed'",
        {
            "settle": timedelta(hours=settings.grid.settle_h),
            "feed": source.name,
            "zone": source.zone,
        },
    ).fetchall()
    return set().union(*(_list_days(first, last - DAY) for first, last in attempts))


def _find_covered_days(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    zone: str,
    feeds: Sequence[str],
    days: Iterable[date],
    now: datetime,
) -> set[date]:
    """Days that one of some feeds knows, as far as anybody can know them yet."""
    due = {
        day: span
        for day in days
        if (span := Span(_midnight(day), _midnight(day) + DAY).clip(now)).hours
    }
    covered: set[date] = set()
    for feed in feeds:
        hours = _count_known_hours(con, settings, zone, feed, list(due.values()))
        covered |= {
            day
            for (day, span), known in zip(due.items(), hours, strict=True)
            if known + _ROUNDING_H >= span.hours
        }
    return covered


def _count_known_hours(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    zone: str,
    feed: str,
    spans: Sequence[Span],
) -> list[float]:
    """Hours of each span that a feed knows, as one kind of series or as a mix in which no fuel is missing."""
    if not spans:
        return []
    incomplete = find_stored_incomplete(
        con,
        settings,
        zone,
        feed,
        Span(min(span.first for span in spans), max(span.last for span in spans)),
    )
    parameters = {
        "zone": zone,
        "feed": feed,
        "first": [span.first for span in spans],
        "last": [span.last for span in spans],
    }
    with register(con, incomplete_interval=incomplete):
        hours = dict(con.execute(load_query("ingest/known_hours"), parameters).fetchall())
    return [hours.get(span.first, 0.0) for span in spans]


def find_stored_incomplete(
    con: duckdb.DuckDBPyConnection, settings: Settings, zone: str, feed: str, span: Span
) -> pl.DataFrame:
    """Intervals of a stored mix in a span that lack fuels (`completeness.find_incomplete`)."""
    around = timedelta(days=settings.grid.reference_days)
    mix = con.execute(
        "SELECT zone, feed, valid_from, valid_to, fuel, generation_kw FROM grid_mix "
        "WHERE zone = $zone AND feed = $feed AND superseded_at IS NULL "
        "AND valid_to > $first AND valid_from < $last",
        {"zone": zone, "feed": feed, "first": span.first - around, "last": span.last + around},
    ).pl()
    found = completeness.find_incomplete(mix.lazy(), settings.grid)
    return found.filter(pl.col("valid_to") > span.first, pl.col("valid_from") < span.last)
