-- quota_by_agent --
-- Each counts what is alive, never beyond the quota, and tells when the first of what it counted ends.
SELECT count(*), min(expires_at) FROM (
    SELECT expires_at FROM leases INDEXED BY leases_living
    WHERE tenant = :tenant AND holder = :subject AND ended_at IS NULL
    LIMIT :quota
);

-- quota_by_task --
SELECT count(*), min(expires_at) FROM (
    SELECT expires_at FROM leases INDEXED BY leases_by_task
    WHERE tenant = :tenant AND task_id = :subject AND ended_at IS NULL
    LIMIT :quota
);

-- quota_by_template --
-- By leases_living_template, which is there while a quota of this kind is; right without it, and slower.
SELECT count(*), min(expires_at) FROM (
    SELECT expires_at FROM leases
    WHERE tenant = :tenant AND template = :subject AND ended_at IS NULL
    LIMIT :quota
);

-- quota_by_connector --
-- A living lease has at least one attempt that is due some time, perhaps several: each lease counts once.
SELECT count(*), min(l.expires_at) FROM (
    SELECT DISTINCT tenant, lease_id FROM attempts INDEXED BY attempts_due
    WHERE connector = :subject AND due_at IS NOT NULL AND tenant = :tenant
    LIMIT :quota
) AS a
JOIN leases AS l ON l.tenant = a.tenant AND l.id = a.lease_id;

-- living_of_template --
SELECT count(*) FROM leases INDEXED BY leases_living
WHERE tenant = :tenant AND holder = :holder AND ended_at IS NULL AND template = :subject;

-- living_of_connector --
SELECT count(*) FROM leases INDEXED BY leases_living
WHERE tenant = :tenant AND holder = :holder AND ended_at IS NULL AND connector = :subject;

-- index_living_templates --
CREATE INDEX IF NOT EXISTS leases_living_template ON leases (tenant, template) WHERE ended_at IS NULL;

-- unindex_living_templates --
DROP INDEX IF EXISTS leases_living_template;
