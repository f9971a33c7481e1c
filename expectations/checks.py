"""A check: a sentence that anyone can read, and the expectation that tests it.

Great Expectations itself is only imported by `expectations.gate`, as it takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["fail", "warn"]


@dataclass(frozen=True)
class Check:
    """One check of a suite.

    `expectation` is the name of a Great Expectations class, `kwargs` its arguments.
    """

    name: str
    statement: str
    expectation: str
    kwargs: dict[str, Any]
    severity: Severity = "fail"
    remedy: str = ""
    overridable: bool = True
    """Whether a person may answer for figures that break it; not where they contradict themselves."""


@dataclass(frozen=True)
class Suite:
    """The checks of one table. `keys` name the columns that identify a row in reports."""

    name: str
    schema: str
    table: str
    keys: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Result:
    """What one check said. `rows` are the rows that break it (keys and the column checked)."""

    check: Check
    success: bool
    unexpected: int
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a suite said of its table."""

    suite: Suite
    checked_rows: int
    results: list[Result]

    @property
    def success(self) -> bool:
        """True unless a check of severity `fail` did not pass."""
        return not self.failures

    @property
    def failures(self) -> list[Result]:
        return [r for r in self.results if not r.success and r.check.severity == "fail"]

    @property
    def warnings(self) -> list[Result]:
        return [r for r in self.results if not r.success and r.check.severity == "warn"]


def between(
    name: str,
    column: str,
    statement: str,
    low: Any = None,
    high: Any = None,
    severity: Severity = "fail",
    remedy: str = "",
) -> Check:
    """Every value of `column` lies in low..high; nulls are not looked at."""
    kwargs = {"column": column, "min_value": low, "max_value": high}
    return Check(
        name, statement, "ExpectColumnValuesToBeBetween", kwargs, severity=severity, remedy=remedy
    )


def at_least(
    name: str,
    larger: str,
    smaller: str,
    statement: str,
    *,
    equal: bool = True,
    severity: Severity = "fail",
    remedy: str = "",
    overridable: bool = True,
) -> Check:
    """Column `larger` is never below column `smaller`; rows with a null are not looked at."""
    kwargs = {
        "column_A": larger,
        "column_B": smaller,
        "or_equal": equal,
        "ignore_row_if": "either_value_is_missing",
    }
    return Check(
        name,
        statement,
        "ExpectColumnPairValuesAToBeGreaterThanB",
        kwargs,
        severity=severity,
        remedy=remedy,
        overridable=overridable,
    )


def no_rows(
    name: str,
    statement: str,
    query: str,
    severity: Severity = "fail",
    remedy: str = "",
    *,
    overridable: bool = True,
) -> Check:
    """A query that looks for offenders (`{batch}` is the table) finds none."""
    return Check(
        name,
        statement,
        "UnexpectedRowsExpectation",
        {"unexpected_rows_query": query},
        severity=severity,
        remedy=remedy,
        overridable=overridable,
    )


def not_null(name: str, column: str, statement: str, remedy: str = "") -> Check:
    """`column` has a value in every row."""
    return Check(
        name, statement, "ExpectColumnValuesToNotBeNull", {"column": column}, remedy=remedy
    )
