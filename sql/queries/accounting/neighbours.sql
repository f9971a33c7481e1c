-- grain: one range of slots of a GPU (`ranges`), with the nearest slots that have readings, $reach slots away at most
-- keys: gpu_key, first, last
-- owner: flows.accounting.stretches
WITH near AS (
    SELECT gpu_key, slot FROM segment_piece UNION ALL SELECT gpu_key, slot FROM gpu_piece
)
SELECT g.gpu_key, g.first, g.last, max(p.slot) FILTER (p.slot < g.first) AS before,
    min(p.slot) FILTER (p.slot > g.last) AS after
FROM ranges AS g LEFT JOIN (
    FROM near WHERE slot BETWEEN (SELECT min(first) FROM ranges) - $reach
        AND (SELECT max(last) FROM ranges) + $reach
) AS p ON p.gpu_key = g.gpu_key AND (p.slot BETWEEN g.first - $reach AND g.first - 1
    OR p.slot BETWEEN g.last + 1 AND g.last + $reach)
GROUP BY ALL
