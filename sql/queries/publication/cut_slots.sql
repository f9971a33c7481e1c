-- grain: one slot of a GPU in which an allocation begins or ends within the slot ($slot_us microseconds long)
-- keys: gpu_key, slot
-- owner: flows.publication.retention
SELECT DISTINCT gpu_key, epoch_us(border) // $slot_us AS slot
FROM (SELECT gpu_uuid, unnest([from_ts, to_ts]) AS border FROM run_allocation)
JOIN gpu USING (gpu_uuid)
WHERE epoch_us(border) % $slot_us <> 0
