-- Staged intervals of host segments in their order in the batch, and whether each is stored already: in the
-- warehouse, or by a segment before it.
SELECT
    r.host,
    r.component,
    r.ts,
    r.span_us,
    r.energy_mj,
    r.is_modelled,
    r.method,
    segment_id,
    f.place,
    (r.host, r.component, r.ts) IN (
        SELECT (host, component, ts)
        FROM host_reading
        WHERE ts BETWEEN (SELECT min(ts) FROM staging.host_reading)
            AND (SELECT max(ts) FROM staging.host_reading)
    )
    OR row_number() OVER (PARTITION BY r.host, r.component, r.ts ORDER BY f.place) > 1 AS is_stored
FROM staging.host_reading AS r
JOIN new_file AS f USING (segment_id)
