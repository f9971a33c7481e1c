"""Clocks as people write them: times with and without a zone, read as UTC.

A time without a zone is never the clock of this machine: its zone is given, or it is refused. The hour
that a clock shows twice is told by what else is known (a duration, an order of rows), or refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from flows.errors import BadInput, UsageError

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""An earlier time is a clock that was never set, or a number in another unit."""
FUTURE = timedelta(days=1)
"""How far ahead of this machine's clock a time of something that happened may lie."""

NOT_A_TIME = "not a time"
NO_ZONE = "the time carries no zone"
NEVER_SHOWN = "the clock never showed this time (it was set forward)"
SHOWN_TWICE = "the clock showed this time twice (it was set back), and nothing tells which is meant"
UNBELIEVABLE = "the time lies before 2000 or in the future"

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_SAME_DURATION = timedelta(seconds=5)
"""How far the duration of a span may be from the one that is told beside it."""


def parse_offset(tz: str) -> timedelta | None:
    """The offset from UTC that +02:00 or -0530 means; None for anything else."""
    match = _OFFSET.fullmatch(tz)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return offset if sign == "+" else -offset


def parse_zone(tz: str) -> tzinfo:
    """The zone that a name (Europe/Berlin) or an offset (+02:00) means.

    Raises:
        UsageError: neither.
    """
    if (offset := parse_offset(tz)) is not None and abs(offset) < timedelta(days=1):
        return timezone(offset)
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"unknown time zone {tz!r}", remedy="Use a name such as Europe/Berlin, or +02:00"
        ) from None


def list_moments(value: Any, column: str, place: str, tz: str) -> list[datetime]:
    """The moments in UTC that a text or TOML time can mean: none, one, or two where a clock was set back.

    Args:
        value: The time as it was written; empty or None where there is none.
        column: The name of the field, for the message.
        place: File and line, for the message.
        tz: The zone of times that carry none; empty if such times are refused.

    Raises:
        BadInput: not a time, or one that the clock never showed.
        UsageError: it has no zone, and `tz` gives none.
    """
    if value in (None, ""):
        return []
    where = f"{place}, column {column!r}, value {str(value)[:80]!r}"
    try:
        moment = (
            value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        )
        if moment.tzinfo is not None:
            return [moment.astimezone(UTC)]
        if not tz:
            raise UsageError(
                NO_ZONE, where=where, remedy="Write 2025-07-26T23:30:00Z, or pass --tz"
            )
        zone = parse_zone(tz)
        moments = {moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    except (ValueError, OverflowError):
        raise BadInput(NOT_A_TIME, where=where, remedy="Write 2025-07-26T23:30:00Z") from None
    shown = [m for m in moments if m.astimezone(zone).replace(tzinfo=None) == moment]
    if not shown:
        raise BadInput(
            NEVER_SHOWN, where=where, remedy="Check --tz, or give a fixed offset such as +01:00"
        )
    return sorted(shown)


def parse_time(value: Any, column: str, place: str, tz: str) -> datetime | None:
    """A moment in UTC from a text or TOML time; None where there is none.

    Args: as `list_moments`.

    Raises:
        BadInput: not a time, or one that the clock never showed, or showed twice.
        UsageError: it has no zone, and `tz` gives none.
    """
    moments = list_moments(value, column, place, tz)
    if len(moments) > 1:
        raise _refuse_ambiguous(f"{place}, column {column!r}, value {str(value)[:80]!r}")
    return moments[0] if moments else None


def parse_span(
    start: tuple[str, Any],
    end: tuple[str, Any],
    place: str,
    tz: str,
    elapsed: timedelta | None = None,
) -> tuple[datetime | None, datetime | None]:
    """Start and end in UTC. Where a clock was set back, order and duration tell which moments are meant.

    Args:
        start: Name of the field, and the time as it was written.
        end: The same of the end.
        place: File and line, for the message.
        tz: The zone of times that carry none.
        elapsed: Time between them, where it is told.

    Raises:
        BadInput: not a time, a time that the clock never showed, or one of two that nothing tells apart.
        UsageError: a time has no zone, and `tz` gives none.
    """
    starts = list_moments(start[1], start[0], place, tz)
    ends = list_moments(end[1], end[0], place, tz)
    if len(starts) < 2 and len(ends) < 2:
        return (starts[0] if starts else None), (ends[0] if ends else None)
    if starts and ends:
        pairs = [(first, last) for first, last in product(starts, ends) if first <= last]
        if elapsed is not None:
            pairs = [p for p in pairs if abs(p[1] - p[0] - elapsed) <= _SAME_DURATION]
        if len(pairs) == 1:
            return pairs[0]
    column, value = start if len(starts) > 1 else end
    raise _refuse_ambiguous(f"{place}, column {column!r}, value {str(value)[:80]!r}")


def _refuse_ambiguous(where: str) -> BadInput:
    return BadInput(
        SHOWN_TWICE,
        where=where,
        remedy="Write the times with their offset, such as 2025-10-26T02:10:00+01:00",
    )


def is_believable(moment: datetime, now: datetime | None = None) -> bool:
    """Whether something can have happened then: after 2000, and not in the future."""
    return EARLIEST <= moment <= (now or datetime.now(UTC)) + FUTURE


def describe_span(first: datetime, last: datetime) -> str:
    """A span as people read it: `2026-02-03 08:00:00 to 09:30:00 UTC`."""
    end = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {end} UTC"


_NAIVE_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M",
    "%Y%m%dT%H%M%S%.f",
)
"""Day and month of 03/04/2026 cannot be told apart: such times need a description of the file."""
_AWARE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f %z", "%Y-%m-%d %H:%M %z")


def parse_texts(text: pl.Series) -> pl.DataFrame:
    """Times as texts, each by the first format that fits it.

    Returns:
        `utc`, where the text names its zone, and `naive`, where it does not; both null where it is no time.
    """
    clean = text.str.strip_chars(" \t\r\"'")
    naive = _parse_by_first(clean, _NAIVE_FORMATS).cast(pl.Datetime("us"))
    utc = pl.Series([None], dtype=_UTC).new_from_index(0, clean.len())
    # Patterns cost more than formats, and most files have one format throughout.
    rest = (naive.is_null() & clean.is_not_null()).arg_true()
    if rest.len():
        spaced = (
            clean.gather(rest)
            .str.replace(r"(?i)\s*(z|utc|gmt)$", "+00:00")
            .str.replace(r"^(\d{4})/(\d{2})/(\d{2})", "$1-$2-$3")
            .str.replace(r"^(\d{4}-\d{2}-\d{2})T", "$1 ")
            .str.replace(r"(:\d{2}(?:\.\d+)?)\s*([+-]\d{2})$", "$1 $2:00")
            .str.replace(r"(:\d{2}(?:\.\d+)?)\s*([+-]\d{2}:?\d{2})$", "$1 $2")
        )
        utc = utc.scatter(rest, _parse_by_first(spaced, _AWARE_FORMATS).cast(_UTC))
    return pl.DataFrame({"utc": utc, "naive": naive})


def _parse_by_first(text: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """Each text by the first format that fits it; the next format is tried of those that are left."""
    parsed: pl.Series | None = None
    for form in formats:
        if parsed is None:
            parsed = text.str.to_datetime(form, time_unit="us", strict=False)
            continue
        rest = (parsed.is_null() & text.is_not_null()).arg_true()
        if rest.is_empty():
            break
        more = text.gather(rest).str.to_datetime(form, time_unit="us", strict=False)
        parsed = parsed.scatter(rest, more)
    assert parsed is not None
    return parsed


def parse_column(raw: pl.Series, tz: str, by: pl.Series | None = None) -> pl.DataFrame:
    """A column of times, as texts or as datetimes, in UTC.

    Args:
        raw: The times, in the order of the file.
        tz: The zone of those that carry none; empty if such times are refused.
        by: What tells the series of a file apart, where it holds several one after the other.

    Returns:
        `utc` (microseconds), and `fault`: why there is none that can be believed; null where there is.

    Raises:
        UsageError: an unknown zone.
    """
    if isinstance(raw.dtype, pl.Datetime):
        moments = raw.dt.cast_time_unit("us")
        nothing = pl.Series([None] * raw.len(), dtype=pl.Datetime("us"))
        aware = raw.dtype.time_zone is not None
        parsed = pl.DataFrame(
            {
                "utc": moments.dt.convert_time_zone("UTC") if aware else nothing.cast(_UTC),
                "naive": nothing if aware else moments,
            }
        )
    else:
        parsed = parse_texts(raw.cast(pl.String))
    local = resolve_local(parsed["naive"], tz, by)
    is_aware = pl.col("utc").is_not_null()
    latest = datetime.now(UTC) + FUTURE
    return (
        parsed.with_columns(local["utc"].alias("local"), local["fault"])
        .select(
            utc=pl.when(is_aware).then("utc").otherwise("local"),
            fault=pl.when(is_aware)
            .then(None)
            .when(pl.col("naive").is_null())
            .then(pl.lit(NOT_A_TIME))
            .otherwise("fault"),
        )
        .with_columns(
            fault=pl.when(pl.col("fault").is_null() & ~pl.col("utc").is_between(EARLIEST, latest))
            .then(pl.lit(UNBELIEVABLE))
            .otherwise("fault")
        )
    )


def resolve_local(naive: pl.Series, tz: str, by: pl.Series | None = None) -> pl.DataFrame:
    """Local times in file order as UTC.

    In the hour that a clock change repeats, the order of the rows tells the first pass from the second:
    a step back lies between them, and rows that only come before it or only after it belong to the pass
    that they join.

    Args:
        naive: Local times without a zone, in the order of the file; null where there is none.
        tz: An IANA name (Europe/Berlin) or a fixed offset (+02:00); empty where none is known.
        by: What tells the series of a file apart (a GPU, a zone), each with an order of its own.

    Returns:
        `utc`, and `fault`: why there is none; null where there is.

    Raises:
        UsageError: an unknown zone.
    """
    if not tz:
        fault = pl.select(pl.when(pl.lit(naive).is_not_null()).then(pl.lit(NO_ZONE))).to_series()
        return pl.DataFrame({"utc": pl.Series([None] * naive.len(), dtype=_UTC), "fault": fault})
    if (offset := parse_offset(tz)) is not None:
        utc = (naive - offset).dt.replace_time_zone("UTC")
        return pl.DataFrame({"utc": utc}).with_columns(fault=pl.lit(None, pl.String))
    parse_zone(tz)
    early, late = (
        naive.dt.replace_time_zone(tz, ambiguous=which, non_existent="null")
        for which in ("earliest", "latest")
    )
    frame = pl.DataFrame({"naive": naive, "early": early, "late": late}).with_columns(
        twice=pl.col("early") != pl.col("late")
    )
    second = pl.Series("second", [False] * frame.height, pl.Boolean)
    if frame["twice"].any():
        second = _find_second_pass(frame.with_columns(by=by if by is not None else pl.lit(0)))
    return frame.with_columns(second=second).select(
        utc=pl.when("second")
        .then("late")
        .otherwise(pl.when(pl.col("second").is_not_null()).then("early"))
        .dt.convert_time_zone("UTC"),
        fault=pl.when(pl.col("naive").is_null())
        .then(None)
        .when(pl.col("early").is_null())
        .then(pl.lit(NEVER_SHOWN))
        .when(pl.col("second").is_null())
        .then(pl.lit(SHOWN_TWICE)),
    )


_UTC = pl.Datetime("us", "UTC")


def _find_second_pass(frame: pl.DataFrame) -> pl.Series:
    """Which rows lie in the second pass of a repeated hour; null where nothing tells.

    Args:
        frame: naive, twice and by, in the order of the file.
    """
    # A change is known by its day: no clock is set back twice within one.
    rows = frame.with_row_index("row").with_columns(
        step=pl.col("naive").diff().over("by").dt.total_seconds(),
        day=pl.col("naive").dt.date(),
    )
    usual = pl.col("step").filter(pl.col("step") > 0).median().over("by")
    twice = (
        rows.with_columns(usual=usual)
        .with_columns(next_step=pl.col("step").shift(-1).over("by"))
        .filter("twice")
        .with_columns(
            # Of an hourly series, the repeated hour is just the same time twice.
            back=(pl.col("step") <= -1800) | ((pl.col("step") == 0) & (pl.col("usual") >= 1800)),
            first=pl.int_range(pl.len()).over("by", "day") == 0,
        )
    )
    # A step back into the repeated hour from outside of it is no clock change.
    back = pl.col("back").fill_null(False) & ~pl.col("first")
    hour = twice.with_columns(passes=back.cum_sum().over("by", "day"))
    # Rows that follow within half an hour of the clock are of the same pass.
    near = pl.max_horizontal(2 * pl.col("usual").first(), pl.lit(1800.0))
    alone = hour.group_by("by", "day").agg(
        changes=pl.col("passes").max(),
        joins_before=pl.col("step").first().is_between(0, near).fill_null(False),
        joins_after=pl.col("next_step").last().is_between(0, near).fill_null(False),
    )
    decided = hour.join(
        alone, on=["by", "day"], nulls_equal=True, validate="m:1", maintain_order="left"
    ).select(
        "row",
        second=pl.when(pl.col("changes") == 1)
        .then(pl.col("passes") == 1)
        .when((pl.col("changes") == 0) & pl.col("joins_before") & ~pl.col("joins_after"))
        .then(pl.lit(False))
        .when((pl.col("changes") == 0) & pl.col("joins_after") & ~pl.col("joins_before"))
        .then(pl.lit(True)),
    )
    return (
        rows.select("row", "twice")
        .join(decided, on="row", how="left", validate="1:1", maintain_order="left")
        .select(pl.when("twice").then("second").otherwise(pl.lit(False)))
        .to_series()
        .alias("second")
    )
