"""What a column and a table are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transforms.constants import BOUNDS
from transforms.figures import Figure


@dataclass(frozen=True)
class Field:
    """A column: its name (which carries the unit), DuckDB type and meaning."""

    name: str
    sql_type: str
    description: str
    unit: str = ""


Role = Literal[
    "readings",  # what meters and collectors recorded, by file
    "input",  # what else is loaded, and figures are computed from
    "grid",  # series of grid data
    "configured",  # what wattledger.toml and the factors say, written by each computation
    "context",  # what is loaded and published, but moves no figure
    "candidate",  # what a computation writes
    "made_from",  # what the candidate was computed from
    "cache",  # what is kept from one computation to the next
    "ledger",  # what was checked, published, refused and rolled up
    "lock",  # what serialises writers on a lake
    "view",
]
"""What a table is there for."""

Publish = Literal[
    "no",
    "whole",
    "in_force",  # only rows in force
    "of_publication",  # only the verdicts of the publication itself
]
"""Which rows of a table `published.duckdb` holds."""

Changes = Literal[
    "by_computation",  # a new computation may write others
    "by_growth",  # rows are added, and stay as they are
    "by_revision",  # rows stay; a new revision supersedes one
    "by_roll_up",  # rows belong to a segment and stay, until sums replace the readings
    "at_any_time",
]
"""How the rows of a table may change after a publication."""


@dataclass(frozen=True)
class Table:
    """A table or view: what one row is, what it is for, and its columns in order.

    Attributes:
        grain: What one row is, in words.
        key: The columns that identify a row among those in force, null counting as a value; none
            where there is one row at most.
        in_force: SQL condition of the rows that count now; empty where all do.
        known_since: Column with the time since when a row is known, where rows are superseded.
        part: Column by whose values digests of its rows are taken; empty for one of all rows.
        digested: Columns that enter the digest of inputs (`*` for all), of rows in force; none where
            it does not enter. Tables enter in the order in which they are declared.
    """

    name: str
    grain: str
    description: str
    fields: tuple[Field, ...]
    key: tuple[str, ...] = field(kw_only=True)
    role: Role = field(kw_only=True)
    kind: Literal["table", "view"] = "table"
    published: Publish = "no"
    in_force: str = ""
    changes: Changes = "by_computation"
    known_since: str = ""
    part: str = ""
    digested: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return [field.name for field in self.fields]

    @property
    def where_in_force(self) -> str:
        """SQL: WHERE with the rows in force; empty where all are."""
        return f"WHERE {self.in_force}" if self.in_force else ""


TIMESTAMP = "TIMESTAMP WITH TIME ZONE"


def bounded(
    head: str, unit: str, sql_type: str, description: str, shown_unit: str
) -> tuple[Field, Field, Field]:
    """A value and its low and high: `pue`, `pue_low`; `co2e_ug`, `co2e_low_ug`."""
    name = head + unit
    texts = (description, f"Lower bound of {name}", f"Upper bound of {name}")
    value, low, high = (
        Field(f"{head}{bound}{unit}", sql_type, text, shown_unit)
        for bound, text in zip(BOUNDS, texts, strict=True)
    )
    return value, low, high


def describe_stored(figure: Figure) -> tuple[Field, ...]:
    """The fields of a figure as it is stored, in whole numbers."""
    unit = figure.unit
    if figure.bounded:
        return bounded(figure.name, f"_{unit.stored}", "BIGINT", figure.meaning, unit.stored_symbol)
    return (Field(figure.stored(), "BIGINT", figure.meaning, unit.stored_symbol),)


def describe_shown(figure: Figure) -> tuple[Field, ...]:
    """The fields of a figure as the view `run_summary` shows it."""
    unit = figure.unit
    if figure.shown == "bounds":
        return bounded(figure.name, f"_{unit.shown}", "DOUBLE", figure.meaning, unit.symbol)
    if figure.shown == "value":
        return (Field(figure.shown_as(), "DOUBLE", figure.meaning, unit.symbol),)
    return ()
