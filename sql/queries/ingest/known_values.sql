-- Staged readings with null for values that stand for missing ones, and `blanks`, how many a reading has.
-- staged: a view of the file. $blank_powers, $blank_counters: numbers that say that there is none.
WITH unblanked AS (
    SELECT * REPLACE (
        CASE WHEN power_mw NOT IN (SELECT unnest($blank_powers)) THEN power_mw END AS power_mw,
        -- Above 2^62 nothing is a counter: it would take longer than there have been GPUs.
        CASE
            WHEN energy_mj NOT IN (SELECT unnest($blank_counters)) AND energy_mj < 4611686018427387904
                THEN energy_mj
        END AS energy_mj
    ),
    power_mw AS power_told, energy_mj AS energy_told
    FROM staged
),
neighboured AS (
    SELECT *,
        lag(energy_mj IGNORE NULLS) OVER w AS energy_before,
        lead(energy_mj IGNORE NULLS) OVER w AS energy_after
    FROM unblanked
    WINDOW w AS (PARTITION BY gpu_uuid ORDER BY ts, row_no)
),
-- A counter that jumps and comes back at once was not there, up or down; one that is reset stays low.
monotone AS (
    SELECT * REPLACE (
        CASE
            WHEN energy_before <= energy_after AND energy_mj NOT BETWEEN energy_before AND energy_after
                THEN NULL
            ELSE energy_mj
        END AS energy_mj
    )
    FROM neighboured
),
numbered AS (
    SELECT *,
        count(changed) OVER (
            PARTITION BY gpu_uuid ORDER BY ts, row_no ROWS UNBOUNDED PRECEDING
        ) AS level
    FROM (
        SELECT *,
            CASE
                WHEN energy_mj IS NOT NULL AND energy_mj IS DISTINCT FROM lag(energy_mj IGNORE NULLS) OVER (
                    PARTITION BY gpu_uuid ORDER BY ts, row_no
                ) THEN 1
            END AS changed
        FROM monotone
    )
),
levels AS (
    SELECT gpu_uuid, level,
        epoch_us(max(ts)) - epoch_us(min(ts)) AS still_us,
        any_value(energy_mj) = 0 AS at_zero,
        coalesce(max(power_mw) <= 1000, false) AND coalesce(max(util_pct), 0) = 0 AS is_off,
        count(*) OVER (PARTITION BY gpu_uuid) AS levels_of_gpu
    FROM numbered
    WHERE energy_mj IS NOT NULL
    GROUP BY gpu_uuid, level
),
-- A GPU that is on draws something, so its counter moves: one at 0 after a second, one that never moves after five,
-- any after two minutes (exporters repeat a value for a minute at most).
still AS (
    SELECT gpu_uuid, level, at_zero OR levels_of_gpu = 1 AS from_first
    FROM levels
    WHERE NOT is_off AND (
        still_us >= 120000000
        OR (at_zero AND still_us >= 1000000)
        OR (levels_of_gpu = 1 AND still_us >= 5000000)
    )
),
counted AS (
    SELECT n.* REPLACE (
        -- The first reading of a level that was reached ends a rise that was measured.
        CASE
            WHEN s.level IS NULL OR (n.changed = 1 AND NOT s.from_first) THEN n.energy_mj
        END AS energy_mj
    )
    FROM numbered AS n LEFT JOIN still AS s ON s.gpu_uuid = n.gpu_uuid AND s.level = n.level
),
rising AS (
    SELECT *,
        coalesce(energy_mj > lag(energy_mj) OVER w, false)
        OR coalesce(lead(energy_mj) OVER w > energy_mj, false) AS rises
    FROM counted
    WINDOW w AS (PARTITION BY gpu_uuid ORDER BY ts, row_no)
),
powered AS (
    SELECT * REPLACE (
        CASE WHEN power_mw = 0 AND (util_pct > 0 OR rises) THEN NULL ELSE power_mw END AS power_mw
    )
    FROM rising
)
SELECT * EXCLUDE (
        power_told, energy_told, energy_before, energy_after, changed, level, rises
    ),
    (power_told IS NOT NULL AND power_mw IS NULL)::INTEGER
    + (energy_told IS NOT NULL AND energy_mj IS NULL)::INTEGER AS blanks
FROM powered
