"""Checks of grid series and generation mixes, before they enter the warehouse."""

from __future__ import annotations

from expectations.checks import Check, Suite, at_least, between, no_rows, not_null

_MINUTES = "(5, 10, 15, 20, 30, 60)"


def _intervals(table: str, key: str) -> tuple[Check, ...]:
    """Checks of any intervals; `key` names the columns that tell one series of a table from another."""
    return (
        not_null("has_start", "valid_from", "Every interval has a start"),
        not_null("has_end", "valid_to", "Every interval has an end"),
        at_least(
            "ends_after_start",
            "valid_to",
            "valid_from",
            "Every interval ends after it starts",
            equal=False,
            remedy="Check the time column and --tz",
        ),
        no_rows(
            "usual_length",
            "Intervals last 5, 10, 15, 20, 30 or 60 minutes",
            f"SELECT zone, valid_from, valid_to FROM {{batch}} WHERE "
            f"date_diff('minute', valid_from, valid_to) NOT IN {_MINUTES}",
            severity="warn",
        ),
        no_rows(
            "no_overlap",
            "Intervals of one series do not overlap, and none is given twice with two values",
            f"SELECT zone, valid_from, valid_to, row_no FROM (SELECT *, "
            f"lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from, valid_to) AS next "
            "FROM {batch}) WHERE next < valid_to",
            remedy="Check --tz (an hour that the clock repeats looks doubled in local time), "
            "or remove one of the two rows",
        ),
        no_rows(
            "same_grid_as_store",
            "New intervals replace stored ones of the same length, or fall between them",
            f"SELECT b.zone, b.valid_from, b.valid_to, b.row_no FROM {{batch}} AS b "
            f"JOIN {table} AS s ON {' AND '.join(f's.{k} = b.{k}' for k in key.split(', '))} "
            "AND s.superseded_at IS NULL AND s.valid_from < b.valid_to "
            "AND s.valid_to > b.valid_from AND (s.valid_from <> b.valid_from "
            "OR s.valid_to <> b.valid_to)",
            remedy="The zone holds a series of another resolution there: load this one under "
            "another zone name",
        ),
        no_rows(
            "no_gap",
            "The series has no gap",
            f"SELECT zone, valid_to AS gap_from, next AS gap_to FROM (SELECT *, "
            f"lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) AS next "
            "FROM {batch}) WHERE next > valid_to",
            severity="warn",
        ),
    )


def build_intensity_suite(*, schema: str = "staging", max_g_per_kwh: float = 3000) -> Suite:
    """The suite `grid`, on intensities.

    Args:
        schema: Where the table `grid_intensity` with the new rows is.
        max_g_per_kwh: The largest believable intensity ([gate] in wattledger.toml).
    """
    return Suite(
        name="grid",
        schema=schema,
        table="grid_intensity",
        keys=("zone", "valid_from", "row_no"),
        checks=(
            *_intervals("grid_intensity", "zone, signal, feed"),
            not_null("has_value", "intensity_g_per_kwh", "Every interval has an intensity"),
            between(
                "intensity_believable",
                "intensity_g_per_kwh",
                f"Intensities lie between 0 and {max_g_per_kwh:g} g/kWh",
                low=0,
                high=max_g_per_kwh,
                remedy="Check the unit (--unit g, kg or lb_per_mwh)",
            ),
        ),
    )


def build_mix_suite(*, schema: str = "staging") -> Suite:
    """The suite `grid_mix`, on generation by fuel.

    Args:
        schema: Where the table `grid_mix` with the new rows is.
    """
    return Suite(
        name="grid_mix",
        schema=schema,
        table="grid_mix",
        keys=("zone", "valid_from", "fuel", "row_no"),
        checks=(
            *_intervals("grid_mix", "zone, fuel, feed"),
            not_null("has_generation", "generation_kw", "Every fuel has a generation"),
            between(
                "generation_believable",
                "generation_kw",
                "Generation of one fuel lies within 500 GW",
                low=-500_000_000,
                high=500_000_000,
                remedy="Check the unit (--unit MW or kW)",
            ),
            no_rows(
                "something_generates",
                "Something generates in every interval; one where nothing does counts as a gap",
                "SELECT zone, valid_from FROM {batch} GROUP BY zone, valid_from "
                "HAVING sum(greatest(generation_kw, 0)) = 0",
                severity="warn",
            ),
        ),
    )
