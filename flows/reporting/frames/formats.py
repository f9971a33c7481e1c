"""Reports as text for machines: CSV, and YAML of a model card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flows.reporting.frames.model import Frame

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""

_COLUMNS = ("field", "value", "low", "high", "unit", "remark")


def format_csv(frame: Frame, reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports as CSV: one line a run with its fields as columns, or one line an entry."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if frame.per == "run":
        writer.writerow(entry.field for entry in frame.entries)
        for report in reports:
            writer.writerow(_defuse(entry["value"]) for entry in report["entries"])
    else:
        writer.writerow(("subject", *_COLUMNS))
        for report in reports:
            for entry in report["entries"]:
                cells = (report["subject"], *(entry[name] for name in _COLUMNS))
                writer.writerow(_defuse(cell) for cell in cells)
    return text.getvalue()


def _defuse(cell: Any) -> Any:
    """A cell that a spreadsheet takes for text, whatever somebody called their run."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def format_yaml(reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports as blocks of a model card's front matter, each after a comment that names its run."""
    lines = []
    for report in reports:
        lines += [f"# {json.dumps(report['subject'], ensure_ascii=False)}", "co2_eq_emissions:"]
        for entry in report["entries"]:
            value = entry["value"]
            # JSON is YAML, and quotes what needs it.
            text = (
                f"{value:.6g}"
                if isinstance(value, float)
                else json.dumps(value, ensure_ascii=False)
            )
            lines.append(f"  {entry['field']}: {text}")
    return "\n".join(lines) + "\n"
