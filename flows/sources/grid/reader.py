"""Grid data files: each is recognized by its name and content and handed to the reader of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from flows.errors import BadInput, UsageError, locate
from flows.files import open_plain_text
from flows.settings import GridSource
from flows.sources.grid.generation import read_eia_answer, read_entsoe_document
from flows.sources.grid.layouts import (
    LAYOUTS,
    Options,
    read_described,
    read_electricity_maps_answer,
)
from flows.sources.grid.series import GRAMS_PER_KWH, REMEDY, GridData, build_grid_data
from transforms.constants import SIGNALS


def read(
    path: Path, options: Options, layout: str, scratch: Path, source: GridSource | None = None
) -> GridData:
    """Read a file of grid data.

    Args:
        path: A table (CSV, Parquet), a document of ENTSO-E (.xml) or an answer of a provider
            (.json); CSV, XML and JSON may be packed with gzip.
        options: What the file itself does not say.
        layout: The name of a layout of tables, or `auto`.
        scratch: Folder for unpacked copies.
        source: The description of a table that is of no known layout.

    Returns:
        Intensities in g/kWh or a generation mix in kW, by interval in UTC.

    Raises:
        BadInput: unknown layout, or a value that cannot be understood, with row and column.
        UsageError: zone or time zone is not in the file and was not given.
    """
    _check_options(options)
    name = path.name.removesuffix(".gz")
    if name.endswith(".xml"):
        with open_plain_text(path, scratch) as plain:
            mix = read_entsoe_document(plain, path, options.zone, options.provider)
        return build_grid_data("entsoe-xml", mix, mix.height)
    if name.endswith(".json"):
        return _read_answer(_parse_json(path, scratch), path, options)
    frame = _read_table(path, scratch)
    if source is not None:
        return read_described(frame, source, options, path)
    for known in LAYOUTS:
        if known.fits(frame.columns) if layout == "auto" else known.name == layout:
            return known.read(frame, options, path)
    raise BadInput(
        f"no known layout of grid data has the columns {', '.join(frame.columns[1:7])}",
        where=str(path),
        remedy=f"Layouts: {', '.join(known.name for known in LAYOUTS)}. {REMEDY}",
    )


def _check_options(options: Options) -> None:
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
            return json.loads(plain.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise BadInput(
                f"not JSON: {error.msg}", where=locate(path, error.lineno), remedy="Fetch it again"
            ) from None


def _read_answer(answer: Any, path: Path, options: Options) -> GridData:
    """What a provider answered: kept by `wattledger fetch`, or saved by somebody."""
    if isinstance(answer, dict) and "format" in answer:
        # Whoever has no kept answers does without the packages of the providers.
        from flows.sources.grid.kept_answers import read_kept_answers

        return read_kept_answers(answer, path)
    if isinstance(answer, dict) and "response" in answer:
        mix = read_eia_answer(answer, path, options.zone, options.provider)
        return build_grid_data("eia930-json", mix, mix.height)
    return read_electricity_maps_answer(answer, path)


def _read_table(path: Path, scratch: Path) -> pl.DataFrame:
    """The file as strings, with `row_no` counting lines from 1."""
    if path.suffix == ".parquet":
        try:
            frame = pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadInput(f"not a Parquet file: {error}", where=str(path)) from None
        return frame.with_row_index("row_no", 1)
    with open_plain_text(path, scratch) as plain:
        with plain.open(encoding="utf-8-sig") as file:
            head = file.readline()
        for other in (";", "\t"):
            if other in head and "," not in head:
                raise BadInput(
                    f"fields are separated by {other!r}",
                    where=locate(path, 1),
                    remedy="Convert the file to commas",
                )
        try:
            frame = pl.read_csv(plain, infer_schema=False, glob=False)
        except pl.exceptions.PolarsError as error:
            raise BadInput(
                f"not a table: {str(error).splitlines()[0]}", where=str(path), remedy=REMEDY
            ) from None
    if frame.height == 0:
        raise BadInput("there is a header but no row", where=str(path), remedy="Fetch it again")
    named = frame.rename({c: c.strip().lstrip("\ufeff") for c in frame.columns})
    return named.with_row_index("row_no", 2)
