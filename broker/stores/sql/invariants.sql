-- make_events --
-- What must be true of every ledger, each as a query for what is not: tenant, id, and what is wrong. Read by
-- broker verify, beside a running broker, in one snapshot. `events` is a temporary table of what the trail says.
CREATE TEMP TABLE events AS
SELECT
    seq,
    tenant,
    json_extract(CAST(body AS TEXT), '$.type') AS type,
    lease_id,
    json_extract(CAST(body AS TEXT), '$.attempt_id') AS attempt_id,
    json_extract(CAST(body AS TEXT), '$.data.suspension') AS suspension,
    json_extract(CAST(body AS TEXT), '$.data.kind') AS kind,
    json_extract(CAST(body AS TEXT), '$.data.access_request') AS request
FROM audit
WHERE json_valid(CAST(body AS TEXT));

-- index_events --
CREATE INDEX temp.events_by_attempt ON events (tenant, attempt_id, type, seq);

-- index_suspensions --
CREATE INDEX temp.events_by_suspension ON events (tenant, suspension, type, seq);

-- index_requests --
CREATE INDEX temp.events_by_request ON events (tenant, request, type);

-- broken_bounded_life --
SELECT tenant, id, 'it may be alive and has no due time' FROM attempts
WHERE state IN ('ISSUING', 'ACTIVE', 'REVOKING') AND due_at IS NULL
UNION ALL
SELECT tenant, id, 'it is due after it expires' FROM attempts
WHERE state = 'ACTIVE' AND due_at > expires_at
UNION ALL
SELECT tenant, id, 'it is over and has a due time' FROM attempts
WHERE state IN ('REVOKED', 'EXPIRED', 'VOID') AND due_at IS NOT NULL;

-- broken_finite --
-- Of 366 days at most, in milliseconds.
SELECT tenant, id, 'it has no finite life' FROM leases
WHERE expires_at <= created_at OR expires_at - created_at > 31622400000
UNION ALL
SELECT tenant, id, 'it has no finite life' FROM tasks
WHERE deadline <= created_at OR deadline - created_at > 31622400000;

-- broken_intent_first --
SELECT a.tenant, a.id, 'the trail has no intent of it' FROM attempts AS a
WHERE NOT EXISTS (
    SELECT 1 FROM events AS e WHERE e.tenant = a.tenant AND e.attempt_id = a.id AND e.type = 'lease.intent'
)
UNION ALL
SELECT i.tenant, i.attempt_id, 'something happened to it before its intent, in record ' || e.seq FROM events AS i
JOIN events AS e ON e.tenant = i.tenant AND e.attempt_id = i.attempt_id AND e.seq < i.seq
WHERE i.type = 'lease.intent' AND i.attempt_id <> '';

-- broken_told --
SELECT a.tenant, a.id, 'it was issued and the trail does not say so' FROM attempts AS a
WHERE a.activated_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM events AS e WHERE e.tenant = a.tenant AND e.attempt_id = a.id AND e.type = 'lease.issued'
)
UNION ALL
SELECT a.tenant, a.id, 'it is ' || a.state || ' and the trail does not say so' FROM attempts AS a
WHERE a.state IN ('REVOKED', 'EXPIRED', 'VOID') AND NOT EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.tenant = a.tenant AND e.attempt_id = a.id
    -- That nobody could prove its end, two people stand for.
    AND (e.type = 'lease.' || lower(a.state) OR (a.state = 'EXPIRED' AND e.type = 'lease.forgotten'))
)
UNION ALL
SELECT a.tenant, a.id, 'the trail says that it is over, and it is ' || a.state FROM attempts AS a
WHERE a.state IN ('ISSUING', 'ACTIVE', 'REVOKING') AND EXISTS (
    SELECT 1 FROM events AS e WHERE e.tenant = a.tenant AND e.attempt_id = a.id
    AND e.type IN ('lease.revoked', 'lease.expired', 'lease.void', 'lease.forgotten')
);

-- broken_within_parent --
SELECT o.tenant, o.lease_id, 'it lives, and what it is a part of does not' FROM lease_origins AS o
JOIN leases AS child ON child.tenant = o.tenant AND child.id = o.lease_id
JOIN leases AS parent ON parent.tenant = o.tenant AND parent.id = o.parent_lease_id
WHERE child.state IN ('ISSUING', 'ACTIVE') AND parent.state NOT IN ('ISSUING', 'ACTIVE')
UNION ALL
SELECT o.tenant, o.lease_id, 'it ends after what it is a part of' FROM lease_origins AS o
JOIN leases AS child ON child.tenant = o.tenant AND child.id = o.lease_id
JOIN leases AS parent ON parent.tenant = o.tenant AND parent.id = o.parent_lease_id
WHERE child.expires_at > parent.expires_at;

-- broken_approvals --
SELECT tenant, id, 'it was approved and nobody said yes' FROM access_requests AS r
WHERE r.approved_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM access_votes AS v WHERE v.tenant = r.tenant AND v.access_request_id = r.id AND v.yes = 1
)
UNION ALL
SELECT tenant, request, 'it was redeemed ' || count(*) || ' times' FROM events
WHERE type = 'access.redeemed'
GROUP BY tenant, request HAVING count(*) > 1
UNION ALL
SELECT tenant, lease_id, count(*) || ' approvals name it' FROM access_requests
WHERE lease_id <> ''
GROUP BY tenant, lease_id HAVING count(*) > 1;

-- broken_suspension --
-- Those that end by themselves are left out: whether one was over by then is not in the trail.
SELECT s.tenant, i.attempt_id, 'its intent, record ' || i.seq || ', came while everything was suspended' FROM events AS s
JOIN suspensions AS q ON q.tenant = s.tenant AND q.id = s.suspension AND q.until IS NULL
JOIN events AS i ON i.tenant = s.tenant AND i.type = 'lease.intent' AND i.seq > s.seq
WHERE s.type = 'suspension.suspended' AND s.kind = 'EVERYTHING' AND NOT EXISTS (
    SELECT 1 FROM events AS r
    WHERE r.tenant = s.tenant AND r.suspension = s.suspension AND r.seq < i.seq
    AND r.type IN ('suspension.resumed', 'suspension.expired')
);

-- broken_final --
SELECT t.tenant, t.attempt_id, 'it was over in record ' || t.seq || ' and went on in record ' || e.seq FROM events AS t
JOIN events AS e ON e.tenant = t.tenant AND e.attempt_id = t.attempt_id AND e.seq > t.seq
WHERE t.attempt_id <> '' AND t.type IN ('lease.revoked', 'lease.expired', 'lease.void', 'lease.forgotten')
AND e.type IN ('lease.intent', 'lease.issued', 'lease.revoking', 'lease.revoked', 'lease.expired', 'lease.void');

-- broken_once --
SELECT tenant, min(id), count(*) || ' living leases of request ' || request_id FROM leases
WHERE ended_at IS NULL
GROUP BY tenant, holder, request_id HAVING count(*) > 1
UNION ALL
SELECT tenant, lease_id, count(*) || ' active attempts of one lease' FROM attempts
WHERE state = 'ACTIVE'
GROUP BY tenant, lease_id HAVING count(*) > 1;

-- broken_retried --
SELECT l.tenant, l.id, 'it is owed an end and the revoker does not look at it' FROM leases AS l
JOIN attempts AS a ON a.tenant = l.tenant AND a.lease_id = l.id
WHERE a.due_at IS NOT NULL AND (l.ended_at IS NOT NULL OR l.next_due IS NULL OR l.next_due > a.due_at);

-- every_task --
SELECT {task_columns} FROM tasks AS t;

-- every_lease --
SELECT {lease_columns} FROM leases AS l;

-- every_attempt --
SELECT {attempt_columns} FROM attempts AS a;

-- every_suspension --
SELECT {suspension_columns} FROM suspensions AS s;

-- every_access_request --
SELECT {request_columns} FROM access_requests AS r;

-- every_vote --
SELECT {vote_columns} FROM access_votes AS v;

-- every_plan --
SELECT {plan_columns} FROM plans AS p;

-- every_delegation --
SELECT {delegation_columns} FROM delegations AS d;

-- every_origin --
SELECT {origin_columns} FROM lease_origins AS o;

-- every_accepted_deploy --
SELECT tenant, serial, digest, accepted_at, mac, mac_key_id FROM accepted_deploy;

-- every_recovery --
SELECT {recovery_columns} FROM recoveries AS y;

-- every_mark --
SELECT tenant, mark, made_at, mac, mac_key_id FROM marks;

-- every_orphan --
SELECT {orphan_columns} FROM upstream_orphans AS o;

-- every_fresh_login --
SELECT tenant, digest, issuer, subject, action, about, nonce, auth_time, at, token, mac, mac_key_id FROM fresh_logins;

-- every_allocation --
SELECT {allocation_columns} FROM account_allocations AS x;

-- every_high_water --
SELECT "only", at_ms, mac, mac_key_id FROM high_water;
