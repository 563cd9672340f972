-- fragment allocation_columns --
x.account, x.tenant, x.connector, x.state, x.attempt_id, x.since, x.ends_at, x.free_at, x.mac, x.mac_key_id

-- allocation_of_account --
SELECT {allocation_columns} FROM account_allocations AS x WHERE x.account = ?;

-- allocation_of_attempt --
-- The newest, where it was given back and lent another.
SELECT {allocation_columns} FROM account_allocations AS x
WHERE x.tenant = ? AND x.attempt_id = ? ORDER BY x.since DESC LIMIT 1;

-- allocations_of_connector --
-- And of whichever had its accounts before. Bounded by the size of its pools. With whether its attempt may be alive, as
-- that one's row says.
SELECT {allocation_columns}, EXISTS (
    SELECT 1 FROM attempts AS a WHERE a.tenant = x.tenant AND a.id = x.attempt_id AND a.due_at IS NOT NULL
) FROM account_allocations AS x
WHERE x.tenant = ? AND (x.connector = ? OR x.account IN (SELECT value FROM json_each(?))) ORDER BY x.account;

-- allocations_among --
-- Who has waited longest comes first, so that one account that does not work is not the first of every search.
SELECT {allocation_columns} FROM account_allocations AS x
WHERE x.account IN (SELECT value FROM json_each(?)) ORDER BY x.since, x.account;

-- attempt_is_issuing --
SELECT count(*) FROM attempts WHERE tenant = ? AND id = ? AND state = 'ISSUING';

-- put_allocation --
INSERT INTO account_allocations
(account, tenant, connector, state, attempt_id, since, ends_at, free_at, mac, mac_key_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account) DO UPDATE
SET connector = excluded.connector, state = excluded.state, attempt_id = excluded.attempt_id, since = excluded.since,
    ends_at = excluded.ends_at, free_at = excluded.free_at, mac = excluded.mac, mac_key_id = excluded.mac_key_id
WHERE account_allocations.tenant = excluded.tenant;

-- forget_allocation --
DELETE FROM account_allocations WHERE tenant = ? AND account = ? AND state = 'RESTING' AND free_at <= ?;

-- forget_ready_allocations --
DELETE FROM account_allocations WHERE tenant = ? AND state = 'READY';
