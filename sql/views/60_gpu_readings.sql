-- grain: one reading of one GPU
-- keys: gpu_uuid, ts
-- owner: auditors
-- Warehouse only: the published file holds no raw readings.
CREATE OR REPLACE VIEW gpu_readings AS
SELECT
    r.ts,
    g.host,
    g.gpu_uuid,
    r.power_mw,
    r.energy_mj,
    r.util_pct,
    r.mem_used_mib,
    r.temp_c,
    r.sm_clock_mhz,
    ['unknown', 'instant', 'average_1s'][r.power_source_code + 1] AS power_source,
    s.segment_id,
    s.source_name,
    r.power_average_mw,
    r.mem_temp_c,
    r.power_limit_mw,
    r.throttle_reasons
FROM gpu_reading AS r
JOIN gpu AS g USING (gpu_key)
JOIN segment AS s USING (segment_key);
