-- grain: one loaded segment that has no stretches yet, and the batch that it is reduced in ($most readings)
-- keys: segment_key
-- owner: flows.accounting.stretches
SELECT segment_key, (sum(rows_loaded) OVER (ORDER BY segment_key) - 1) // $most AS batch
FROM segment
WHERE verdict = 'loaded'
    AND segment_id IN (SELECT segment_id FROM segment_profile)
    AND segment_key NOT IN (SELECT segment_key FROM reduced_segment)
ORDER BY segment_key
