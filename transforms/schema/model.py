"""What a column and a table are."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.constants import BOUNDS


@dataclass(frozen=True)
class Field:
    """A column: its name (which carries the unit), DuckDB type and meaning."""

    name: str
    sql_type: str
    description: str
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table or view: what one row is (`grain`), what it is for, and its columns in order."""

    name: str
    grain: str
    description: str
    fields: tuple[Field, ...]
    kind: str = "table"

    @property
    def columns(self) -> list[str]:
        return [field.name for field in self.fields]


TIMESTAMP = "TIMESTAMP WITH TIME ZONE"


def bounded(
    head: str, unit: str, sql_type: str, description: str, shown_unit: str, *, of: bool = False
) -> tuple[Field, Field, Field]:
    """A value and its low and high: `pue`, `pue_low`; `co2e_ug`, `co2e_low_ug`.

    `of`: the bounds name the value, as where they stand far from it.
    """
    name = head + unit
    texts = (
        description,
        f"Lower bound of {name}" if of else "Its lower bound",
        f"Upper bound of {name}" if of else "Its upper bound",
    )
    value, low, high = (
        Field(f"{head}{bound}{unit}", sql_type, text, shown_unit)
        for bound, text in zip(BOUNDS, texts, strict=True)
    )
    return value, low, high
