-- Models that [[gpu]] declares for GPUs of a host, all of them or those named.
UPDATE gpu
SET model = $model
WHERE host GLOB $host
    AND model IS DISTINCT FROM $model
    AND (len($indices) = 0 OR list_contains($indices, gpu_index))
    AND (len($uuids) = 0 OR list_contains($uuids, gpu_uuid))
