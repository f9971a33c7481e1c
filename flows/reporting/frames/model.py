"""What a reporting frame is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UG_PER_TONNE, UL_PER_M3, MJ_PER_MWH = "1e12", "1e9", "3.6e12"
"""Units of the ledger in units of reports, as SQL (mJ are millijoules)."""

EMBODIED_REMARK = (
    "Amortised over the hours of use; the Corporate Value Chain Standard books all of it in the year of "
    "purchase, so take care not to count it twice"
)


@dataclass(frozen=True)
class Entry:
    """One figure or field of a frame.

    Attributes:
        field: What the frame calls it.
        value: SQL. With `{}` in it, its low and high are that with `_low` and `_high` put in. An empty
            one is what the ledger cannot know.
        unit: Unit of the value.
        remark: What it counts, or why it is empty.
    """

    field: str
    value: str
    unit: str
    remark: str

    def sql(self, bound: str) -> str:
        """SQL for the value, or for a bound of it (`_low`, `_high`); NULL where there is none."""
        if not self.value or (bound and "{}" not in self.value):
            return "NULL"
        return self.value.replace("{}", bound)


@dataclass(frozen=True)
class Frame:
    """A form of report.

    Attributes:
        name: As the command line calls it.
        title: As its publisher calls it.
        about: Which text it follows, and what it covers.
        per: What one report is about: a period, a family of runs, or a run.
        form: What it is printed as: a table for people, or the file that its readers expect.
        entries: Its figures and fields, in order.
    """

    name: str
    title: str
    about: str
    per: Literal["period", "family", "run"]
    form: Literal["table", "csv", "yaml"]
    entries: tuple[Entry, ...]


def sum_slots(column: str, scale: str) -> str:
    """SQL for the sum of a column of footprint_slot, in the unit of a report."""
    return f"sum({column}) / {scale}"
