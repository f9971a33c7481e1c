"""One SQL statement: the step to the reading before by a window, cut at slot borders, summed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl

_QUERY = """
WITH reading AS (
    SELECT gpu_uuid, epoch_us(ts) AS t1, power_mw::BIGINT AS p1, energy_mj AS c1,
        power_source = 'average_1s' AS averaged,
        lag(epoch_us(ts)) OVER w AS t0, lag(power_mw) OVER w AS p0, lag(energy_mj) OVER w AS c0
    FROM read_parquet($paths)
    WINDOW w AS (PARTITION BY gpu_uuid ORDER BY ts)
), step AS (
    SELECT gpu_uuid, t0, t1, t1 - t0 AS dt,
        CASE WHEN c1 >= c0 THEN c1 - c0 END AS counted_mj,
        CASE WHEN averaged AND t1 - t0 <= 1500000 THEN 2 * p1 ELSE p0 + p1 END AS double_mw
    FROM reading WHERE t1 > t0
), inside AS (
    SELECT gpu_uuid, t0 // 300000000 AS slot, counted_mj, double_mw * dt AS dnj, dt
    FROM step WHERE t0 // 300000000 = t1 // 300000000
), across AS (
    SELECT *, unnest(range(t0 // 300000000, (t1 - 1) // 300000000 + 1)) AS slot
    FROM step WHERE t0 // 300000000 <> t1 // 300000000
), cut AS (
    SELECT *, greatest(t0, slot * 300000000) - t0 AS a, least(t1, (slot + 1) * 300000000) - t0 AS b
    FROM across
), part AS (
    SELECT gpu_uuid, slot, counted_mj, dnj, dt FROM inside
    UNION ALL
    SELECT gpu_uuid, slot, counted_mj::HUGEINT * b // dt - counted_mj::HUGEINT * a // dt,
        double_mw * (b - a), dt
    FROM cut
)
SELECT gpu_uuid, slot,
    (coalesce(sum(counted_mj), 0) +
    (coalesce(sum(dnj) FILTER (counted_mj IS NULL AND dt <= 30000000), 0) + 1000000) // 2000000
    )::BIGINT AS energy_mj
FROM part GROUP BY ALL ORDER BY ALL
"""


def slots(paths: Sequence[Path]) -> pl.DataFrame:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    return con.execute(_QUERY, {"paths": [str(path) for path in paths]}).pl()
