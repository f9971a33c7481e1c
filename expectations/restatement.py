"""Checks of what the candidate restates of the publication in force."""

from __future__ import annotations

from expectations.checks import Suite, no_rows


def build_restatement_suite(*, max_change: float, schema: str = "staging") -> Suite:
    """The suite `restatement`, on the runs whose figures would change; the bound comes from [gate]."""

    def within(figure: str, unit: str, name: str) -> str:
        before, after = f"{figure}_before_{unit}", f"{figure}_after_{unit}"
        return (
            f"SELECT run_id, {before}, {after}, causes FROM {{batch}} "
            f"WHERE abs({after} - {before}) > {max_change} * {before}"
        )

    remedy = "See `wattledger diff` after publishing; say why with `wattledger publish --because`"
    return Suite(
        name="restatement",
        schema=schema,
        table="restatement",
        keys=("run_id", "causes"),
        checks=(
            *(
                no_rows(
                    f"{figure}_restated_little",
                    f"No published {name} of a run changes by more than {max_change:.0%}",
                    within(figure, unit, name),
                    severity="warn",
                    remedy=remedy,
                )
                for figure, unit, name in (("energy", "mj", "energy"), ("co2e", "ug", "CO2e"))
            ),
            no_rows(
                "published_runs_stay",
                "Every run that was published before still has figures",
                "SELECT run_id, previous_id FROM {batch} WHERE energy_after_mj IS NULL",
                severity="warn",
                remedy=remedy,
            ),
            no_rows(
                "restated_for_a_reason",
                "Of every restated run it is known which of its inputs changed",
                "SELECT run_id, previous_id FROM {batch} WHERE causes = ''",
                severity="warn",
                remedy="This is a defect of Wattledger: please report it with this message",
            ),
        ),
    )
