-- grain: one row per zone and signal, and one per zone for its generation mix
-- keys: zone, signal
-- owner: publication
SELECT
    zone,
    signal,
    count(*) AS intervals,
    min(valid_from) AS first,
    max(valid_to) AS last
FROM grid_intensity
WHERE superseded_at IS NULL
GROUP BY ALL
UNION ALL
SELECT
    zone,
    'generation mix',
    count(DISTINCT valid_from),
    min(valid_from),
    max(valid_to)
FROM grid_mix
WHERE superseded_at IS NULL
GROUP BY ALL
ORDER BY ALL
