"""The EIA's answers (API v2): hourly net generation by energy source, Form EIA-930."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput
from flows.rows import RowFaults
from flows.sources.grid.fuels import EIA_FUELS
from flows.sources.grid.generation import build_mix, parse_megawatts
from flows.sources.grid.series import GridData, Limits
from flows.sources.grid.tables import Options, as_text

_PERIOD = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2})(?::00)?(Z|[+-]\d{2}(?::?\d{2})?)?")
_OTHER_ROUTES = {
    "D": "a demand",
    "DF": "a forecast of demand",
    "NG": "the net generation of all fuels together",
    "TI": "interchange with other areas",
}


def read_eia(answer: dict[str, Any], path: Path, options: Options, limits: Limits) -> GridData:
    response = answer["response"]
    if not isinstance(response, dict) or not isinstance(response.get("data"), list):
        raise BadInput("the answer has no response.data", where=str(path), remedy="Fetch it again")
    request = answer.get("request")
    params = request.get("params") if isinstance(request, dict) else None
    offset = params.get("offset") if isinstance(params, dict) else None
    return read_eia_items(
        response["data"],
        path,
        limits,
        zone=options.zone,
        provider=options.provider,
        total=response.get("total"),
        is_first_page=str(offset or "0") == "0",
        warnings=list_eia_warnings(response),
    )


def list_eia_warnings(response: Mapping[str, Any]) -> list[str]:
    """What an answer of the EIA warns of, as sentences."""
    warnings = response.get("warnings")
    return [
        f"the answer warns: {text}"
        for item in (warnings if isinstance(warnings, list) else [])
        if (
            text := item.get("description") or item.get("warning")
            if isinstance(item, dict)
            else item
        )
    ]


def read_eia_items(
    items: Sequence[Any],
    path: Path,
    limits: Limits,
    *,
    zone: str,
    provider: str,
    total: Any = None,
    is_first_page: bool = True,
    warnings: Sequence[str] = (),
) -> GridData:
    """Read hourly net generation per energy source as the EIA's API v2 lists it.

    A period is named by the hour in which it ends (Form EIA-930 instructions; so does gridstatus). Of an
    answer that holds fewer rows than its `total`, the periods at which it is cut are left out.

    Args:
        items: `response.data`.
        path: The file that it came from, for messages.
        limits: What is believed.
        zone: Name of the zone; the respondent if empty.
        provider: Who says so; EIA-930 if empty.
        total: `response.total`, the rows that the question has.
        is_first_page: Whether the answer begins where the question does.
        warnings: What the answer warns of.

    Raises:
        BadInput: something else than generation by energy source, or too many bad rows.
    """
    listed = [item if isinstance(item, dict) else {} for item in items]
    _refuse_other_route(listed, path)
    faults, said = limits.collect(path), list(warnings)
    frame = _list_items(listed, zone)
    cut = _find_cut_periods(frame, total, is_first_page)
    if cut:
        left = frame.filter(~pl.col("period").is_in(cut))
        faults.skip("of a period at which the answer is cut", frame.height - left.height)
        said.append(
            f"the answer holds {frame.height:,} of {int(total):,} rows, and is cut within "
            f"{', '.join(cut)}: ask for the rest with offset and length"
        )
        frame = left
    frame = parse_megawatts(faults, _drop_unknown(frame, faults), "value", to="megawatts")
    rows = frame.select(
        zone="zone",
        valid_from=pl.col("valid_to") - pl.duration(hours=1),
        valid_to="valid_to",
        fuel=pl.col("type").replace_strict(EIA_FUELS, return_dtype=pl.String),
        type="type",
        kilowatts=pl.col("megawatts") * 1000,
        source=pl.lit(provider or "EIA-930"),
        is_estimated=pl.lit(False),
        row_no="row_no",
    )
    return build_mix(
        "eia930-json", rows, faults, len(listed), limits=limits, unit="MWh", warnings=said
    )


def _list_items(items: Sequence[Mapping[str, Any]], zone: str) -> pl.DataFrame:
    """Items as texts: row_no, zone, end (of the period), period, type, value and unit."""
    return pl.DataFrame(
        [
            (
                number,
                zone or as_text(item.get("respondent")),
                _parse_period(item.get("period")),
                as_text(item.get("period")),
                as_text(item.get("fueltype")),
                as_text(item.get("value")),
                as_text(item.get("value-units")),
            )
            for number, item in enumerate(items, 1)
        ],
        schema={
            "row_no": pl.Int64,
            "zone": pl.String,
            "end": pl.String,
            "period": pl.String,
            "type": pl.String,
            "value": pl.String,
            "unit": pl.String,
        },
        orient="row",
    )


def _drop_unknown(frame: pl.DataFrame, faults: RowFaults) -> pl.DataFrame:
    """Set aside rows of unknown sources, units, areas and times; add `valid_to`."""
    frame = faults.drop(
        frame,
        ~pl.col("type").is_in(list(EIA_FUELS)).fill_null(False),
        "unknown energy source",
        field="fueltype",
        value="type",
        remedy=f"Known: {', '.join(EIA_FUELS)}",
    )
    frame = faults.drop(
        frame,
        pl.col("unit").fill_null("") != "megawatthours",
        "unknown unit",
        field="value-units",
        value="unit",
        remedy="Ask for megawatthours",
    )
    frame = faults.drop(frame, pl.col("zone").is_null(), "no respondent", field="respondent")
    return faults.parse_times(frame, "end", "UTC", to="valid_to", by="type", field="period")


def _parse_period(period: Any) -> str | None:
    """The hour of a period as a time; local hours carry their offset."""
    match = _PERIOD.fullmatch(str(period))
    if match is None:
        return as_text(period)
    offset = (match[2] or "Z").replace("Z", "+00:00")
    offset = offset + ":00" if len(offset) == 3 else offset
    try:
        return datetime.fromisoformat(f"{match[1]}:00:00{offset}").astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return as_text(period)


def _find_cut_periods(frame: pl.DataFrame, total: Any, is_first_page: bool) -> list[str]:
    """Periods at which an answer is cut: its last, and the first of a page that is not the first.

    One that has all the sources of the others is whole; an only one is not known to be.
    """
    if not frame.height or not re.fullmatch(r"\d{1,12}", str(total)) or int(total) <= frame.height:
        return []
    ends = {str(frame["period"][-1]), *([] if is_first_page else [str(frame["period"][0])])}
    sources = dict(frame.group_by("period").agg(pl.col("type").unique()).iter_rows())
    others = {kind for period, kinds in sources.items() if period not in ends for kind in kinds}
    return sorted(end for end in ends if not others or not others <= set(sources.get(end, ())))


def _refuse_other_route(items: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse the EIA's other data, by name."""
    if not items or any("fueltype" in item for item in items):
        return
    kinds = {str(item["type"]) for item in items if "type" in item}
    what = ", ".join(_OTHER_ROUTES.get(kind, kind) for kind in sorted(kinds)) or (
        "interchange with other areas" if "fromba" in items[0] else "something else"
    )
    raise BadInput(
        f"the answer is {what}, not generation by energy source",
        where=str(path),
        remedy="Ask for electricity/rto/fuel-type-data",
    )
