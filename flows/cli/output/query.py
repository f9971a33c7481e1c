"""Answers to queries, as tables or CSV."""

from __future__ import annotations

import csv
import sys
from itertools import islice

from rich.markup import escape

from flows.cli.output.console import make_console, make_table
from flows.publication.reader import QueryResult

_MOST_ROWS = 1000


def print_csv(result: QueryResult) -> None:
    """Print all rows, as they are read."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(result.rows)


def print_rows(result: QueryResult) -> None:
    """Print the first thousand rows as a table."""
    rows = list(islice(result.rows, _MOST_ROWS + 1))
    console = make_console()
    table = make_table()
    for i, name in enumerate(result.columns):
        is_numeric = bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        table.add_column(escape(name), justify="right" if is_numeric else "left")
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(escape("" if value is None else str(value)) for value in row))
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print("... more than 1,000 rows: use --csv or --json, or add a LIMIT")
