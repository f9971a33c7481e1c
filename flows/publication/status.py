"""The status of a project: what is loaded, computed, published and refused."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from flows.publication.reader import find_store
from flows.publication.revisions import find_revised_runs
from flows.settings import Settings
from flows.warehouse.digests import digest_inputs
from flows.warehouse.frames import load_query, query_rows


def read_status(settings: Settings) -> dict[str, Any]:
    """Read what is loaded, computed, published and refused.

    Returns:
        readings: rows, first_ts, last_ts, gpus.
        grid: zone, signal, intervals, first, last of each series in force.
        runs: how many runs are in force.
        computed_at: when figures were computed; None if never.
        computed_is_current: whether nothing was loaded since.
        published: publication_id and published_at of the last publication, in a list that may be empty.
        quarantine: rows of the table `quarantine`.
        providers: the last request of each feed and zone.
        revised: published runs whose grid data changed since, with what would change.

    Raises:
        UsageError: nothing has been loaded yet.
    """
    with closing(find_store(settings, warehouse=True).connect(read_only=True)) as con:
        computations = query_rows(con, "FROM computation")
        is_current = bool(computations) and computations[0]["input_digest"] == digest_inputs(con)
        [(runs,)] = con.execute(
            "SELECT count(*) FROM training_run WHERE superseded_at IS NULL"
        ).fetchall()
        [readings] = query_rows(
            con,
            "SELECT count(*) AS rows, min(ts) AS first_ts, max(ts) AS last_ts, "
            "count(DISTINCT gpu_key) AS gpus FROM gpu_reading",
        )
        return {
            "readings": readings,
            "grid": query_rows(con, load_query("publication/grid_series")),
            "runs": runs,
            "computed_at": computations[0]["computed_at"] if computations else None,
            "computed_is_current": is_current,
            "published": query_rows(
                con,
                "SELECT publication_id, published_at FROM publication ORDER BY sequence DESC LIMIT 1",
            ),
            "quarantine": query_rows(con, "FROM quarantine ORDER BY recorded_at"),
            "providers": query_rows(con, load_query("publication/last_requests")),
            "revised": find_revised_runs(con, settings),
        }
