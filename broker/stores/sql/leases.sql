-- fragment lease_columns --
l.tenant, l.id, l.task_id, l.holder, l.request_id, l.request_digest, l.template, l.template_digest, l.connector,
l.account, l.environment, l.resource, l.access, l.actions, l.parameters, l.step, l.contract_class, l.policies,
l.policy_digest, l.created_at,
l.state, l.cause, l.expires_at, l.confirm_by, l.confirmed_at, l.ended_at, l.attempt_id, l.attempts, l.failures,
l.next_due, l.svid_serial,
l.mac, l.mac_key_id

-- intent_facts --
-- Everything the intent transaction decides on, in one read: the task, the latest lease that has this
-- request id (if any: a further one is only opened when the ones before have ended, so that a living one is
-- the latest), how many leases the holder has alive (never counted beyond the quota), whether anything is suspended, and
-- whether a recovery is open. Counted in the index by name, because the planner would rather read every row.
SELECT {task_packed}, {lease_packed}, (
    SELECT count(*) FROM (
        SELECT 1 FROM leases INDEXED BY leases_living
        WHERE tenant = t.tenant AND holder = ? AND ended_at IS NULL
        LIMIT ?
    )
), EXISTS (SELECT 1 FROM suspensions INDEXED BY suspensions_unlifted WHERE tenant = t.tenant AND lifted_at IS NULL),
EXISTS (SELECT 1 FROM recoveries INDEXED BY recoveries_open WHERE tenant = t.tenant AND released_at IS NULL) AS recovering
FROM tasks AS t
LEFT JOIN leases AS l ON l.rowid = (
    SELECT max(rowid) FROM leases
    WHERE tenant = t.tenant AND holder = ? AND request_id = ?
)
WHERE t.tenant = ? AND t.id = ?;

-- intent_news --
-- The same where the writer knows task and count already: whether this request id has a lease, whether anything is
-- suspended, whether a recovery is open.
SELECT (SELECT max(rowid) FROM leases WHERE tenant = asked.tenant AND holder = ? AND request_id = ?),
    EXISTS (SELECT 1 FROM suspensions INDEXED BY suspensions_unlifted WHERE tenant = asked.tenant AND lifted_at IS NULL),
    EXISTS (SELECT 1 FROM recoveries INDEXED BY recoveries_open WHERE tenant = asked.tenant AND released_at IS NULL)
        AS recovering
FROM (SELECT ? AS tenant) AS asked;

-- insert_lease --
INSERT INTO leases (
    tenant, id, task_id, holder, request_id, request_digest, template, template_digest, connector, account,
    environment, resource, access, actions, parameters, step, contract_class, policies, policy_digest, created_at,
    state, cause, expires_at, confirm_by, confirmed_at, ended_at, attempt_id, attempts, failures, next_due,
    svid_serial, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_lease --
-- ended_at comes from end_lease alone: setting it here, even to what it is, would rewrite the index of the living.
UPDATE leases
SET state = ?, cause = ?, expires_at = ?, confirm_by = ?, confirmed_at = ?, attempt_id = ?, attempts = ?,
    failures = ?, next_due = ?, svid_serial = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND ended_at IS NULL;

-- end_lease --
UPDATE leases
SET state = ?, cause = ?, expires_at = ?, confirm_by = ?, confirmed_at = ?, ended_at = ?, attempt_id = ?, attempts = ?,
    failures = ?, next_due = ?, svid_serial = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ?;

-- lease_by_id --
SELECT {lease_columns} FROM leases AS l
WHERE l.tenant = :tenant AND l.id = :lease_id;

-- lease_of_holder --
SELECT {lease_columns} FROM leases AS l
WHERE l.tenant = :tenant AND l.id = :lease_id AND l.holder = :holder;

-- leases_of_holder --
-- Newest first; a page starts after the lease :after_id of :after_ms.
SELECT {lease_columns} FROM leases AS l
WHERE l.tenant = :tenant AND l.holder = :holder
    AND (:task_id = '' OR l.task_id = :task_id)
    AND (NOT :living_only OR l.ended_at IS NULL)
    AND (l.created_at, l.id) < (:after_ms, :after_id)
ORDER BY l.created_at DESC, l.id DESC
LIMIT :limit;

-- leases_of_task --
SELECT {lease_columns} FROM leases AS l
WHERE l.tenant = :tenant AND l.task_id = :task_id
ORDER BY l.created_at, l.id;

-- living_holders --
SELECT DISTINCT holder FROM leases
WHERE tenant = :tenant AND ended_at IS NULL;

-- living_certificates --
SELECT DISTINCT holder, svid_serial FROM leases
WHERE tenant = :tenant AND ended_at IS NULL;

-- living_figures --
SELECT contract_class, count(*) FROM leases
WHERE ended_at IS NULL
GROUP BY contract_class;
