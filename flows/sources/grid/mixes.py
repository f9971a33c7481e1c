"""Tables of generation by fuel: a column for each production type, or a row."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.sources.grid.fuels import PRODUCTION_TYPES, SMARD_TYPES
from flows.sources.grid.generation import build_mix, parse_megawatts
from flows.sources.grid.series import GridData, add_ends
from flows.sources.grid.tables import Table, normalise

_ENTSOE = "ENTSO-E Transparency Platform"
_TYPES = {normalise(name): (name, fuel) for name, fuel in PRODUCTION_TYPES.items()}
_SMARD = {normalise(name): (name, fuel) for name, fuel in SMARD_TYPES.items()}
_KILOWATTS = {"kw": 1.0, "mw": 1000.0, "gw": 1e6, "kwh": 1.0, "mwh": 1000.0, "gwh": 1e6}
_PROCESS = re.compile(r"_+(actual_aggregated|actual_consumption|actual|generation)(_mw)?$")
_NO_TIME = pl.lit(None, pl.Datetime("us", "UTC"))


def _list_types(table: Table, known: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Column -> production type and fuel, of the columns that are production types."""
    found = {}
    for column in table.frame.columns[1:]:
        # What follows the type is its unit, its resolution, or whether it is output or consumption.
        bare = normalise(re.split(r"[\[(]", column.lstrip("('\" "))[0])
        whole = normalise(column, bare=False)
        for name in (bare, _PROCESS.sub("", bare), _PROCESS.sub("", whole)):
            if name in known:
                found[column] = known[name]
                break
    return found


def has_production_types(table: Table) -> bool:
    """Whether the columns are production types of ENTSO-E."""
    return len(_list_types(table, _TYPES)) >= 2


def has_smard_types(table: Table) -> bool:
    """Whether the columns are SMARD's kinds of generation, for intervals by date."""
    first = table.find("datum_von", "datum", "start_date", "date")
    return bool(first) and len(_list_types(table, _SMARD)) >= 3


def has_entsoe_export(table: Table) -> bool:
    """Whether rows are production types, as ENTSO-E's platform exports them since 2024."""
    return bool(
        table.find("production_type", "productiontype")
        and table.find("generation", "actualgenerationoutput", "generation_mw")
    )


def _refuse_capacities(table: Table) -> None:
    for name, column in table.names.items():
        if "installed" in name or "forecast" in name or "day_ahead" in name:
            raise BadInput(
                f"this is {'installed capacities' if 'installed' in name else 'a forecast'}, not generation",
                where=locate(table.path, 1, column),
                remedy="Export the actual generation per production type",
            )


def read_entsoe_mix(table: Table) -> GridData:
    """A column for each production type: entsoe-py's tables, and the exports of ENTSO-E's old platform."""
    types = _list_types(table, _TYPES)
    _refuse_capacities(table)
    others = [c for c in table.frame.columns[1:] if c not in types]
    time = table.find("mtu", "mtu_cet_cest", "mtu_utc") or (others[0] if others else "")
    if not time:
        raise BadInput("no column of times", where=locate(table.path, 1), remedy="Add one")
    frame = _parse_starts(table, time, "")
    return _read_wide(table, "entsoe-generation-csv", frame, types, "MW", _ENTSOE)


def read_smard(table: Table) -> GridData:
    """SMARD's exports: MWh of each interval of its clock, Europe/Berlin."""
    types = _list_types(table, _SMARD)
    _refuse_capacities(table)
    date, hour = (
        table.find("datum_von", "datum", "start_date", "date"),
        table.find("anfang", "uhrzeit", "start", "time"),
    )
    text = pl.col(date)
    frame = table.frame.with_columns(_text=text + " " + pl.col(hour) if hour else text)
    frame = table.faults.parse_times(
        frame, "_text", table.options.tz or "Europe/Berlin", to="valid_from", field=date
    )
    return _read_wide(table, "smard", frame, types, "MWh", "Bundesnetzagentur | SMARD.de")


_MTU = (
    r"^(?P<day>\d{2})[./](?P<month>\d{2})[./](?P<year>\d{4}) (?P<clock>\d{2}:\d{2}(?::\d{2})?)"
    r"(?: ?\((?P<zone>CET|CEST|UTC)\))?(?: - \d{2}[./]\d{2}[./]\d{4} "
    r"(?P<end>\d{2}:\d{2}(?::\d{2})?)(?: ?\((?:CET|CEST|UTC|CET/CEST)\))?)?"
)
_ZONES = {"CET": "+01:00", "CEST": "+02:00", "UTC": "+00:00"}


def _parse_starts(table: Table, column: str, by: str) -> pl.DataFrame:
    """Add `valid_from`: of market time units (01/01/2025 00:00:00 - 01/01/2025 00:15:00), or of times."""
    frame = table.frame
    if isinstance(frame.schema[column], pl.Datetime):
        return table.faults.parse_times(
            frame, column, table.options.tz, to="valid_from", by=by, field=column
        )
    unit = pl.col(column).str.strip_chars().str.extract_groups(_MTU)
    get = unit.struct.field
    is_unit = get("clock").is_not_null() & pl.col(column).str.contains(" - ", literal=True)
    zone = get("zone").replace_strict(_ZONES, default="", return_dtype=pl.String).fill_null("")
    start = pl.concat_str(
        get("year"), pl.lit("-"), get("month"), pl.lit("-"), get("day"), pl.lit(" "),
        get("clock"), zone,
    )  # fmt: skip
    frame = frame.with_columns(
        _is_unit=is_unit, _text=pl.when(is_unit).then(start).otherwise(column)
    )
    # What names neither of the two clocks of central Europe is on the first or the second by its order.
    named = column.lower()
    is_central = "cet" in named or frame[column].str.contains("CET", literal=True).any()
    tz = "UTC" if "utc" in named else "Europe/Brussels" if is_central else table.options.tz
    return table.faults.parse_times(frame, "_text", tz, to="valid_from", by=by, field=column)


def _read_wide(
    table: Table,
    layout: str,
    frame: pl.DataFrame,
    types: Mapping[str, tuple[str, str]],
    unit: str,
    source: str,
) -> GridData:
    """A mix from a row for each interval and a column for each type.

    Args:
        table: The file.
        layout: The name of its layout.
        frame: Its rows, with `valid_from`.
        types: Column -> production type and fuel.
        unit: MW, or MWh of each interval, unless the headers or options say otherwise.
        source: Who says so.
    """
    zone = table.require_zone()
    starts = frame.select(zone=pl.lit(zone), valid_from="valid_from", valid_to=_NO_TIME)
    ends = add_ends(starts, ["zone"]).unique("valid_from").select("valid_from", "valid_to")
    frame = frame.drop("valid_to", strict=False).join(
        ends, on="valid_from", how="left", validate="m:1", maintain_order="left"
    )
    parts = []
    for place, (column, (name, fuel)) in enumerate(types.items()):
        value = f"_value{place}"
        frame = parse_megawatts(table.faults, frame, column, to=value, field=column)
        factor = _find_kilowatts(table, column, unit)
        sign = -1 if "consumption" in column.lower() else 1
        parts.append(
            (
                value,
                pl.lit(f"{name} {'-' if sign < 0 else ''}"),
                fuel,
                pl.col(value) * factor * sign,
            )
        )
    rows = pl.concat(
        frame.select(
            zone=pl.lit(zone),
            valid_from="valid_from",
            valid_to="valid_to",
            fuel=pl.lit(fuel),
            type=kind,
            kilowatts=kilowatts,
            source=pl.lit(table.options.provider or source),
            is_estimated=pl.lit(False),
            row_no=pl.col("row_no").cast(pl.Int64),
        )
        for _, kind, fuel, kilowatts in parts
    )
    return build_mix(
        layout,
        rows,
        table.faults,
        table.rows,
        limits=table.limits,
        unit=table.options.unit or unit,
    )


def _find_kilowatts(table: Table, column: str, unit: str) -> pl.Expr | float:
    """What one unit of a column is in kW: as given, as its header says, or the layout's own.

    Raises:
        BadInput: the header names another unit.
    """
    said = (table.options.unit or table.find_unit(column) or unit).lower()
    if said not in _KILOWATTS:
        raise BadInput(
            f"the unit {said!r} is none of generation",
            where=locate(table.path, 1, column),
            remedy="Say which it is with --unit MW or kW",
        )
    hours = (pl.col("valid_to") - pl.col("valid_from")).dt.total_microseconds() / 3.6e9
    return _KILOWATTS[said] / hours if said.endswith("h") else _KILOWATTS[said]


def read_entsoe_export(table: Table) -> GridData:
    """A row for each interval and production type, as ENTSO-E's platform gives them for download.

    Web exports have `MTU (CET/CEST)` or `MTU (UTC)`, `Area`, `Production Type` and `Generation (MW)`; its file
    library has `DateTime(UTC)`, `ResolutionCode`, `AreaMapCode`, `ProductionType`, `ActualGenerationOutput[MW]`
    and `ActualConsumption[MW]`.
    """
    faults, options = table.faults, table.options
    kind = table.find("production_type", "productiontype")
    time = table.find("mtu_cet_cest", "mtu_utc", "mtu", "datetime_utc", "datetime")
    area = table.find("areamapcode", "area", "areacode", "areadisplayname")
    output = table.find("actualgenerationoutput", "generation", "generation_mw")
    if not time:
        raise BadInput(
            "no column of market time units", where=locate(table.path, 1), remedy="Add it"
        )
    text = pl.col(kind)
    fuels, frame = _find_series(table, kind, area)
    frame = _parse_starts(
        Table(frame, table.path, options, faults, table.names, table.rows, table.limits),
        time,
        "_series",
    )
    frame = parse_megawatts(faults, frame, output, to="_output", field=output)
    if pumped := table.find("actualconsumption"):
        frame = parse_megawatts(faults, frame, pumped, to="_pumped", field=pumped)
        # What a type takes from the grid is no second row: it is taken off its output.
        frame = frame.with_columns(_output=pl.col("_output") - pl.col("_pumped").fill_null(0))
    starts = frame.select(
        zone="_series", valid_from="valid_from", valid_to=_NO_TIME, row_no="row_no"
    )
    ends = add_ends(starts, ["zone"]).select("row_no", "valid_to")
    frame = frame.drop("valid_to", strict=False).join(
        ends, on="row_no", how="left", validate="1:1", maintain_order="left"
    )
    rows = frame.select(
        zone="_zone",
        valid_from="valid_from",
        valid_to="valid_to",
        fuel=text.replace_strict(fuels, return_dtype=pl.String),
        type=text,
        kilowatts=pl.col("_output") * 1000,
        source=pl.lit(options.provider or _ENTSOE),
        is_estimated=pl.lit(False),
        row_no=pl.col("row_no").cast(pl.Int64),
    )
    return build_mix("entsoe-export", rows, faults, table.rows, limits=table.limits, unit="MW")


def _find_series(table: Table, kind: str, area: str) -> tuple[dict[str, str], pl.DataFrame]:
    """Production type -> fuel; and the rows of known types, with `_zone` and `_series`.

    Raises:
        UsageError: no zone is known, or one is given for several areas.
    """
    zone = table.options.zone
    fuels = {
        value: _TYPES[name][1]
        for value in table.frame[kind].drop_nulls().unique()
        if (name := normalise(value)) in _TYPES
    }
    frame = table.faults.drop(
        table.frame,
        ~pl.col(kind).is_in(list(fuels)).fill_null(False),
        "unknown production type",
        field=kind,
        value=kind,
        remedy=f"Known: {', '.join(PRODUCTION_TYPES)}",
    )
    if not area:
        table.require_zone()
    elif zone and frame[area].n_unique() > 1:
        raise UsageError(
            f"the file is about {frame[area].n_unique()} areas, and --zone names one",
            where=str(table.path),
            remedy="Leave --zone out, or export one area",
        )
    of_area = pl.col(area).fill_null("") if area else pl.lit("")
    return fuels, frame.with_columns(
        _series=pl.concat_str(kind, of_area, separator="|"),
        _zone=pl.lit(zone) if zone else _name_area(area).fill_null(""),
    )


def _name_area(area: str) -> pl.Expr:
    """The zone that an area names: BZN|DE-LU is DE-LU, Germany (DE) is DE."""
    if not area:
        return pl.lit("")
    last = pl.col(area).str.split("|").list.last().str.strip_chars()
    return pl.coalesce(last.str.extract(r"\(([^()]+)\)$", 1), last).str.replace_all("_", "-")
