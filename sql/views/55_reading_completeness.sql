-- grain: one GPU in one hour in which it was recorded
-- keys: gpu_uuid, hour_start
-- owner: auditors
-- Readings that its recorder's period promises, and those that are there. A GPU that is silent for a day
-- counts as not recorded; where a run held it then, the energy is filled (data_quality).
CREATE OR REPLACE VIEW reading_completeness AS
WITH piece AS (
    SELECT p.gpu_uuid, p.first_ts, p.last_ts,
        coalesce(s.sample_period_ms, p.usual_step_ms) AS period_ms,
        coalesce(p.first_ts > max(p.last_ts) OVER (
            PARTITION BY p.gpu_uuid ORDER BY p.first_ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) + INTERVAL 1 DAY, true) AS begins
    FROM segment_profile AS p
    JOIN segment AS s USING (segment_id)
    WHERE s.verdict = 'loaded'
), stretch AS (
    SELECT *, count_if(begins) OVER (PARTITION BY gpu_uuid ORDER BY first_ts) AS stretch FROM piece
), span AS (
    SELECT gpu_uuid, min(first_ts) AS first_ts, max(last_ts) AS last_ts, median(period_ms) AS period_ms
    FROM stretch
    GROUP BY gpu_uuid, stretch
    HAVING median(period_ms) > 0
), hourly AS (
    SELECT *, greatest(first_ts, hour_start) AS from_ts,
        least(last_ts, hour_start + INTERVAL 1 HOUR) AS to_ts
    FROM (
        SELECT *,
            unnest(generate_series(date_trunc('hour', first_ts), last_ts, INTERVAL 1 HOUR)) AS hour_start
        FROM span
    )
), expected AS (
    SELECT gpu_uuid, hour_start,
        sum(floor((epoch_ms(to_ts) - epoch_ms(from_ts)) / period_ms))::BIGINT AS readings_expected
    FROM hourly
    GROUP BY ALL
), received AS (
    SELECT gpu_key, date_trunc('hour', slot_start) AS hour_start, sum(readings)::BIGINT AS readings
    FROM gpu_slot
    GROUP BY ALL
)
SELECT
    g.host,
    g.gpu_uuid,
    e.hour_start,
    e.readings_expected,
    coalesce(r.readings, 0) AS readings_received,
    least(1.0, coalesce(r.readings, 0) / nullif(e.readings_expected, 0)) AS completeness
FROM expected AS e
JOIN gpu AS g USING (gpu_uuid)
LEFT JOIN received AS r ON r.gpu_key = g.gpu_key AND r.hour_start = e.hour_start
ORDER BY g.host, g.gpu_uuid, e.hour_start;
