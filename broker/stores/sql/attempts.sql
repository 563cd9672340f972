-- fragment attempt_columns --
a.tenant, a.id, a.lease_id, a.number, a.connector, a.created_at, a.issue_deadline,
a.handle, a.upstream, a.state, a.cause, a.activated_at, a.expires_at, a.due_at, a.owed_since, a.epoch, a.failures,
a.last_error, a.stuck,
a.mac, a.mac_key_id

-- fragment attempts_with_leases --
-- An attempt whose lease cannot be found is still an attempt that must die.
attempts AS a LEFT JOIN leases AS l ON l.tenant = a.tenant AND l.id = a.lease_id

-- insert_attempt --
INSERT INTO attempts (
    tenant, id, lease_id, number, connector, created_at, issue_deadline,
    handle, upstream, state, cause, activated_at, expires_at, due_at, owed_since, epoch, failures, last_error, stuck,
    mac, mac_key_id, held_by
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_attempt --
-- Compare and swap on the epoch that was read: one row or nothing.
UPDATE attempts
SET handle = ?, upstream = ?, state = ?, cause = ?, activated_at = ?, expires_at = ?, due_at = ?, owed_since = ?,
    epoch = ?, failures = ?, last_error = ?, stuck = ?, mac = ?, mac_key_id = ?, held_by = ?
WHERE tenant = ? AND id = ? AND epoch = ?;

-- end_attempt --
-- The same of an attempt that is being ended: what was made, and until when it lives, does not change any more (what a
-- try has noted in its handle is written by the one above). Setting the upstream's name, even to what it is, would
-- rewrite its index.
UPDATE attempts
SET state = ?, cause = ?, due_at = ?, owed_since = ?, epoch = ?, failures = ?, last_error = ?, stuck = ?, mac = ?,
    mac_key_id = ?, held_by = ?
WHERE tenant = ? AND id = ? AND epoch = ?;

-- quarantine_attempt --
-- A row that fails its MAC: what its revocation needs is set, nothing else is touched, and the MAC stays wrong.
UPDATE attempts
SET state = 'REVOKING', cause = :cause, due_at = :due_at, owed_since = :owed_since, epoch = :epoch, failures = :failures, last_error = :last_error, stuck = 1
WHERE tenant = :tenant AND id = :id;

-- attempt_facts --
-- An attempt with its lease and its task, for activation.
SELECT {attempt_packed}, {lease_packed}, {task_packed}
FROM {attempts_with_leases}
LEFT JOIN tasks AS t ON t.tenant = l.tenant AND t.id = l.task_id
WHERE a.tenant = ? AND a.id = ?;

-- attempt_by_id --
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.tenant = :tenant AND a.id = :attempt_id;

-- attempts_of_lease --
SELECT {attempt_columns} FROM attempts AS a
WHERE a.tenant = :tenant AND a.lease_id = :lease_id
ORDER BY a.number;

-- unended_by_lease --
-- This and the next three: attempts that nobody has ended yet, by whichever key selects the fewest rows. CROSS
-- JOIN keeps SQLite from starting at the other table (sqlite.org/optoverview.html, 7.1); elsewhere it is a join.
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.id = :lease_id AND a.state IN ('ISSUING', 'ACTIVE')
    AND :task_id IN ('', l.task_id) AND :holder IN ('', l.holder) AND :attempt_id IN ('', a.id)
LIMIT :limit;

-- unended_by_attempt --
SELECT {attempt_columns}, {lease_columns}
FROM attempts AS a CROSS JOIN leases AS l
WHERE l.tenant = a.tenant AND l.id = a.lease_id
    AND a.tenant = :tenant AND a.id = :attempt_id AND a.state IN ('ISSUING', 'ACTIVE')
    AND :task_id IN ('', l.task_id) AND :holder IN ('', l.holder) AND :lease_id IN ('', l.id)
LIMIT :limit;

-- unended_by_task --
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.task_id = :task_id AND l.ended_at IS NULL AND a.state IN ('ISSUING', 'ACTIVE')
    AND :holder IN ('', l.holder)
LIMIT :limit;

-- unended_by_holder --
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.holder = :holder AND l.ended_at IS NULL AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;

-- unended_by_certificate --
SELECT {attempt_columns}, {lease_columns}
FROM leases AS l CROSS JOIN attempts AS a
WHERE a.tenant = l.tenant AND a.lease_id = l.id
    AND l.tenant = :tenant AND l.holder = :holder AND l.ended_at IS NULL AND l.svid_serial = :svid_serial
    AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;

-- unended_by_upstream --
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.connector = :connector AND a.upstream >= :prefix AND a.upstream < :following
    AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;

-- fragment due_with_leases --
-- Over every tenant: a connector is shared. Of those that are due longest, the ones that end soonest by themselves:
-- what comes too late for them is lost. What has been due since :patience goes before all of that, so that nothing
-- waits for ever. Whole rows are read of these alone, and come in no order;
-- by their places, not by their ids, because one whose id is damaged is still an attempt that must die.
(
    SELECT place FROM (
        SELECT rowid AS place, due_at, expires_at FROM attempts
        WHERE connector = :connector AND due_at IS NOT NULL AND due_at <= :now
        ORDER BY due_at
        LIMIT :window
    ) AS w
    ORDER BY CASE WHEN due_at <= :patience THEN due_at ELSE expires_at END
    LIMIT :limit
) AS d
CROSS JOIN attempts AS a LEFT JOIN leases AS l ON l.tenant = a.tenant AND l.id = a.lease_id
WHERE a.rowid = d.place

-- attempts_due --
SELECT {attempt_columns}, {lease_columns} FROM {due_with_leases};

-- attempts_due_packed --
SELECT {attempt_packed}, {lease_packed} FROM {due_with_leases};

-- next_due --
SELECT min(due_at) FROM attempts WHERE connector = :connector AND due_at IS NOT NULL;

-- attempts_due_of_all --
-- Of every connector, what nobody has begun to end although it is due.
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.due_at IS NOT NULL AND a.due_at <= :now AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;

-- attempts_to_recover --
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.due_at IS NOT NULL AND (a.state = 'ISSUING' OR (a.state = 'ACTIVE' AND a.due_at <= :now))
LIMIT :limit;

-- attempts_claimed --
-- Owed, not failing, and not due: somebody is at it. What waits is not owed before it is due.
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.due_at > :now AND a.state = 'REVOKING' AND a.failures = 0 AND a.owed_since <= :now
LIMIT :limit;

-- attempts_held --
-- What some daemons have in hand.
SELECT {attempt_columns}, {lease_columns}
FROM {attempts_with_leases}
WHERE a.held_by IN (SELECT value FROM json_each(:writers)) AND a.due_at IS NOT NULL
    AND a.state IN ('ISSUING', 'REVOKING')
LIMIT :limit;

-- attempts_by_upstream --
SELECT {attempt_columns} FROM attempts AS a
WHERE a.connector = :connector AND a.upstream IN (SELECT value FROM json_each(:names));

-- connectors_in_use --
-- From one to the next in the index, however many leases there are of each: every tick asks.
WITH RECURSIVE used (connector) AS (
    SELECT min(connector) FROM attempts WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(connector) FROM attempts WHERE due_at IS NOT NULL AND connector > used.connector)
    FROM used WHERE used.connector IS NOT NULL
)
SELECT connector FROM used WHERE connector IS NOT NULL
UNION
SELECT connector FROM upstream_orphans WHERE due_at IS NOT NULL;

-- owed_figures --
-- How many attempts should have been ended by now and are not, and since when the oldest.
SELECT count(*), min(coalesce(owed_since, due_at)) FROM attempts
WHERE due_at IS NOT NULL AND coalesce(owed_since, due_at) < :now;

-- stuck_figure --
SELECT count(*) FROM attempts WHERE stuck = 1 AND due_at IS NOT NULL;

-- unended_by_human --
-- What open tasks that act for somebody have.
SELECT {attempt_columns}, {lease_columns}
FROM tasks AS t INDEXED BY tasks_on_behalf_of CROSS JOIN leases AS l CROSS JOIN attempts AS a
WHERE t.tenant = :tenant AND t.on_behalf_of = :human AND t.ends_at IS NOT NULL
    AND l.tenant = t.tenant AND l.task_id = t.id AND l.ended_at IS NULL
    AND a.tenant = l.tenant AND a.lease_id = l.id AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;
