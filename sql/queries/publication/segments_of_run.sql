-- grain: one segment with readings that the energy of the run $run rests on (slots of $slot_us microseconds)
-- keys: segment_id
-- owner: flows.publication.bundle
WITH held AS (
    SELECT g.gpu_uuid, min(slot_start) AS begins, max(slot_start) + to_microseconds($slot_us) AS ends
    FROM published.energy_slot AS e JOIN published.gpu AS g USING (gpu_key)
    WHERE e.run_id = $run GROUP BY g.gpu_uuid
), loaded AS (
    SELECT p.* FROM published.segment_profile AS p JOIN published.segment AS s USING (segment_id)
    WHERE s.verdict = 'loaded'
), reach AS (
    -- An interval may reach from the reading before to the one after, however far they are.
    SELECT gpu_uuid,
        coalesce(arg_max(p.first_ts, p.last_ts) FILTER (p.last_ts < h.begins), any_value(h.begins))
            AS begins,
        coalesce(arg_min(p.last_ts, p.first_ts) FILTER (p.first_ts > h.ends), any_value(h.ends))
            AS ends
    FROM held AS h JOIN loaded AS p USING (gpu_uuid) GROUP BY gpu_uuid
), held_host AS (
    SELECT g.host, min(slot_start) AS begins, max(slot_start) + to_microseconds($slot_us) AS ends
    FROM published.energy_slot AS e JOIN published.gpu AS g USING (gpu_key)
    WHERE e.run_id = $run GROUP BY g.host
)
SELECT DISTINCT segment_id FROM loaded AS p JOIN reach AS r USING (gpu_uuid)
WHERE p.last_ts >= r.begins AND p.first_ts <= r.ends
UNION
SELECT DISTINCT s.segment_id FROM store.host_reading AS r
JOIN store.segment AS s USING (segment_key)
JOIN held_host AS h
    ON h.host = r.host AND r.ts > h.begins AND epoch_us(r.ts) - r.span_us < epoch_us(h.ends)
