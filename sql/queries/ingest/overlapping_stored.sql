-- Places of the files of a batch that have readings of GPUs in time of which some are loaded.
SELECT DISTINCT p.place
FROM profile AS p
JOIN segment_profile AS s
    ON s.gpu_uuid = p.gpu_uuid AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts
JOIN segment AS g ON g.segment_id = s.segment_id AND g.verdict = 'loaded'
-- The time of the batch: blocks of other times are passed over.
WHERE s.first_ts <= $last AND s.last_ts >= $first
