-- grain: one reason for which rows of one loaded file were set aside
-- keys: source_name, reason
-- owner: flows.reporting.report
SELECT
    s.source_name,
    q.reason,
    count(*) AS row_count,
    min(q.row_no) AS first_row
FROM quarantined_row AS q
JOIN segment AS s ON s.segment_id = q.segment_id
GROUP BY s.source_name, q.reason
ORDER BY row_count DESC, s.source_name, q.reason
LIMIT 50
