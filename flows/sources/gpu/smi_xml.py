"""`nvidia-smi -q -x` logs: one XML document after the other, as `-l` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import polars as pl

from flows.errors import BadInput
from flows.rows import RowFaults

FORMAT = "nvidia-smi-xml"
_BEGIN, _END = "<nvidia_smi_log", "</nvidia_smi_log>"
_MOST_CHARS = 16 << 20
"""Of one document: that of a host with 16 GPUs has less than one million."""
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_TIMESTAMP = re.compile(r"\w{3} (\w{3}) +(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})")

_PATHS = {
    "gpu_uuid": ("uuid",),
    "model": ("product_name",),
    "power.draw.instant": (
        "gpu_power_readings/instant_power_draw",
        "power_readings/instant_power_draw",
    ),
    "power.draw.average": (
        "gpu_power_readings/average_power_draw",
        "power_readings/average_power_draw",
    ),
    "power.draw": ("gpu_power_readings/power_draw", "power_readings/power_draw"),
    "power.limit": (
        "gpu_power_readings/current_power_limit",
        "gpu_power_readings/enforced_power_limit",
        "power_readings/enforced_power_limit",
        "gpu_power_readings/power_limit",
        "power_readings/power_limit",
    ),
    "util_pct": ("utilization/gpu_util",),
    "mem_used_mib": ("fb_memory_usage/used",),
    "temp_c": ("temperature/gpu_temp",),
    "sm_clock_mhz": ("clocks/sm_clock",),
}
"""What is read -> where it stands, by driver version; only the GPU's own power, not its module's or its memory's."""


def is_xml(line: str) -> bool:
    """Whether the first line of a log begins an XML document."""
    return line.lstrip().startswith(("<?xml", "<!DOCTYPE nvidia_smi_log", _BEGIN))


def read_xml(plain: Path, path: Path, faults: RowFaults) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read the documents of a log into a frame of texts.

    Args:
        plain: The log as plain text.
        path: The log as it is called.
        faults: Where to set documents aside.

    Returns:
        row_no (the line of each GPU), `timestamp` and what was recorded, as texts; and column of the frame -> its name.

    Raises:
        BadInput: it holds no such document, or one that is far too large.
    """
    rows: list[tuple[str | int | None, ...]] = []
    for line_no, document in _split_documents(plain, path, faults):
        try:
            log = ElementTree.fromstring(document)
        except ElementTree.ParseError as error:
            faults.add(line_no, f"not XML: {error}", remedy="Remove the document")
            continue
        gpu_lines = [n for n, text in enumerate(document.splitlines(), line_no) if "<gpu " in text]
        for place, gpu in enumerate(log.findall("gpu")):
            guess = gpu_lines[place] if place < len(gpu_lines) else line_no + place
            row_no = max(guess, int(rows[-1][0] or 0) + 1 if rows else 1)
            values = (_find_text(gpu, where) for where in _PATHS.values())
            rows.append((row_no, _parse_timestamp(log.findtext("timestamp", "")), *values))
    if not rows:
        faults.check(faults.count)
        raise BadInput(
            "no document of `nvidia-smi -q -x` with a GPU",
            where=str(path),
            remedy="Record with nvidia-smi -q -x -l 1, or with --query-gpu and --format=csv",
        )
    schema = {"row_no": pl.Int64(), "timestamp": pl.String(), **dict.fromkeys(_PATHS, pl.String())}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame, {name: name for name in _PATHS if frame[name].null_count() < frame.height}


def _split_documents(plain: Path, path: Path, faults: RowFaults) -> Iterator[tuple[int, str]]:
    """Each document without prolog and without what lies between documents, with the line on which it begins."""
    begun, lines, size = 0, list[str](), 0
    with plain.open(encoding="utf-8-sig") as file:
        for line_no, line in enumerate(_read_lines(file, path), 1):
            rest = line
            while rest:
                if not begun:
                    at = rest.find(_BEGIN)
                    if at < 0:
                        break
                    begun, lines, size, rest = line_no, [], 0, rest[at:]
                head, end, rest = rest.partition(_END)
                lines.append(head + end)
                size += len(head)
                if size > _MOST_CHARS:
                    raise _refuse_size(path)
                if end:
                    yield begun, "".join(lines)
                    begun = 0
    if begun:
        faults.skip("last document, cut while it was written")


def _read_lines(file: object, path: Path) -> Iterator[str]:
    while line := file.readline(_MOST_CHARS):  # type: ignore[attr-defined]
        yield line


def _refuse_size(path: Path) -> BadInput:
    return BadInput(
        "a document of more than 16 million characters",
        where=str(path),
        remedy="No `nvidia-smi -q -x` writes that; check the file",
    )


def _find_text(gpu: ElementTree.Element, paths: tuple[str, ...]) -> str | None:
    """The first value that is there, in the order of paths."""
    texts = [text.strip() for where in paths if (text := gpu.findtext(where))]
    return next((text for text in texts if text.upper() not in ("N/A", "[N/A]")), None)


def _parse_timestamp(text: str) -> str:
    """`Tue Nov 25 10:00:00 2025` as ISO 8601, without regard to the locale of this machine."""
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None or match[1] not in _MONTHS:
        return text
    return f"{match[4]}-{_MONTHS.index(match[1]) + 1:02d}-{int(match[2]):02d} {match[3]}"
