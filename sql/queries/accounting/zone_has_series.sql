-- grain: one row where a zone has a series of $signal, or a generation mix, in a span of time ($first to $last, us since the epoch)
-- keys: zone
-- owner: flows.accounting.intensity
FROM (
    SELECT zone, valid_from, valid_to, fetched_at FROM grid_intensity WHERE signal = $signal
    UNION ALL
    SELECT zone, valid_from, valid_to, fetched_at FROM grid_mix
)
SELECT zone
WHERE zone = $zone AND fetched_at <= $as_of
    AND valid_to > make_timestamptz($first) AND valid_from < make_timestamptz($last)
LIMIT 1
