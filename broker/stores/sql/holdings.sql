-- holdings --
-- The living leases of a holder but for one request's own, which a retry replaces: rows with their MACs.
SELECT {lease_columns} FROM leases AS l INDEXED BY leases_living
WHERE l.tenant = :tenant AND l.holder = :holder AND l.ended_at IS NULL AND l.request_id <> :request_id;

-- holdings_figures --
-- The same in short: whether it is still what was read a moment ago.
SELECT l.template, l.access, l.environment, count(*) FROM leases AS l INDEXED BY leases_living
WHERE l.tenant = :tenant AND l.holder = :holder AND l.ended_at IS NULL AND l.request_id <> :request_id
GROUP BY l.template, l.access, l.environment;
