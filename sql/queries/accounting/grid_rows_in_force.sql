-- grain: one row of $table (grid_intensity or grid_mix) of a zone and a span of time ($first to $last, us since the epoch)
--   that was in force at $as_of
-- keys: zone, valid_from, feed, and signal or fuel
-- owner: flows.accounting.intensity
-- A row is stale where its feed could not be asked for its day again since it was fetched.
WITH attempt AS (
    SELECT feed, outcome, least(last_attempt_at, $as_of) AS tried, unnest(generate_series(
        date_trunc('day', first_ts), last_ts - INTERVAL 1 MICROSECOND, INTERVAL 1 DAY)) AS day
    FROM grid_fetch
    WHERE zone = $zone AND first_attempt_at <= $as_of
), state AS (
    SELECT feed, day, max(tried) FILTER (outcome = 'failed') AS failed,
        max(tried) FILTER (outcome <> 'failed') AS fetched
    FROM attempt GROUP BY ALL
)
SELECT g.*, coalesce(s.failed > greatest(s.fetched, g.fetched_at), false) AS stale
FROM query_table($table) AS g
LEFT JOIN state AS s ON s.feed = g.feed AND s.day = date_trunc('day', g.valid_from)
WHERE g.zone = $zone
    AND g.valid_to > make_timestamptz($first) AND g.valid_from < make_timestamptz($last)
    AND g.fetched_at <= $as_of AND (g.superseded_at IS NULL OR g.superseded_at > $as_of)
