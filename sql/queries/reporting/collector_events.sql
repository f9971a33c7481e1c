-- grain: one kind of event of collectors, but for their normal course
-- keys: event
-- owner: flows.reporting.report.render
SELECT
    event,
    count(*) AS n,
    count(DISTINCT gpu_uuid) AS gpus,
    min(ts) AS first,
    max(ts) AS last,
    arg_max(host || ': ' || detail, ts) AS example
FROM collector_event
WHERE event NOT IN ('started', 'stopped', 'recovered')
GROUP BY event
ORDER BY n DESC, event
