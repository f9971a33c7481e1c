"""Clocks as people write them: times with and without a zone, read as UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from flows.errors import BadInput, UsageError, locate

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


def parse_offset(tz: str) -> timedelta | None:
    """The offset from UTC that +02:00 or -0530 means; None for anything else."""
    match = _OFFSET.fullmatch(tz)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return offset if sign == "+" else -offset


def parse_time(value: Any, column: str, place: str, tz: str) -> datetime | None:
    """A moment in UTC from a text or TOML time; None where there is none.

    Args:
        value: The time as it was written; empty or None where there is none.
        column: The name of the field, for the message.
        place: File and line, for the message.
        tz: The zone of times that carry none; empty if such times are refused.

    Raises:
        BadInput: not a time.
        UsageError: it has no zone, and `tz` gives none.
    """
    if value in (None, ""):
        return None
    if isinstance(value, datetime):
        moment = value
    else:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise BadInput(
                "not a time",
                where=f"{place}, column {column!r}, value {str(value)!r}",
                remedy="Write 2025-07-26T23:30:00Z",
            ) from None
    if moment.tzinfo is None:
        if not tz:
            raise UsageError(
                "the time carries no zone",
                where=f"{place}, column {column!r}, value {str(value)!r}",
                remedy="Write 2025-07-26T23:30:00Z, or pass --tz",
            )
        moment = moment.replace(tzinfo=_parse_zone(tz))
    return moment.astimezone(UTC)


def _parse_zone(tz: str) -> tzinfo:
    if (offset := parse_offset(tz)) is not None:
        return timezone(offset)
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError):
        raise UsageError(
            f"unknown time zone {tz!r}", remedy="Use Europe/Berlin or +02:00"
        ) from None


def convert_to_utc(naive: pl.Series, tz: str, path: Path, row_no: pl.Series) -> pl.Series:
    """Local times in file order as UTC.

    In the hour that a clock change repeats, the order of the rows tells the first pass from the
    second.

    Args:
        naive: Local times without a zone, in the order of the file.
        tz: An IANA name (Europe/Berlin) or a fixed offset (+02:00).
        path: The file, for the message.
        row_no: The row of each time, for the message.

    Returns:
        The same rows as moments in UTC.

    Raises:
        BadInput: no zone given, a time that the zone never had, or a repeated hour that the
            order of the file cannot decide.
        UsageError: an unknown zone.
    """
    if not tz:
        raise BadInput(
            "the times carry no time zone",
            where=locate(path, int(row_no[0]), "timestamp", naive[0]),
            remedy="Say which with --tz, for example --tz UTC or --tz Europe/Berlin",
        )
    if (offset := parse_offset(tz)) is not None:
        return (naive - offset).dt.replace_time_zone("UTC")
    try:
        early, late = (
            naive.dt.replace_time_zone(tz, ambiguous=which, non_existent="null")
            for which in ("earliest", "latest")
        )
    except pl.exceptions.ComputeError:
        raise UsageError(
            f"unknown time zone {tz!r}", remedy="Use a name such as Europe/Berlin, or +02:00"
        ) from None
    if early.null_count():
        first = int(early.is_null().arg_max() or 0)
        raise BadInput(
            f"the clock in {tz} never showed this time (it was set forward)",
            where=locate(path, int(row_no[first]), "timestamp", naive[first]),
            remedy="Check --tz, or give a fixed offset such as --tz +01:00",
        )
    twice = early != late
    if twice.any():
        second_pass = _find_second_pass(naive, twice)
        if second_pass is None:
            first = int(twice.arg_max() or 0)
            raise BadInput(
                f"the clock in {tz} showed this time twice (it was set back), and the file does "
                "not tell which is meant",
                where=locate(path, int(row_no[first]), "timestamp", naive[first]),
                remedy="Split the file at the change, or give a fixed offset such as --tz +01:00",
            )
        early = pl.select(pl.when(second_pass).then(late).otherwise(early)).to_series()
    return early.dt.convert_time_zone("UTC")


def _find_second_pass(naive: pl.Series, twice: pl.Series) -> pl.Series | None:
    """Which rows of a repeated hour belong to its second pass; None where nothing tells."""
    step = naive.diff().dt.total_minutes()
    back = (step <= -30).fill_null(False)
    usual = step.median()
    if isinstance(usual, float) and usual >= 30:
        # Of an hourly series, the repeated hour is just the same time twice.
        back = back | (step == 0).fill_null(False)
    if back.any():
        return back.cum_sum() > 0
    inside = naive.filter(twice)
    before = bool((naive < inside.min()).any())
    after = bool((naive > inside.max()).any())
    if before == after:
        return None
    return pl.repeat(after, naive.len(), eager=True)
