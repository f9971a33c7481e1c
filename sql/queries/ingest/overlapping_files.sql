-- Pairs of files of a batch that have readings of one GPU in the same time, in their order in the batch.
SELECT DISTINCT s.segment_id, p.segment_id, s.place, p.place
FROM profile AS p
JOIN profile AS s
    ON s.place < p.place
    AND s.gpu_uuid = p.gpu_uuid AND s.first_ts <= p.last_ts AND s.last_ts >= p.first_ts
ORDER BY p.place, s.place
