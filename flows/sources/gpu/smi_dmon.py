"""`nvidia-smi dmon` logs: columns of blanks or commas under `#` headers, repeated every few lines."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flows.errors import BadInput, locate
from flows.files import scan_lines
from flows.rows import RowFaults
from flows.sources.gpu.recognise import MESSAGE

FORMAT = "nvidia-smi-dmon"
_NAMES = {
    "gpu": "gpu_index",
    "pwr": "power.draw",
    "sm": "util_pct",
    "fb": "mem_used_mib",
    "gtemp": "temp_c",
    "temp": "temp_c",
    "pclk": "sm_clock_mhz",
}
"""Column of dmon -> what it is here. Power is what `power.draw` is: it depends on GPU and driver."""


def is_dmon(line: str) -> bool:
    """Whether the first line of a log is the header of `dmon`, or of `pmon`."""
    return line.startswith("#") and "gpu" in split_header(line)


def split_header(line: str) -> list[str]:
    return line.lstrip("#").replace(",", " ").lower().split()


def read_dmon(plain: Path, path: Path, faults: RowFaults) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a log into a frame of texts.

    Args:
        plain: The log as plain text.
        path: The log as it is called.
        faults: Where to set lines aside.

    Returns:
        row_no, `timestamp` and what was recorded, as texts; and column of the frame -> its name in the log.

    Raises:
        BadInput: the log has no dates or no power, or is one of `pmon`.
    """
    lines = (
        scan_lines(plain)
        .filter(pl.col("line").str.strip_chars() != "")
        .collect(engine="streaming")
        .with_columns(is_header=pl.col("line").str.starts_with("#"))
    )
    headers = lines.filter("is_header").unique("line", keep="first", maintain_order=True)
    # A header line names the columns; the one below it has their units.
    named = [
        (line, names)
        for line in headers["line"].head(_MOST_HEADERS)
        if "gpu" in (names := split_header(line))
    ]
    for row_no, line in headers.head(2).select("row_no", "line").iter_rows():
        _refuse_lacking(split_header(line), row_no, line, path)
    layouts = dict(named)
    order = {line: number for number, line in enumerate(layouts)}
    rows = lines.with_columns(
        layout=pl.col("line")
        .replace_strict(order, default=None, return_dtype=pl.Int32)
        .forward_fill()
    ).filter(~pl.col("is_header"))
    is_message = pl.col("line").str.contains(MESSAGE)
    faults.skip("messages between readings", rows.filter(is_message).height)
    rows = rows.filter(~is_message)
    if rows.is_empty():
        raise BadInput("there is a header but no reading", where=str(path), remedy="Record again")
    cells = rows.with_columns(
        cells=pl.col("line").str.replace_all(",", " ").str.extract_all(r"\S+")
    ).with_columns(fields=pl.col("cells").list.len())
    cells = faults.drop(cells, pl.col("layout").is_null(), "before the header", value="line")
    parts = []
    for number, names in enumerate(layouts.values()):
        part = cells.filter(layout=number)
        if number == len(layouts) - 1 and part.height > 1 and part["fields"][-1] < len(names):
            part = part.head(-1)
            faults.skip("last line, cut while it was written")
        part = faults.drop_ragged(part, len(names))
        parts.append(_name_cells(part, names))
    frame = pl.concat(parts, how="diagonal")
    return frame, {ours: theirs for theirs, ours in _NAMES.items() if ours in frame.columns}


_MOST_HEADERS = 100


def _refuse_lacking(names: list[str], row_no: int, line: str, path: Path) -> None:
    if "gpu" not in names:
        return
    place = locate(path, row_no, value=line.strip())
    if "pid" in names:
        raise BadInput(
            "this is a log of `nvidia-smi pmon`, which tells of processes and of no power",
            where=place,
            remedy="Record with nvidia-smi dmon -s pumc -o DT, or with --query-gpu",
        )
    if "pwr" not in names:
        raise BadInput(
            "this log of `nvidia-smi dmon` has no power (column pwr)",
            where=place,
            remedy="Record with nvidia-smi dmon -s pumc -o DT",
        )
    if "date" not in names or "time" not in names:
        raise BadInput(
            "this log of `nvidia-smi dmon` has no dates",
            where=place,
            remedy="Record with nvidia-smi dmon -s pumc -o DT; a time that is not in the file cannot be guessed",
        )


def _name_cells(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The cells under one header, by what they are."""
    cell = {name: pl.col("cells").list.get(i, null_on_oob=True) for i, name in enumerate(names)}
    day = cell["date"].str.replace(r"^(\d{4})(\d\d)(\d\d)$", "$1-$2-$3")
    known = {ours: cell[theirs] for theirs, ours in _NAMES.items() if theirs in cell}
    return rows.select("row_no", timestamp=pl.concat_str(day, cell["time"], separator=" "), **known)
