"""The meaning of every column, by name: described once, whatever tables have it."""

from __future__ import annotations

from transforms.schema.fields import figures, grid, ledger, readings, views
from transforms.schema.model import Field

FIELDS: dict[str, Field] = {
    field.name: field for part in (readings, grid, figures, ledger, views) for field in part.FIELDS
}


def columns(names: str) -> tuple[Field, ...]:
    """The fields of some columns, from their names with spaces between."""
    return tuple(FIELDS[name] for name in names.split())
