"""What every table and column means: the one place that says types, units, keys and roles.

`sql/migrations` creates the tables, this package explains them: the warehouse writes these texts
as `COMMENT`s, `docs/data-dictionary.md` is generated from them, and tests hold migrations, views and
rows to the types and keys given here. What is published, digested, verified and kept of a table
follows from its declaration too.
"""

from __future__ import annotations

from transforms.schema import figures, inputs, ledger, views
from transforms.schema.model import Changes, Field, Role, Table

__all__ = ["TABLES", "Field", "Table", "in_role", "that_change"]

TABLES: dict[str, Table] = {
    table.name: table for part in (inputs, figures, ledger, views) for table in part.TABLES
}


def in_role(*roles: Role) -> tuple[str, ...]:
    """Names of the tables in some roles."""
    return tuple(table.name for table in TABLES.values() if table.role in roles)


def that_change(*ways: Changes) -> tuple[str, ...]:
    """Names of the tables (not views) whose rows change in some ways."""
    return tuple(
        table.name for table in TABLES.values() if table.kind == "table" and table.changes in ways
    )
