"""What a candidate restates of the publication in force: by run, with the inputs that changed."""

from __future__ import annotations

from pathlib import Path

import duckdb

from flows.warehouse.frames import quote_literal

FIGURES = (
    "energy_mj",
    "facility_mj",
    "co2e_ug",
    "co2e_market_ug",
    "water_onsite_ul",
    "water_offsite_ul",
)
"""Figures of run_footprint whose change restates a run."""

_SYMMETRIC = """
    (SELECT {columns} FROM main.{table} EXCEPT SELECT {columns} FROM was.{table})
    UNION ALL (SELECT {columns} FROM was.{table} EXCEPT SELECT {columns} FROM main.{table})
"""
_HELD = "SELECT DISTINCT run_id, gpu_key, slot_start FROM {schema}.energy_slot WHERE kind = 'run'"
_RAN = (
    "SELECT DISTINCT run_id, site, zone, slot_start FROM {schema}.footprint_slot WHERE kind = 'run'"
)


def _either(query: str) -> str:
    """Rows of a query in either of the two publications."""
    return f"({query.format(schema='main')} UNION {query.format(schema='was')})"


def _changed(table: str, columns: str) -> str:
    return f"({_SYMMETRIC.format(table=table, columns=columns)})"


_CAUSES = f"""
    SELECT run_id, 'run' AS cause FROM {_changed("training_run", "run_id, started_at, ended_at")}
    UNION
    SELECT run_id, 'allocation of GPUs'
    FROM {_changed("run_allocation", "run_id, gpu_uuid, from_ts, to_ts, share_ppm")}
    UNION
    SELECT h.run_id, 'GPU readings' FROM {_either(_HELD)} AS h
    SEMI JOIN {_changed("gpu_slot", "gpu_key, slot_start, counter_mj, power_integral_mj, gap_mj")}
        AS c USING (gpu_key, slot_start)
    UNION
    SELECT h.run_id, 'readings of CPU and memory'
    FROM {_either(_HELD)} AS h JOIN main.gpu AS g USING (gpu_key)
    SEMI JOIN {_changed("host_slot", "host, slot_start, host_mj")} AS c USING (host, slot_start)
    UNION
    SELECT r.run_id, 'grid' FROM {_either(_RAN)} AS r
    SEMI JOIN {_changed("slot_signal", "zone, slot_start, intensity_g_per_kwh, ewif_l_per_kwh, residual_g_per_kwh")}
        AS c USING (zone, slot_start)
    UNION
    SELECT r.run_id, 'site' FROM {_either(_RAN)} AS r
    SEMI JOIN {_changed("site", "site, zone, pue, wue_l_per_kwh, overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, valid_from, valid_to")}
        AS c USING (site)
    UNION
    SELECT r.run_id, 'contracts' FROM {_either(_RAN)} AS r
    SEMI JOIN {_changed("contract_slot", "contract, site, slot_start, covered_ppm")}
        AS c USING (site, slot_start)
    UNION
    SELECT u.run_id, 'factor ' || c.factor || ' ' || c.scope
    FROM (FROM main.factor_use UNION FROM was.factor_use) AS u
    JOIN {_changed("factor", "factor, scope, value")} AS c USING (factor, scope)
"""


def _at(when: str, figure: str) -> str:
    """`co2e_before_ug` for before and co2e_ug."""
    head, unit = figure.rsplit("_", 1)
    return f"{head}_{when}_{unit}"


def restatement(con: duckdb.DuckDBPyConnection, before: Path | None) -> None:
    """Write staging.restatement: the table `restatement` of the candidate, without publication_id.

    `before` is the published file in force; without one there is nothing to restate.
    """
    con.execute(
        "CREATE OR REPLACE TABLE staging.restatement AS "
        "SELECT * EXCLUDE (publication_id) FROM main.restatement LIMIT 0"
    )
    if before is None:
        return
    con.execute(f"ATTACH {quote_literal(before)} AS was (READ_ONLY)")
    try:
        [(same_method,)] = con.execute(
            "SELECT (SELECT method_version FROM main.computation) "
            "= (SELECT method_version FROM was.computation)"
        ).fetchall()
        # Older methods have other tables; the method alone is cause enough.
        causes = (
            _CAUSES if same_method else "SELECT run_id, 'method' AS cause FROM main.run_footprint"
        )
        known = {name for name, *_ in con.execute("DESCRIBE was.run_footprint").fetchall()}
        figures = [name for name in FIGURES if name in known]
        pairs = ", ".join(
            f"b.{name} AS {_at('before', name)}, a.{name} AS {_at('after', name)}"
            for name in figures
        )
        con.execute(
            f"""
            INSERT INTO staging.restatement BY NAME
            SELECT (SELECT max_by(publication_id, sequence) FROM was.publication) AS previous_id,
                coalesce(a.run_id, b.run_id) AS run_id, {pairs}, coalesce(c.causes, '') AS causes
            FROM (FROM was.run_footprint WHERE kind = 'run') AS b
            FULL JOIN (FROM main.run_footprint WHERE kind = 'run') AS a ON a.run_id = b.run_id
            LEFT JOIN (
                SELECT run_id, string_agg(cause, ', ' ORDER BY cause) AS causes
                FROM ({causes}) GROUP BY run_id
            ) AS c ON c.run_id = coalesce(a.run_id, b.run_id)
            WHERE {" OR ".join(f"b.{name} IS DISTINCT FROM a.{name}" for name in figures)}
            ORDER BY 2
            """
        )
    finally:
        con.execute("DETACH was")
