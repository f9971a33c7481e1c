-- Files of a batch with readings in time of which only sums are left: for each, the first such GPU and time.
SELECT p.segment_id, p.gpu_uuid, s.first_ts, s.last_ts, r.rolled_up_at
FROM profile AS p
JOIN segment_profile AS s
    ON s.gpu_uuid = p.gpu_uuid AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts
JOIN rolled_up AS r ON r.segment_id = s.segment_id
-- The time of the batch: blocks of other times are passed over.
WHERE s.first_ts <= $last AND s.last_ts >= $first
QUALIFY row_number() OVER (PARTITION BY p.segment_id ORDER BY p.gpu_uuid, s.first_ts) = 1
