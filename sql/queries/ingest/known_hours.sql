-- Hours of each span that a feed knows, as one kind of series or as a mix; spans of which it knows nothing are left out.
WITH known AS (
    SELECT
        if(signal = 'marginal', 'marginal', 'average') AS kind,
        valid_from,
        valid_to,
        zone,
        feed,
        superseded_at
    FROM grid_intensity
    UNION ALL
    -- A mix that lacks a fuel is not known.
    SELECT 'mix' AS kind, valid_from, valid_to, zone, feed, superseded_at FROM grid_mix
    ANTI JOIN incomplete_interval USING (zone, feed, valid_from, valid_to)
),
span AS (
    SELECT unnest($first::TIMESTAMPTZ[]) AS first, unnest($last::TIMESTAMPTZ[]) AS last
),
part AS (
    -- One interval may have several fuels, or several kinds of intensity.
    SELECT DISTINCT
        first, kind, greatest(valid_from, first) AS part_from, least(valid_to, last) AS part_to
    FROM span
    JOIN known ON valid_to > first AND valid_from < last
    WHERE zone = $zone AND feed = $feed AND superseded_at IS NULL
),
total AS (
    SELECT first, kind, sum(epoch_us(part_to) - epoch_us(part_from)) / 3.6e9 AS hours
    FROM part
    GROUP BY ALL
)
SELECT first, max(hours) AS hours FROM total GROUP BY first
