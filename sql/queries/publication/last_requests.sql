-- grain: one row per feed and zone: the last request to a grid provider
-- keys: feed, zone
-- owner: publication
SELECT
    feed,
    zone,
    outcome,
    reason,
    last_attempt_at,
    attempts
FROM grid_fetch
QUALIFY row_number() OVER (PARTITION BY feed, zone ORDER BY last_attempt_at DESC) = 1
ORDER BY zone, feed
