"""What every table and column means: the one place that says types, units and descriptions.

`sql/migrations` creates the tables, this package explains them: the warehouse writes these texts
as `COMMENT`s, `docs/data-dictionary.md` is generated from them, and a test holds migrations and
views to the types given here.
"""

from __future__ import annotations

from transforms.schema import figures, inputs, ledger, views
from transforms.schema.model import Field, Table

__all__ = ["TABLES", "Field", "Table"]

TABLES: dict[str, Table] = {
    table.name: table for part in (inputs, figures, ledger, views) for table in part.TABLES
}
