"""A ledger opened in Python: its runs, figures, series and answers to SQL, as Polars frames.

    import wattledger

    ledger = wattledger.open("project")
    ledger.runs()

The command line reads through the same functions (`flows.publication.reader`), so both give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows.publication.reader import find_store, query_frame
from flows.reporting.explain import explain_run
from flows.settings import load
from flows.warehouse.frames import load_query
from flows.warehouse.store import Store
from transforms.figures import FIGURES


class Ledger:
    """The figures of a project: those in force, of an earlier publication, or as computed last.

    Each call reads the database and closes it again, so a ledger can be kept as long as one likes: it never blocks the
    pipeline, and sees what was published meanwhile.
    """

    def __init__(
        self, project: str | Path = ".", *, publication: str = "", warehouse: bool = False
    ) -> None:
        """Open the ledger of a project.

        Args:
            project: The folder with wattledger.toml.
            publication: Number or id of a publication; the one in force if left out.
            warehouse: Read the figures that were computed last, published or not, and every table behind them.

        Raises:
            SettingsError: there is no project there, or its settings make no sense.
            UsageError: nothing has been published (or loaded) yet, or there is no such publication.
            NotAsPublished: the publication was changed, or `published` leads elsewhere; also of every call.
        """
        self._settings = load(Path(project))
        self._publication, self._warehouse = publication, warehouse
        self._find_store()

    def __repr__(self) -> str:
        return f"<Ledger {self._find_store()}>"

    def _find_store(self) -> Store:
        """What is read, checked to be what was published each time: it may be another one meanwhile."""
        return find_store(self._settings, publication=self._publication, warehouse=self._warehouse)

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Ask in SQL, read-only and without access to files or network.

        Args:
            query: One SELECT statement of DuckDB's SQL; docs/data-dictionary.md has the tables and views.
            parameters: Values of its `$parameters`.

        Returns:
            The rows of the answer. Times are UTC.

        Raises:
            UsageError: the statement is wrong.
        """
        return query_frame(self._find_store(), query, parameters)

    def runs(self) -> pl.DataFrame:
        """Energy, carbon and water of every training run.

        Returns:
            One row per run: the columns of the view `run_summary`, among them run_id, energy_kwh, co2e_kg,
            water_onsite_l and water_offsite_l with their bounds (`_low_`, `_high_`), and measured shares from 0 to 1.
        """
        return self.sql("FROM run_summary")

    def figures(self, run_id: str | None = None) -> pl.DataFrame:
        """Every figure of every run, one under the other.

        Args:
            run_id: Only those of this run.

        Returns:
            run_id, figure, meaning, unit (kWh, kg, L, h; empty for money), value, low and high. Figures without bounds
            have null in low and high.
        """
        stored = set(self.sql("FROM run_footprint LIMIT 0").columns)
        # An earlier publication may not have all of them.
        figures = [figure for figure in FIGURES if stored.issuperset(figure.columns)]
        # DuckDB divides, as in the views: Polars multiplies by the reciprocal, which can differ in the last digit.
        shown = ", ".join(
            f"{column} / {figure.unit.per} AS {column}"
            for figure in figures
            for column in figure.columns
        )
        rows = self.sql(
            f"SELECT run_id, {shown} FROM run_footprint WHERE kind = 'run' AND run_id = coalesce($run_id, run_id)",
            {"run_id": run_id},
        )
        long = [
            rows.select(
                "run_id",
                figure=pl.lit(figure.name),
                meaning=pl.lit(figure.meaning),
                unit=pl.lit(figure.unit.symbol),
                value=figure.stored(),
                low=pl.col(figure.stored("_low")) if figure.bounded else pl.lit(None, pl.Float64),
                high=pl.col(figure.stored("_high")) if figure.bounded else pl.lit(None, pl.Float64),
            )
            for figure in figures
        ]
        return pl.concat(long).sort("run_id", maintain_order=True)

    def series(
        self,
        run_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pl.DataFrame:
        """Energy, carbon and water by hour.

        Args:
            run_id: Only the hours of this run; else all runs, and what was idle or unallocated.
            start: Hours from then on; a time with its zone.
            end: Hours that begin before then; a time with its zone.

        Returns:
            hour_start (UTC), kind (`run`, `idle`, `unallocated`), run_id (null but for runs), energy_kwh, facility_kwh,
            co2e_kg, water_onsite_l, water_offsite_l; in order of time.
        """
        return self.sql(
            load_query("reporting/energy_by_hour"),
            {"run_id": run_id, "start": start, "end": end},
        )

    def publications(self) -> pl.DataFrame:
        """The publications up to this one.

        Returns:
            One row per publication, oldest first: the columns of the table `publication`, among them publication_id,
            published_at, method_version, the digests, and previous_digest, which chains them.
        """
        return self.sql("FROM publication ORDER BY sequence")

    def explain(self, run_id: str) -> dict[str, Any]:
        """The arithmetic behind the figures of a run, as `wattledger explain RUN --json` prints it.

        Raises:
            UsageError: there is no such run.
        """
        with closing(self._find_store().connect(read_only=True)) as con:
            return explain_run(con, run_id)
