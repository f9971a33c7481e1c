-- grain: one interval of a meter of a host or a site
-- keys: meter, scope, metered, valid_from
-- owner: auditors
-- What another meter (PDU, IPMI, utility bill) says, beside what the ledger has for the same time: IT energy
-- of a host, facility energy of a site.
CREATE OR REPLACE VIEW meter_reconciliation AS
WITH ledger AS (
    SELECT 'site' AS scope, site AS metered, slot_start, sum(facility_mj) AS mj,
        sum(facility_low_mj) AS low_mj, sum(facility_high_mj) AS high_mj
    FROM footprint_slot
    GROUP BY ALL
    UNION ALL
    SELECT 'host', host, slot_start, it_mj, it_low_mj, it_high_mj FROM host_energy_slot
), shared AS (
    -- A slot that a border of the interval cuts counts by the time inside.
    SELECT m.meter, m.scope, m.metered, m.valid_from, m.valid_to, any_value(m.energy_mj) AS energy_mj,
        any_value(m.source_name) AS source_name,
        sum(l.mj * inside) AS mj, sum(l.low_mj * inside) AS low_mj, sum(l.high_mj * inside) AS high_mj,
        coalesce(sum(inside), 0) * $slot_us / any_value(epoch_us(m.valid_to) - epoch_us(m.valid_from))
            AS covered_share
    FROM meter_reading AS m
    LEFT JOIN (
        SELECT l.*, r.meter, r.valid_from, r.valid_to,
            (least(epoch_us(r.valid_to), epoch_us(slot_start) + $slot_us)
                - greatest(epoch_us(r.valid_from), epoch_us(slot_start))) / $slot_us AS inside
        FROM ledger AS l
        JOIN meter_reading AS r ON r.scope = l.scope AND r.metered = l.metered
            AND l.slot_start < r.valid_to AND l.slot_start + to_microseconds($slot_us) > r.valid_from
    ) AS l USING (meter, scope, metered, valid_from, valid_to)
    GROUP BY m.meter, m.scope, m.metered, m.valid_from, m.valid_to
)
SELECT meter, scope, metered, valid_from, valid_to,
    energy_mj / 3.6e9 AS meter_kwh,
    mj / 3.6e9 AS ledger_kwh,
    low_mj / 3.6e9 AS ledger_low_kwh,
    high_mj / 3.6e9 AS ledger_high_kwh,
    (mj - energy_mj) / nullif(energy_mj, 0) AS meter_difference,
    covered_share,
    source_name
FROM shared
ORDER BY metered, valid_from, meter;
