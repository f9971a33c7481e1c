-- grain: one run and one input of it in which the candidate (main) and the publication in force (published) differ
-- keys: run_id, cause
-- owner: flows.publication.restatement
WITH changed_run AS (
    (SELECT run_id, started_at, ended_at FROM main.training_run
        EXCEPT SELECT run_id, started_at, ended_at FROM published.training_run)
    UNION ALL
    (SELECT run_id, started_at, ended_at FROM published.training_run
        EXCEPT SELECT run_id, started_at, ended_at FROM main.training_run)
), changed_allocation AS (
    (SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM main.run_allocation
        EXCEPT SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM published.run_allocation)
    UNION ALL
    (SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM published.run_allocation
        EXCEPT SELECT run_id, gpu_uuid, from_ts, to_ts, share_ppm FROM main.run_allocation)
), changed_gpu_slot AS (
    (SELECT gpu_key, slot_start, counter_mj, power_integral_mj, gap_mj FROM main.gpu_slot
        EXCEPT SELECT gpu_key, slot_start, counter_mj, power_integral_mj, gap_mj FROM published.gpu_slot)
    UNION ALL
    (SELECT gpu_key, slot_start, counter_mj, power_integral_mj, gap_mj FROM published.gpu_slot
        EXCEPT SELECT gpu_key, slot_start, counter_mj, power_integral_mj, gap_mj FROM main.gpu_slot)
), changed_host_slot AS (
    (SELECT host, slot_start, host_mj FROM main.host_slot
        EXCEPT SELECT host, slot_start, host_mj FROM published.host_slot)
    UNION ALL
    (SELECT host, slot_start, host_mj FROM published.host_slot
        EXCEPT SELECT host, slot_start, host_mj FROM main.host_slot)
), changed_signal AS (
    (SELECT zone, slot_start, intensity_g_per_kwh, ewif_l_per_kwh, residual_g_per_kwh FROM main.slot_signal
        EXCEPT SELECT zone, slot_start, intensity_g_per_kwh, ewif_l_per_kwh, residual_g_per_kwh FROM published.slot_signal)
    UNION ALL
    (SELECT zone, slot_start, intensity_g_per_kwh, ewif_l_per_kwh, residual_g_per_kwh FROM published.slot_signal
        EXCEPT SELECT zone, slot_start, intensity_g_per_kwh, ewif_l_per_kwh, residual_g_per_kwh FROM main.slot_signal)
), changed_site AS (
    (SELECT site, zone, pue, wue_l_per_kwh, overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, valid_from, valid_to FROM main.site
        EXCEPT SELECT site, zone, pue, wue_l_per_kwh, overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, valid_from, valid_to FROM published.site)
    UNION ALL
    (SELECT site, zone, pue, wue_l_per_kwh, overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, valid_from, valid_to FROM published.site
        EXCEPT SELECT site, zone, pue, wue_l_per_kwh, overhead_mw_per_gpu, rest_mw_per_gpu, onsite_share, valid_from, valid_to FROM main.site)
), changed_contract_slot AS (
    (SELECT contract, site, slot_start, covered_ppm FROM main.contract_slot
        EXCEPT SELECT contract, site, slot_start, covered_ppm FROM published.contract_slot)
    UNION ALL
    (SELECT contract, site, slot_start, covered_ppm FROM published.contract_slot
        EXCEPT SELECT contract, site, slot_start, covered_ppm FROM main.contract_slot)
), changed_factor AS (
    (SELECT factor, scope, value FROM main.factor EXCEPT SELECT factor, scope, value FROM published.factor)
    UNION ALL
    (SELECT factor, scope, value FROM published.factor EXCEPT SELECT factor, scope, value FROM main.factor)
), gpu_slot_of_run AS (
    SELECT run_id, gpu_key, slot_start FROM main.energy_slot WHERE kind = 'run'
    UNION
    SELECT run_id, gpu_key, slot_start FROM published.energy_slot WHERE kind = 'run'
), site_slot_of_run AS (
    SELECT run_id, site, zone, slot_start FROM main.footprint_slot WHERE kind = 'run'
    UNION
    SELECT run_id, site, zone, slot_start FROM published.footprint_slot WHERE kind = 'run'
)
SELECT run_id, 'run' AS cause FROM changed_run
UNION
SELECT run_id, 'allocation of GPUs' FROM changed_allocation
UNION
SELECT r.run_id, 'GPU readings' FROM gpu_slot_of_run AS r
SEMI JOIN changed_gpu_slot AS c USING (gpu_key, slot_start)
UNION
SELECT r.run_id, 'readings of CPU and memory'
FROM gpu_slot_of_run AS r JOIN main.gpu AS g USING (gpu_key)
SEMI JOIN changed_host_slot AS c USING (host, slot_start)
UNION
SELECT r.run_id, 'grid' FROM site_slot_of_run AS r
SEMI JOIN changed_signal AS c USING (zone, slot_start)
UNION
SELECT r.run_id, 'site' FROM site_slot_of_run AS r
SEMI JOIN changed_site AS c USING (site)
UNION
SELECT r.run_id, 'contracts' FROM site_slot_of_run AS r
SEMI JOIN changed_contract_slot AS c USING (site, slot_start)
UNION
SELECT u.run_id, 'factor ' || c.factor || ' ' || c.scope
FROM (FROM main.factor_use UNION FROM published.factor_use) AS u
JOIN changed_factor AS c USING (factor, scope)
