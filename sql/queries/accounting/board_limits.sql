-- Each GPU with its model and the largest power limit (mW) that its readings tell, null where they tell none.
SELECT g.gpu_key, g.model, max(p.board_limit_mw) AS board_limit_mw
FROM gpu AS g
LEFT JOIN segment_profile AS p ON p.gpu_uuid = g.gpu_uuid
    AND p.segment_id IN (SELECT segment_id FROM segment WHERE verdict = 'loaded')
GROUP BY g.gpu_key, g.model
ORDER BY g.gpu_key
