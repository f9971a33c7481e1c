-- grain: one span of time in which something of a host is known: readings of a GPU in a file, or an allocation
-- keys: none
-- owner: flows.accounting.readiness
SELECT g.host, p.first_ts AS first_ts, p.last_ts AS last_ts
FROM segment_profile AS p
JOIN segment AS s ON s.segment_id = p.segment_id AND s.verdict = 'loaded'
JOIN gpu AS g ON g.gpu_uuid = p.gpu_uuid
