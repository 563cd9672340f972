-- fragment use_columns --
u.tenant, u.lease_id, u.task_id, u.template, u.person, u.person_name, u.for_agent, u.owner, u.groups, u.reason,
u.incident, u.how, u.proof, u.code_id, u.request_id, u.told, u.overrode, u.created_at, u.review_due,
u.ended_at, u.void, u.overdue_at, u.reviewer, u.reviewer_name, u.review_request_id, u.findings, u.review_proof,
u.reviewed_at,
u.mac, u.mac_key_id

-- fragment override_columns --
o.tenant, o.id, o.kind, o.subject, o.person, o.by, o.by_name, o.reason, o.proof, o.request_id, o.request_digest,
o.created_at, o.expires_at, o.used_by,
o.mac, o.mac_key_id

-- fragment batch_columns --
b.tenant, b.id, b.person, b.person_name, b.count, b.reason, b.requested_by, b.requested_name, b.request_id,
b.request_proof, b.requested_at, b.confirmed_by, b.confirmed_name, b.confirm_proof, b.confirmed_at, b.revoked_at,
b.mac, b.mac_key_id

-- fragment code_columns --
c.tenant, c.id, c.batch, c.person, c.person_name, c.salt, c.hash, c.created_at, c.expires_at, c.failures, c.used_by,
c.used_at, c.revoked_by, c.revoked_at,
c.mac, c.mac_key_id

-- insert_use --
INSERT INTO break_glass_uses (
    tenant, lease_id, task_id, template, person, person_name, for_agent, owner, groups, reason, incident, how, proof,
    code_id, request_id, told, overrode, created_at, review_due, ended_at, void, overdue_at, reviewer, reviewer_name,
    review_request_id, findings, review_proof, reviewed_at, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_use --
UPDATE break_glass_uses
SET ended_at = ?, void = ?, overdue_at = ?, reviewer = ?, reviewer_name = ?, review_request_id = ?, findings = ?,
    review_proof = ?, reviewed_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND lease_id = ?;

-- use_of_lease --
SELECT {use_columns} FROM break_glass_uses AS u
WHERE u.tenant = ? AND u.lease_id = ?;

-- uses_unreviewed --
SELECT {use_columns} FROM break_glass_uses AS u INDEXED BY break_glass_unreviewed
WHERE u.tenant = :tenant AND u.reviewed_at IS NULL AND u.void = 0 AND u.review_due <= :due
ORDER BY u.review_due, u.lease_id;

-- uses_unended --
SELECT {use_columns} FROM break_glass_uses AS u INDEXED BY break_glass_unended
WHERE u.tenant = :tenant AND u.ended_at IS NULL;

-- uses_since --
-- Whatever they say of themselves: what an intruder made reviewed, or void, fails its MAC here.
SELECT {use_columns} FROM break_glass_uses AS u INDEXED BY break_glass_by_time
WHERE u.tenant = :tenant AND u.created_at > :since;

-- uses_page --
-- Newest first; a page starts after the lease :after_id of :after_ms.
SELECT {use_columns} FROM break_glass_uses AS u INDEXED BY break_glass_by_time
WHERE u.tenant = :tenant AND (u.created_at, u.lease_id) < (:after_ms, :after_id)
    AND (:all OR u.ended_at IS NULL OR (u.reviewed_at IS NULL AND u.void = 0))
ORDER BY u.created_at DESC, u.lease_id DESC
LIMIT :limit;

-- uses_open_everywhere --
-- For /metrics and the alarms.
SELECT {use_columns} FROM break_glass_uses AS u
WHERE u.ended_at IS NULL OR (u.reviewed_at IS NULL AND u.void = 0);

-- insert_override --
INSERT INTO break_glass_overrides (
    tenant, id, kind, subject, person, by, by_name, reason, proof, request_id, request_digest, created_at, expires_at,
    used_by, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- use_override --
UPDATE break_glass_overrides SET used_by = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND used_by IS NULL;

-- override_by_request --
-- Idempotency (AIP-155).
SELECT {override_columns} FROM break_glass_overrides AS o
WHERE o.tenant = :tenant AND o.by = :by AND o.request_id = :request_id;

-- overrides_unused --
SELECT {override_columns} FROM break_glass_overrides AS o INDEXED BY break_glass_overrides_unused
WHERE o.tenant = :tenant AND o.person = :person AND o.used_by IS NULL
ORDER BY o.created_at, o.id;

-- insert_batch --
INSERT INTO break_glass_batches (
    tenant, id, person, person_name, count, reason, requested_by, requested_name, request_id, request_proof,
    requested_at, confirmed_by, confirmed_name, confirm_proof, confirmed_at, revoked_at, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_batch --
UPDATE break_glass_batches
SET confirmed_by = ?, confirmed_name = ?, confirm_proof = ?, confirmed_at = ?, revoked_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ?;

-- batch_by_id --
SELECT {batch_columns} FROM break_glass_batches AS b
WHERE b.tenant = :tenant AND b.id = :id;

-- batch_by_request --
SELECT {batch_columns} FROM break_glass_batches AS b
WHERE b.tenant = :tenant AND b.requested_by = :by AND b.request_id = :request_id;

-- batches_waiting --
SELECT {batch_columns} FROM break_glass_batches AS b
WHERE b.tenant = :tenant AND b.confirmed_at IS NULL AND b.revoked_at IS NULL
ORDER BY b.requested_at, b.id;

-- insert_code --
INSERT INTO break_glass_codes (
    tenant, id, batch, person, person_name, salt, hash, created_at, expires_at, failures, used_by, used_at, revoked_by,
    revoked_at, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_code --
UPDATE break_glass_codes
SET failures = ?, used_by = ?, used_at = ?, revoked_by = ?, revoked_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ?;

-- code_by_id --
SELECT {code_columns} FROM break_glass_codes AS c
WHERE c.tenant = :tenant AND c.id = :id;

-- codes_all --
SELECT {code_columns} FROM break_glass_codes AS c
WHERE c.tenant = :tenant
ORDER BY c.created_at, c.id;

-- codes_of_batch --
SELECT {code_columns} FROM break_glass_codes AS c
WHERE c.tenant = :tenant AND c.batch = :batch;
