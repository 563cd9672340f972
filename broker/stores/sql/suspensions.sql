-- fragment suspension_columns --
s.tenant, s.id, s.kind, s.value, s.reason, s.author, s.author_name, s.request_id, s.request_digest, s.created_at, s.until,
s.first_by, s.first_name, s.first_reason, s.first_request_id, s.first_at,
s.lifted_by, s.lifted_name, s.lifted_reason, s.lifted_request_id, s.lifted_at,
s.mac, s.mac_key_id

-- insert_suspension --
INSERT INTO suspensions (
    tenant, id, kind, value, reason, author, author_name, request_id, request_digest, created_at, until,
    first_by, first_name, first_reason, first_request_id, first_at,
    lifted_by, lifted_name, lifted_reason, lifted_request_id, lifted_at,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_suspension --
UPDATE suspensions
SET first_by = ?, first_name = ?, first_reason = ?, first_request_id = ?, first_at = ?,
    lifted_by = ?, lifted_name = ?, lifted_reason = ?, lifted_request_id = ?, lifted_at = ?,
    mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ?;

-- quarantine_suspension --
-- A row that fails its MAC counts as in force: it is found where those are looked for, and its MAC stays wrong.
UPDATE suspensions
SET lifted_by = NULL, lifted_name = NULL, lifted_reason = NULL, lifted_request_id = NULL, lifted_at = NULL
WHERE tenant = :tenant AND id = :id;

-- any_unlifted --
SELECT EXISTS (SELECT 1 FROM suspensions INDEXED BY suspensions_unlifted WHERE tenant = ? AND lifted_at IS NULL);

-- suspensions_unlifted --
SELECT {suspension_columns} FROM suspensions AS s INDEXED BY suspensions_unlifted
WHERE s.tenant = :tenant AND s.lifted_at IS NULL
ORDER BY s.created_at, s.id;

-- suspensions_lifted --
-- A page of those that are over, or say so.
SELECT {suspension_columns} FROM suspensions AS s
WHERE s.tenant = :tenant AND s.lifted_at IS NOT NULL AND s.id > :after
ORDER BY s.id
LIMIT :limit;

-- suspensions_page --
-- Newest first; a page starts after the suspension :after_id of :after_ms.
SELECT {suspension_columns} FROM suspensions AS s
WHERE s.tenant = :tenant AND (:ended OR s.lifted_at IS NULL) AND (s.created_at, s.id) < (:after_ms, :after_id)
ORDER BY s.created_at DESC, s.id DESC
LIMIT :limit;

-- suspension_by_id --
SELECT {suspension_columns} FROM suspensions AS s
WHERE s.tenant = :tenant AND s.id = :id;

-- suspension_by_request --
-- Idempotency (AIP-155): the suspension that this author made under this request id.
SELECT {suspension_columns} FROM suspensions AS s
WHERE s.tenant = :tenant AND s.author = :author AND s.request_id = :request_id;

-- suspended_of_holder --
-- This and the next two: living attempts in one state that a suspension ends, in the order of the index of the living
-- and after a place in it, so that a portion costs what is in it and not what was ended before. A lease has at most one
-- attempt in either state.
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l INDEXED BY leases_living CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.holder = :holder AND l.ended_at IS NULL AND a.state = :state
    AND l.request_id > CASE WHEN :holder = :after_holder THEN :after_request ELSE '' END
ORDER BY l.request_id
LIMIT :limit;

-- suspended_of_task --
-- Sorted, because what one task has is bounded.
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.task_id = :task_id AND l.ended_at IS NULL AND a.state = :state
    AND (l.holder, l.request_id) > (:after_holder, :after_request)
ORDER BY l.holder, l.request_id
LIMIT :limit;

-- suspended_of_kind --
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l INDEXED BY leases_living CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.ended_at IS NULL AND a.state = :state
    AND (l.holder, l.request_id) > (:after_holder, :after_request)
    AND :template IN ('', l.template) AND :connector IN ('', l.connector) AND :account IN ('', l.account)
ORDER BY l.holder, l.request_id
LIMIT :limit;

-- suspended_alive --
-- What is being ended and not proven dead, counted by holder and connector: few rows, whatever lives.
SELECT l.holder, a.connector, count(*), max(a.expires_at)
FROM leases AS l INDEXED BY leases_living CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.ended_at IS NULL AND a.state = 'REVOKING'
    AND :task IN ('', l.task_id) AND :template IN ('', l.template)
    AND :connector IN ('', l.connector) AND :account IN ('', l.account)
GROUP BY l.holder, a.connector;

-- suspensions_unlifted_everywhere --
SELECT {suspension_columns} FROM suspensions AS s WHERE s.lifted_at IS NULL;
