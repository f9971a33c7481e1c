"""Grid data files: each is recognized by its name and content and handed to the reader of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.errors import BadInput, UsageError, locate
from flows.files import open_plain_text, read_first_line
from flows.settings import GridSource
from flows.sources.grid.answers import read_answer
from flows.sources.grid.entsoe_xml import read_entsoe_document
from flows.sources.grid.generation import build_mix
from flows.sources.grid.layouts import LAYOUTS, read_described, refuse_unknown
from flows.sources.grid.series import GRAMS_PER_KWH, GridData, Limits
from flows.sources.grid.tables import Options, read_table
from flows.times import parse_zone
from transforms.constants import SIGNALS


def read(
    path: Path,
    options: Options,
    layout: str,
    scratch: Path,
    source: GridSource | None = None,
    limits: Limits | None = None,
) -> GridData:
    """Read a file of grid data.

    Args:
        path: A table (CSV, Parquet), a document of ENTSO-E (.xml) or an answer of a provider
            (.json); CSV, XML and JSON may be packed with gzip.
        options: What the file itself does not say.
        layout: The name of a layout of tables, or `auto`.
        scratch: Folder for unpacked copies.
        source: The description of a table that is of no known layout.
        limits: What is believed.

    Returns:
        Intensities in g/kWh or a generation mix in kW, by interval in UTC, and the rows set aside.

    Raises:
        BadInput: unknown layout, or too many values that cannot be understood, with row and column.
        UsageError: zone or time zone is not in the file and was not given.
    """
    limits = limits or Limits()
    form = _find_form(path)
    if form == "xml":
        faults = limits.collect(path)
        with open_plain_text(path, scratch) as plain:
            rows, points = read_entsoe_document(plain, path, options.zone, options.provider, faults)
        return build_mix("entsoe-xml", rows, faults, points, limits=limits, unit="MW")
    if form == "json":
        return _read_answer(_parse_json(path, scratch), path, options, limits)
    table = read_table(path, options, limits, scratch)
    if source is not None:
        return read_described(table, source)
    for known in LAYOUTS:
        if known.fits(table) if layout == "auto" else known.name == layout:
            return known.read(table)
    raise refuse_unknown(table)


def _find_form(path: Path) -> str:
    """What a file is written in, by its name, or by how it begins."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix.removeprefix(".")
    if ending in ("xml", "json", "csv", "parquet"):
        return ending
    first = read_first_line(path).lstrip("\ufeff \t")
    return "xml" if first.startswith("<") else "json" if first[:1] in ("{", "[") else "csv"


def check_options(options: Options) -> None:
    """Refuse what is wrong for every file, before any is read.

    Raises:
        UsageError: an unknown signal, unit or time zone.
    """
    if options.tz:
        parse_zone(options.tz)
    if options.signal and options.signal not in SIGNALS:
        raise UsageError(
            f"unknown signal {options.signal!r}", remedy=f"One of {', '.join(SIGNALS)}"
        )
    if options.unit and options.unit not in {*GRAMS_PER_KWH, "MW", "kW"}:
        raise UsageError(
            f"unknown unit {options.unit!r}", remedy=f"One of {', '.join(GRAMS_PER_KWH)}, MW, kW"
        )


def _parse_json(path: Path, scratch: Path) -> Any:
    with open_plain_text(path, scratch) as plain:
        try:
            return json.loads(plain.read_text("utf-8-sig"))
        except json.JSONDecodeError as error:
            raise BadInput(
                f"not JSON: {error.msg}", where=locate(path, error.lineno), remedy="Fetch it again"
            ) from None
        except ValueError as error:  # A number of thousands of digits.
            raise BadInput(f"not JSON: {error}", where=str(path), remedy="Fetch it again") from None


def _read_answer(answer: Any, path: Path, options: Options, limits: Limits) -> GridData:
    """What a provider answered: kept by `wattledger fetch`, or saved by somebody."""
    if isinstance(answer, dict) and str(answer.get("format", "")).startswith("wattledger-"):
        # Whoever has no kept answers does without the packages of the providers.
        from flows.sources.grid.kept_answers import read_kept_answers

        return read_kept_answers(answer, path, limits)
    return read_answer(answer, path, options, limits)
