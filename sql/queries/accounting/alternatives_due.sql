-- grain: one run whose alternatives have to be computed again: its figures (`changed_run`), its end, or the grid around it
--   changed since $since; all runs where that is null. Alternatives reach $hours hours before and after a run
-- keys: run_id
-- owner: flows.accounting.run_update
FROM changed_run
UNION SELECT run_id FROM training_run WHERE $since::TIMESTAMPTZ IS NULL
    OR loaded_at > $since OR superseded_at > $since
    OR ended_at > coalesce((SELECT max(as_of) FROM computed_facts), '-infinity')
UNION SELECT f.run_id FROM run_footprint AS f JOIN (
    SELECT min(valid_from) AS first, max(valid_to) AS last FROM (
        SELECT valid_from, valid_to, fetched_at, superseded_at FROM grid_intensity UNION ALL
        SELECT valid_from, valid_to, fetched_at, superseded_at FROM grid_mix)
    WHERE fetched_at > $since OR superseded_at > $since
) AS g ON f.first_slot - to_hours($hours) < g.last
    AND f.last_slot + to_hours($hours) + to_microseconds($slot_us) > g.first
WHERE f.kind = 'run'
