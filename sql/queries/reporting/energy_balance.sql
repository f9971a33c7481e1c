-- grain: all GPUs together (one row)
-- keys: none
-- owner: flows.reporting.report.render
SELECT
    sum(metered_mj) / 3.6e9 AS metered_kwh,
    sum(attributed_mj) / 3.6e9 AS attributed_kwh,
    sum(idle_mj) / 3.6e9 AS idle_kwh,
    sum(unallocated_mj) / 3.6e9 AS unallocated_kwh,
    coalesce(sum(abs(difference_mj)), 0) AS difference_mj
FROM conservation
