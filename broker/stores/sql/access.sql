-- fragment request_columns --
r.tenant, r.id, r.task_id, r.holder, r.principal, r.request_id, r.request_digest, r.digest, r.ask_digest, r.request,
r.template, r.template_digest, r.scope, r.contract_class, r.policies, r.policy_digest, r.approvals, r.interests,
r.created_at, r.expires_at, r.redeem_within,
r.state, r.approved_at, r.redeem_by, r.due_at, r.ended_at, r.ended_by, r.note, r.lease_id, r.redemption_id,
r.tool_call, r.plan, r.epoch,
r.mac, r.mac_key_id

-- fragment vote_columns --
v.tenant, v.access_request_id, v.issuer, v.subject, v.yes, v.rule, v.digest, v.how, v.note, v.groups, v.at,
v.request_id,
v.mac, v.mac_key_id

-- insert_access_request --
INSERT INTO access_requests (
    tenant, id, task_id, holder, principal, request_id, request_digest, digest, ask_digest, request,
    template, template_digest, scope, contract_class, policies, policy_digest, approvals, interests,
    created_at, expires_at, redeem_within,
    state, approved_at, redeem_by, due_at, ended_at, ended_by, note, lease_id, redemption_id,
    tool_call, plan, epoch, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_access_request --
-- Compare and swap on the epoch: one row or nothing.
UPDATE access_requests
SET state = ?, approved_at = ?, redeem_by = ?, due_at = ?, ended_at = ?, ended_by = ?, note = ?, lease_id = ?,
    redemption_id = ?, tool_call = ?, plan = ?, epoch = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND epoch = ?;

-- access_request_by_id --
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.id = :id;

-- access_request_by_request --
-- Idempotency (AIP-155): what this holder asked for under this request id.
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.holder = :holder AND r.request_id = :request_id;

-- access_requests_page --
-- Everybody's, newest first; a page starts after the request :after_id of :after_ms.
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND (NOT :open_only OR r.due_at IS NOT NULL)
    AND (r.created_at, r.id) < (:after_ms, :after_id)
ORDER BY r.created_at DESC, r.id DESC
LIMIT :limit;

-- access_requests_of_holder --
-- A holder's, like those of everybody.
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.holder = :holder AND (NOT :open_only OR r.due_at IS NOT NULL)
    AND (r.created_at, r.id) < (:after_ms, :after_id)
ORDER BY r.created_at DESC, r.id DESC
LIMIT :limit;

-- count_pending_requests --
-- Never counts beyond the quota, so that its cost is bounded by it.
SELECT count(*) FROM (
    SELECT 1 FROM access_requests
    WHERE tenant = :tenant AND holder = :holder AND state = 'AWAITING_APPROVAL'
    LIMIT :quota
);

-- denied_lately --
-- The same, whatever its TTL, where it was denied after :since, the last one first: no more than people have denied.
SELECT ended_at, request FROM access_requests
WHERE tenant = :tenant AND ask_digest = :ask_digest AND state = 'DENIED' AND ended_at > :since
ORDER BY ended_at DESC;

-- waiting_access_requests_of_ask --
-- No more than the holders of one registry entry may have waiting; only a denial looks.
SELECT {request_columns} FROM access_requests AS r INDEXED BY access_requests_waiting
WHERE r.tenant = :tenant AND r.state = 'AWAITING_APPROVAL' AND r.ask_digest = :ask_digest;

-- any_access_request_due --
SELECT EXISTS (SELECT 1 FROM access_requests WHERE due_at IS NOT NULL AND due_at <= :now);

-- access_requests_due --
SELECT {request_columns} FROM access_requests AS r
WHERE r.due_at IS NOT NULL AND r.due_at <= :now
ORDER BY r.due_at
LIMIT :limit;

-- open_access_requests_of_task --
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.task_id = :task_id AND r.due_at IS NOT NULL;

-- kept_plans --
-- Requests that are over and whose plan is still there, the one approved last first.
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.principal = :principal AND r.template = :template
    AND r.plan <> '' AND r.approved_at IS NOT NULL AND r.due_at IS NULL
ORDER BY r.approved_at DESC, r.id DESC
LIMIT :limit;

-- last_approved_plan --
SELECT {request_columns} FROM access_requests AS r
WHERE r.tenant = :tenant AND r.principal = :principal AND r.template = :template
    AND r.plan <> '' AND r.approved_at IS NOT NULL AND r.state IN ('APPROVED', 'REDEEMED', 'LAPSED')
ORDER BY r.approved_at DESC, r.id DESC
LIMIT 1;

-- put_vote --
-- A later vote of the same person takes the place of the earlier: the only one there can be is a no.
INSERT INTO access_votes (
    tenant, access_request_id, issuer, subject, yes, rule, digest, how, note, groups, at, request_id,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, access_request_id, issuer, subject) DO UPDATE
SET yes = excluded.yes, rule = excluded.rule, digest = excluded.digest, how = excluded.how, note = excluded.note,
    groups = excluded.groups, at = excluded.at, request_id = excluded.request_id, mac = excluded.mac, mac_key_id = excluded.mac_key_id;

-- votes_of_request --
SELECT {vote_columns} FROM access_votes AS v
WHERE v.tenant = :tenant AND v.access_request_id = :id
ORDER BY v.at, v.issuer, v.subject;

-- insert_access_event --
INSERT INTO access_events (tenant, holder, seq, access_request_id)
VALUES (:tenant, :holder, :seq, :access_request_id);

-- access_events_of_holder --
-- A holder's events after a sequence number, each with its request as it is now.
SELECT e.seq, u.body, {request_columns}
FROM access_events AS e
JOIN audit AS u ON u.seq = e.seq
JOIN access_requests AS r ON r.tenant = e.tenant AND r.id = e.access_request_id
WHERE e.tenant = :tenant AND e.holder = :holder AND e.seq > :after
ORDER BY e.seq
LIMIT :limit;

-- access_event_before --
SELECT coalesce(max(seq), 0) FROM access_events
WHERE tenant = :tenant AND holder = :holder AND seq <= :upto;

-- access_request_of_lease --
-- The one whose approval a lease used up.
SELECT id FROM access_requests INDEXED BY access_requests_by_lease
WHERE tenant = :tenant AND lease_id = :lease_id AND lease_id <> '';
