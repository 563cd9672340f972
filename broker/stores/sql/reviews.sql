-- fragment review_columns --
v.tenant, v.lease_id, v.attempt_id, v.outcome, v.reason, v.policies, v.why, v.deploy_digest, v.policy_digest,
v.reviewed_at,
v.mac, v.mac_key_id

-- review_of_lease --
SELECT {review_columns} FROM policy_reviews AS v
WHERE v.tenant = :tenant AND v.lease_id = :lease_id;

-- put_review --
INSERT INTO policy_reviews (
    tenant, lease_id, attempt_id, outcome, reason, policies, why, deploy_digest, policy_digest, reviewed_at,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, lease_id) DO UPDATE
SET attempt_id = excluded.attempt_id, outcome = excluded.outcome, reason = excluded.reason,
    policies = excluded.policies, why = excluded.why, deploy_digest = excluded.deploy_digest,
    policy_digest = excluded.policy_digest, reviewed_at = excluded.reviewed_at,
    mac = excluded.mac, mac_key_id = excluded.mac_key_id;

-- drop_review --
DELETE FROM policy_reviews WHERE tenant = :tenant AND lease_id = :lease_id;

-- living_page --
-- In the order of the index of the living, so that a page costs what is on it.
SELECT {lease_columns} FROM leases AS l INDEXED BY leases_living
WHERE l.tenant = :tenant AND l.ended_at IS NULL AND (l.holder, l.request_id) > (:holder, :request_id)
    AND l.state IN ('ISSUING', 'ACTIVE')
ORDER BY l.holder, l.request_id
LIMIT :limit;

-- holder_trail --
-- A holder's lease events, the newest first.
SELECT u.seq, u.lease_id, u.body, u.hash, u.mac, u.mac_key_id
FROM audit AS u INDEXED BY audit_by_holder
WHERE u.tenant = :tenant AND u.holder = :holder AND u.lease_id <> '' AND u.seq < :before
ORDER BY u.seq DESC
LIMIT :limit;

-- holder_news --
-- The same after a sequence number, the oldest first.
SELECT u.seq, u.lease_id, u.body, u.hash, u.mac, u.mac_key_id
FROM audit AS u INDEXED BY audit_by_holder
WHERE u.tenant = :tenant AND u.holder = :holder AND u.lease_id <> '' AND u.seq > :after
ORDER BY u.seq
LIMIT :limit;

-- audit_row --
SELECT u.seq, u.lease_id, u.body, u.hash, u.mac, u.mac_key_id FROM audit AS u
WHERE u.seq = ?;

-- tightened_figure --
-- Of the living leases alone: what has ended is nobody's worry.
SELECT v.outcome, count(*) FROM policy_reviews AS v
JOIN leases AS l ON l.tenant = v.tenant AND l.id = v.lease_id
WHERE l.ended_at IS NULL
GROUP BY v.outcome;
