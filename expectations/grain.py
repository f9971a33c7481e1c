"""One check that holds for every table and view: its rows have its key once."""

from __future__ import annotations

from expectations.checks import Suite, no_rows


def build_grain_suite(*, schema: str = "staging") -> Suite:
    """The suite `grain`, on the counts of rows and keys of the tables and views that are published."""
    return Suite(
        name="grain",
        schema=schema,
        table="table_grain",
        keys=("table_name",),
        checks=(
            no_rows(
                "keys_are_unique",
                "No two rows of a table or view share its key (docs/data-dictionary.md)",
                "SELECT table_name, key_columns, row_count, key_count FROM {batch} "
                "WHERE row_count <> key_count",
                remedy="Something is counted twice. This is a defect of Wattledger: please report it with this message",
                overridable=False,
            ),
        ),
    )
