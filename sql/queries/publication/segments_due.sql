-- grain: one loaded segment with readings that ended more than $days days ago and were not rolled up yet
-- keys: segment_key
-- owner: flows.publication.retention
-- Those are ready whose digest the publication in force names ($published) and that overlap no other in time.
SELECT s.segment_key, d.row_count AS readings,
    s.segment_id IN (SELECT unnest($published::VARCHAR[])) AND NOT EXISTS (
        FROM segment_profile AS p JOIN segment_profile AS o ON o.gpu_uuid = p.gpu_uuid
            AND o.segment_id <> p.segment_id
            AND o.first_ts <= p.last_ts AND o.last_ts >= p.first_ts
        JOIN segment AS t ON t.segment_id = o.segment_id AND t.verdict = 'loaded'
        WHERE p.segment_id = s.segment_id
    ) AS ready
FROM segment AS s JOIN segment_digest AS d USING (segment_key)
WHERE d.table_name = $table AND s.verdict = 'loaded'
    AND s.last_ts < now() - to_seconds($days * 86400)
    AND s.segment_key NOT IN (SELECT segment_key FROM rolled_up)
ORDER BY s.segment_key
