-- grain: one contract, with the share of its site's energy that it covers on average
-- keys: contract
-- owner: flows.reporting.report.render
SELECT c.*, coalesce(s.share, 0) AS covered
FROM contract AS c
LEFT JOIN (
    SELECT contract, site, avg(covered_ppm) / 1e6 AS share FROM contract_slot GROUP BY ALL
) AS s USING (contract, site)
ORDER BY position
