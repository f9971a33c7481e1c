-- grain: one source of a quantity, with the share of the runs' facility energy that rests on it
-- keys: quantity, rung, feed, source, is_estimated
-- owner: flows.reporting.report.render
FROM (
    SELECT
        quantity,
        rung,
        feed,
        source,
        is_estimated,
        sum(s.energy_share * f.facility_mj)
            / (SELECT sum(facility_mj) FROM run_footprint WHERE kind = 'run') AS share
    FROM intensity_sources AS s
    JOIN run_footprint AS f ON f.run_id = s.run_id AND f.kind = 'run'
    WHERE quantity IN ('intensity', 'ewif', 'marginal')
    GROUP BY ALL
)
ORDER BY quantity <> 'intensity', quantity, share DESC, rung, feed, source
LIMIT 30
