-- What staged segments say in all: their time, readings that are stored already, and their usual step.
SELECT
    segment_id,
    min(first_ts) AS first_ts,
    max(last_ts) AS last_ts,
    sum(duplicates)::BIGINT AS duplicates,
    median(
        coalesce(
            usual_step_ms, (epoch_ms(last_ts) - epoch_ms(first_ts)) // greatest(rows_read - 1, 1)
        )
    )::BIGINT AS period_ms
FROM staging.segment_profile
WHERE segment_id IN (SELECT unnest($segments))
GROUP BY ALL
