-- fragment orphan_columns --
o.tenant, o.id, o.connector, o.name, o.attempt_id, o.handle, o.why, o.created_at, o.expires_at, o.found_at,
o.due_at, o.ended_at, o.outcome, o.epoch, o.failures, o.last_error, o.stuck,
o.mac, o.mac_key_id

-- mark_of_tenant --
SELECT tenant, mark, made_at, mac, mac_key_id FROM marks WHERE tenant = :tenant;

-- insert_mark --
INSERT INTO marks (tenant, mark, made_at, mac, mac_key_id) VALUES (?, ?, ?, ?, ?);

-- attempts_by_name --
-- What the ledger knows by the upstream's name, whichever connector noted it: two may speak with one upstream.
SELECT {attempt_columns} FROM attempts AS a
WHERE a.connector IN (SELECT value FROM json_each(:connectors)) AND a.upstream IN (SELECT value FROM json_each(:names));

-- attempts_by_ids --
SELECT {attempt_columns} FROM attempts AS a
WHERE a.tenant = :tenant AND a.id IN (SELECT value FROM json_each(:ids));

-- attempts_active --
SELECT {attempt_columns} FROM attempts AS a
WHERE a.connector = :connector AND a.due_at IS NOT NULL AND a.state = 'ACTIVE' AND a.expires_at > :now;

-- every_connector --
-- Whose attempts have names: walks the index from one connector to the next, without looking at all of them.
WITH RECURSIVE named (connector) AS (
    SELECT min(connector) FROM attempts WHERE upstream IS NOT NULL
    UNION ALL
    SELECT (SELECT min(connector) FROM attempts WHERE upstream IS NOT NULL AND connector > named.connector) FROM named
    WHERE named.connector IS NOT NULL
)
SELECT connector FROM named WHERE connector IS NOT NULL;

-- insert_orphan --
INSERT INTO upstream_orphans (
    tenant, id, connector, name, attempt_id, handle, why, created_at, expires_at, found_at,
    due_at, ended_at, outcome, epoch, failures, last_error, stuck, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_orphan --
-- Compare and swap on the epoch that was read: one row or nothing.
UPDATE upstream_orphans
SET due_at = ?, ended_at = ?, outcome = ?, epoch = ?, failures = ?, last_error = ?, stuck = ?, mac = ?, mac_key_id = ?,
    held_by = ?
WHERE tenant = ? AND id = ? AND epoch = ?;

-- drop_orphan --
DELETE FROM upstream_orphans WHERE tenant = :tenant AND id = :id;

-- orphan_by_id --
SELECT {orphan_columns} FROM upstream_orphans AS o WHERE o.tenant = :tenant AND o.id = :id;

-- orphan_living --
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.connector = :connector AND o.name = :name AND o.due_at IS NOT NULL;

-- orphans_due --
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.connector = :connector AND o.due_at IS NOT NULL AND o.due_at <= :now
ORDER BY o.due_at LIMIT :limit;

-- orphans_held --
-- What some daemons have in hand.
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.held_by IN (SELECT value FROM json_each(:writers)) AND o.due_at IS NOT NULL
LIMIT :limit;

-- orphans_claimed --
-- Not failing, and not due although it is from when it was found on: somebody is at it.
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.due_at > :now AND o.failures = 0
LIMIT :limit;

-- orphans_listed --
-- The newest first.
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.tenant = :tenant AND (:living = 0 OR o.due_at IS NOT NULL)
    AND (o.found_at, o.id) < (:before_ms, :before_id)
ORDER BY o.found_at DESC, o.id DESC LIMIT :limit;

-- orphan_connectors_due --
SELECT DISTINCT connector FROM upstream_orphans WHERE due_at IS NOT NULL AND due_at <= :now;

-- orphan_figures --
SELECT connector, count(*), CAST(sum(stuck) AS INTEGER) FROM upstream_orphans WHERE due_at IS NOT NULL GROUP BY connector;

-- drop_ended_orphans --
DELETE FROM upstream_orphans WHERE ended_at < :before;
